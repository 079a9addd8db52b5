r"""The exact reduction: a small data set with the same likelihood for every beta.

In a pool (one mixing matrix, one noise shape) the likelihood depends on the whitened
data only through $D = \sum_p x_p x_p^T$, x the data and the templates of a sample. A
root $R^T R = D$ has at most as many rows as x has entries: its rows are samples of a
smaller data set with the same likelihood. Roots are found and merged by orthogonal
transformations, never by a Cholesky of D, which fails at signal to noise 1e7.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from distsep.inference.likelihood import Block, Tables
from distsep.inference.model import Model
from distsep.inference.native_sums import native_kernel
from distsep.inference.packing import in_chunks, joined
from distsep.inference.tiles import TOGETHER
from distsep.native import gpu
from distsep.native import kernels as native

_FAN_IN = 16


def block_root(tables, block: Block, template=()):  # noqa: ARG001
    r"""Root of the sum of $x x^T$ of every tile of one block.

    Shifted Cholesky QR, twice: the Gram matrix of x gives a first triangle T (shifted,
    so that it exists at any signal to noise); that of $T^{-T} x$, which is well
    conditioned, the rest. Matrix products only: a block is passed through thrice while
    it is in cache.

    Returns:
        `(tile, n * n)`, n = rows + templates.

    Communication: none.

    References:
        Fukaya et al. (2020), SIAM J. Sci. Comput. 42, A477.
    """
    x = jnp.concatenate([block.d, block.t])
    n, ntile = x.shape[0], block.pool.shape[0]
    tile = x.shape[1] // ntile
    if gpu.usable() and gpu.fits(n, tile):
        return gpu.root(block.d, block.t, ntile)
    if tile >= TOGETHER and jax.default_backend() == "cpu":
        # One after another: a tile stays in cache, and plain products are fastest.
        cut = partial(jax.lax.dynamic_slice_in_dim, x, slice_size=tile, axis=1)
        return jax.lax.map(lambda i: _root(cut(i * tile)).ravel(), jnp.arange(ntile))
    tiles = jnp.moveaxis(x.reshape(n, ntile, tile), 1, 0)
    return jax.vmap(_root)(tiles).reshape(ntile, n * n)


def _root(x):
    n, m = x.shape
    eps = jnp.finfo(x.dtype).eps
    eye = jnp.eye(n)
    gram = _gram(x)
    scale = jnp.sqrt(jnp.diagonal(gram))
    # A band that no sample of the tile observed is a row of zeros.
    scale = jnp.where(scale > 0, scale, 1.0)
    shift = 11 * n * (n + m) * eps
    T, inverse = _cholesky(gram / jnp.outer(scale, scale) + shift * eye, shift)
    y = _dot(inverse / scale, x)
    S, _ = _cholesky(_gram(y) + n * eps * eye, n * eps)
    root = _dot(scale[:, None] * T, S).T
    # A row of zeros stays one: a template that is zero has no data.
    return jnp.where((jnp.diagonal(gram) > 0)[None, :], root, 0.0)


def _cholesky(m, least):
    """Factor L of a small matrix, and L^-1: column by column, in plain operations.

    No pivot is below `least`: rounding may leave less of rows that depend on others.
    Not by LAPACK: thousands of small calls from inside a sharded program are slow, and
    were seen to lock up.
    """
    n = len(m)
    row = jnp.arange(n)
    L, rest = jnp.zeros_like(m), m
    inverse = jnp.eye(n)
    for j in range(n):
        pivot = jnp.maximum(rest[j, j], least)
        column = jnp.where(row > j, rest[:, j], 0.0).at[j].set(pivot)
        column = column * jax.lax.rsqrt(pivot)
        L = L.at[:, j].set(column)
        rest = rest - jnp.outer(column, column)
        top = inverse[j] / column[j]
        inverse = inverse - jnp.where(row > j, column, 0.0)[:, None] * top
        inverse = inverse.at[j].set(top)
    return L, inverse


def _dot(a, b):
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


def _gram(x):
    return _dot(x, x.T)


def merge_roots(roots: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Merge runs of roots into one each, like `np.add.reduceat`.

    A run is merged in a fixed tree of small QR factorisations, whatever the number of
    ranks or threads.

    Args:
        roots: `(k, n * n)`.
        first: First root of each run.
    """
    n = int(round(roots.shape[1] ** 0.5))
    lengths = np.diff([*first, len(roots)])
    out = np.empty((len(first), n * n))
    for length in np.unique(lengths):
        runs = np.flatnonzero(lengths == length)
        take = first[runs][:, None] + np.arange(length)
        out[runs] = _merge(roots[take].reshape(len(runs), length, n, n)).reshape(
            -1, n * n
        )
    return out


def _merge(stack: np.ndarray) -> np.ndarray:
    runs, k, n, _ = stack.shape
    while k > 1:
        groups, fan_in = -(-k // _FAN_IN), min(k, _FAN_IN)
        lacking = groups * fan_in - k
        if lacking:
            stack = np.concatenate([stack, np.zeros((runs, lacking, n, n))], 1)
        rows = stack.reshape(runs, groups, fan_in * n, n)
        stack, k = np.asarray(np.linalg.qr(rows, mode="r")), groups
    return stack[:, 0]


def worthwhile(count: np.ndarray, nrow: int) -> bool:
    """Whether a reduction leaves under half of the samples."""
    return bool(2 * np.minimum(nrow, count).sum() < count.sum())


class ReducedData:
    """The roots of all pools, as one block with a tile for each pool.

    Replicated on every rank and held by one device, so that a fit needs neither the
    pixels nor communication. Calling it is one pass: `(kernel, x) -> (pool, k)`.

    Args:
        roots: `(pool, n * n)`.
        model: Tables of the pools. It has the rows of the data; the others of a root
            are templates.
        template: For each global term its row of the templates (static).
        single: Puts arrays on the first local device.
    """

    def __init__(
        self, roots: np.ndarray, model: Model, template=(), single=jnp.asarray
    ):
        self._model, nrow = model, model.nrow
        npool = len(roots)
        n = int(round(roots.shape[1] ** 0.5))
        self.rows, self.template = npool * n, tuple(template)
        # A chunk for each pool: whole vectors for the compiled kernels.
        own = native.usable() and n <= native.MOST_LANES
        x = np.zeros((npool, n, -(-n // native.WIDTH) * native.WIDTH if own else n))
        x[..., :n] = np.swapaxes(roots.reshape(npool, n, n), 1, 2)
        pool = np.arange(npool, dtype=np.int32)
        block = Block(x[:, :nrow], x[:, nrow:], pool)
        block = jax.tree.map(lambda x: x[None], block) if own else joined(block)
        self.block = single(block)

    def __call__(self, kernel: Callable, x) -> np.ndarray:
        """One pass. Communication: none."""
        tables = self._model.tables_for(kernel, x)
        return np.asarray(_one_pass(kernel, tables, self.block, self.template))


def reduced_sums(kernel: Callable, T: Tables, block: Block, template):
    """Sums over the tiles of `ReducedData.block`: traceable, `(pool, k)`.

    Communication: none.
    """
    if not in_chunks(block):
        return kernel(T, block, template)
    if (own := native_kernel(kernel, T)) is not None:
        return own(T, block, template)[0]
    return kernel(T, joined(jax.tree.map(lambda x: x[0], block)), template)


_one_pass = jax.jit(reduced_sums, static_argnums=(0, 3))
