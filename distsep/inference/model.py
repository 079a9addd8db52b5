"""The tables of the pools at given parameters: A, its derivatives, the global terms.

Computed in a jit of its own on one device, so that the sharded pass takes them as
inputs and keeps its bits whatever the number of devices. Many pools are worked on in
batches: a rank may then have the tables of its own pools alone, with the bits that they
have among all.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distsep.inference.likelihood import Tables, block_curvature
from distsep.model.mixing import MixingMatrix

# Pools of a batch: on a processor what they need stays in cache.
_BATCH = {"cpu": 64}
_BATCH_ELSEWHERE = 4096


def _batch() -> int:
    return _BATCH.get(jax.default_backend(), _BATCH_ELSEWHERE)


def in_batches(npool: int) -> bool:
    """Whether the tables of so many pools, of all ranks, are made in batches."""
    return npool > 2 * _batch()


class Shape(NamedTuple):
    """What the compiled tables depend on, beside the numbers.

    Attributes:
        mixing: MixingMatrix of all components.
        band_rows: For each global term on bands, the rows it acts on.
        regional: Columns of A with one amplitude per region instead of per sample.
        second: Whether second derivatives are wanted.
    """

    mixing: MixingMatrix
    band_rows: tuple[tuple[int, ...], ...]
    regional: tuple[int, ...]
    second: bool


class Model:
    """From the vector of parameters to the tables of every pool.

    Args:
        mixing: MixingMatrix of all components.
        index: `(pool, kind + global)` parameter of each kind and global term.
        noise_class: `(pool,)` noise class.
        white: `(class, row)` or `(class, row, row)`, or None: see `NoiseClasses`.
        band_rows: For each global term on bands, the rows it acts on.
        regional: Columns of A with one amplitude per region instead of per sample.

    Attributes:
        index: As given.
        nkind: Number of spectral kinds.
        nrow: Rows of A.
        white: Whitening of each pool, or None.
        column_names: Components whose amplitudes are free in every sample.
    """

    def __init__(self, mixing, index, noise_class, white, band_rows=(), regional=()):
        self._mixing, self._band_rows = mixing, tuple(band_rows)
        self._regional = tuple(regional)
        self.index = jnp.asarray(index)
        self._in_batches = in_batches(len(index))
        self.nkind = len(mixing.names)
        nu, stokes = mixing.instrument.nu, mixing.stokes
        self.nrow = len(nu) * (len(stokes) if mixing.joint else 1)
        names = mixing.component_names
        if mixing.joint:
            names = [f"{c} {k}" for c in names for k in stokes]
        self.column_names = [n for i, n in enumerate(names) if i not in self._regional]
        self.white = (
            None if white is None else jnp.asarray(white[np.asarray(noise_class)])
        )

    def of(self, pools: np.ndarray) -> "Model":
        """Return the model of some of the pools, `(pool,)` numbers.

        Raises:
            ValueError: the tables are not made in batches, and would have other bits.
        """
        if not self._in_batches:
            raise ValueError("`Model.of(pools)`: these pools are too few to be parted.")
        some = copy.copy(self)
        some.index = self.index[pools]
        some.white = None if self.white is None else self.white[pools]
        return some

    def tables(self, x, second: bool = False) -> Tables:
        """Tables at the parameters x; with second derivatives if asked for.

        Communication: none.
        """
        return self._tables(self.shape(second), x, self.white)

    def tables_for(self, kernel: Callable, x) -> Tables:
        """What a kernel needs at the parameters x. Communication: none."""
        return self.tables(x, second=kernel is block_curvature)

    def _tables(self, shape: Shape, x, white) -> Tables:
        if self._in_batches:
            return _tables_in_batches(shape, _batch(), x, self.index, white)
        return tables(shape, x, self.index, white)

    def rows(self, x) -> tuple[np.ndarray, np.ndarray]:
        """A `(pool, row, comp)` and F alpha `(pool, row, term)`, not whitened."""
        T = self._tables(self.shape(False), x, None)
        return np.asarray(T.A), np.asarray(
            jnp.swapaxes(T.phi * T.alpha[..., None], 1, 2)
        )

    def shape(self, second: bool) -> Shape:
        """What the compiled tables depend on."""
        return Shape(self._mixing, self._band_rows, self._regional, second)


@partial(jax.jit, static_argnums=0)
def tables(shape: Shape, x, index, white) -> Tables:
    """Tables of every pool: a pure function of arrays, beside its shape.

    Args:
        shape: What is compiled in.
        x: All parameters.
        index: `(pool, kind + global)`.
        white: Whitening of each pool, or None.
    """
    nkind = len(shape.mixing.names)
    A, *derivatives = shape.mixing.evaluate(x[index[:, :nkind]])
    A = _whiten(white, A)
    npool, nrow, ncolumn = A.shape
    last = list(shape.regional)
    first = [c for c in range(ncolumn) if c not in last]
    dA, d2A = (
        d.rows(partial(_whiten, white)).reordered(first + last) for d in derivatives
    )
    A = A[..., np.array(first + last)] if last else A
    free, regional = A[..., : len(first)], A[..., len(first) :]
    acts = np.zeros((nrow, len(shape.band_rows)))
    for k, rows in enumerate(shape.band_rows):
        acts[list(rows), k] = 1.0
    bands = _whiten(white, jnp.broadcast_to(acts, (npool, *acts.shape)))
    Q, Rinv = (None, None) if white is None else orthonormal(free)
    return Tables(
        A=free,
        Q=Q,
        Rinv=Rinv,
        dA=dA,
        d2A=d2A if shape.second else None,
        regional=regional,
        phi=jnp.swapaxes(jnp.concatenate([bands, regional], axis=2), 1, 2),
        alpha=x[index[:, nkind:]],
    )


@partial(jax.jit, static_argnums=(0, 1))
def _tables_in_batches(shape: Shape, batch: int, x, index, white) -> Tables:
    """`tables`, some pools at a time: those of a pool do not depend on the others."""
    npool = len(index)
    # A loop of one step is compiled differently and does not keep its bits.
    count = max(2, -(-npool // batch))

    def cut(table):
        fill = [(0, count * batch - npool), *[(0, 0)] * (table.ndim - 1)]
        return jnp.pad(table, fill, mode="edge").reshape(count, batch, *table.shape[1:])

    cuts = jax.tree.map(cut, (index, white))
    found = jax.lax.map(lambda some: tables(shape, x, *some), cuts)
    return jax.tree.map(lambda t: t.reshape(count * batch, *t.shape[2:])[:npool], found)


@jax.jit
def orthonormal(A):
    """A = Q R for every pool: Q and R^-1, of `(pool, row, comp)`.

    Gram-Schmidt, each column twice, which is as good as Householder's: a few products
    over all pools at once, where a factorisation per pool would be thousands of calls.
    """
    columns, inverse = [], []
    for j in range(A.shape[-1]):
        a, R = A[..., j], [jnp.zeros(A.shape[0])] * j
        for _ in range(2):
            for i, q in enumerate(columns):
                r = jnp.sum(q * a, -1)
                a = a - r[:, None] * q
                R[i] = R[i] + r
        size = jnp.sqrt(jnp.sum(a * a, -1))
        columns.append(a / size[:, None])
        # Column j of R^-1: -R^-1[:, :j] R[:j, j] / R[j, j], and 1 / R[j, j].
        above = sum((R[i][:, None] * inverse[i] for i in range(j)), 0.0)
        unit = jnp.zeros((A.shape[0], A.shape[-1])).at[:, j].set(1.0)
        inverse.append((unit - above) / size[:, None])
    if not columns:
        return A, jnp.zeros((A.shape[0], 0, 0))
    return jnp.stack(columns, -1), jnp.stack(inverse, -1)


def _whiten(white, x):
    """Apply the whitening of each pool to `(pool, row, ...)`."""
    if white is None:
        return x
    if white.ndim == 2:
        return white[..., None] * x
    return jnp.einsum("prs,psc->prc", white, x)
