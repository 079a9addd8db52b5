"""The sums over tiles on a GPU, in one sweep of its memory, of many blocks at once.

Roots are a kernel in CUDA (see `native.gpu`). Value and gradient are one in Pallas: a
program takes some lanes of one tile. It reads their data and variances, solves for
their amplitudes, and reads them again, from cache, for what the sums need; the tables
of its pool are the same numbers for all of its lanes. The same sums as
`block_value_gradient`, of all blocks at once. Nothing depends on how many blocks there
are, or on which device.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from distsep.inference.likelihood import Block, Tables, block_value_gradient
from distsep.inference.native_sums import few_components, for_samples
from distsep.inference.reduce import block_root
from distsep.native import gpu
from distsep.native import kernels as native

# Lanes of a program, one for each of its threads. A tile of less than a warp is left to
# XLA.
LANES = 128
WARP = 32
_ROWS = 5  # that are read at once
_MOST_ROWS = 64
_MOST_NUMBERS = 2**31  # Triton counts them in 32 bits


def gpu_kernel(kernel: Callable, tables: Any, block: Block) -> Callable | None:
    """The kernel that makes the sums of `kernel` on a GPU, if there is one.

    Returns:
        `f(tables, block, template)` -> `(block, tile, k)`, traceable by JAX.

    Communication: none.
    """
    tile = block.d.shape[-1] // block.pool.shape[-1]
    if kernel is block_root:
        entries = block.d.shape[-2] + block.t.shape[-2]
        return _root if gpu.usable() and gpu.fits(entries, tile) else None
    if kernel is not block_value_gradient or not native.asked():
        return None
    fits = tile >= WARP and block.d.shape[-2] <= _MOST_ROWS and block.invN is None
    fits = fits and block.d.size < _MOST_NUMBERS
    return value_gradient if fits and few_components(tables) else None


def _root(_tables: Any, block: Block, _template: tuple) -> Array:
    return gpu.root(block.d, block.t, block.pool.shape[-1])


def value_gradient(
    T: Tables, block: Block, template: tuple = (), *, interpret: bool = False
) -> Array:
    """Value and gradient of every tile of many blocks.

    Args:
        T: Tables of the pools.
        block: `(block, row, lane)`; the lanes of a tile are a power of two.
        template: For each global term the row of `block.t` (static).
        interpret: Run it as a plain program, on any device.

    Returns:
        `(block, tile, 1 + kind + global)`, as `block_value_gradient`.

    Communication: none.
    """
    T = for_samples(T, block)
    nblock, _, nlane = block.d.shape
    ntile, (nkind, _) = block.pool.shape[1], T.dA.shape
    lanes = min(nlane // ntile, LANES)
    per, nout = nlane // ntile // lanes, 1 + nkind + len(template)
    # No arrays without elements.
    arrays = {"pool": block.pool, "d": block.d, "A": T.A, "w": block.w}
    if template:
        arrays |= {"t": block.t, "phi": T.phi, "alpha": T.alpha}
    if T.dA.places:
        arrays["dA"] = T.dA.value
    arrays = {name: x for name, x in arrays.items() if x is not None}
    names = tuple(arrays)

    def program(*refs: Any) -> None:
        *given, out = refs
        named = dict(zip(names, given, strict=True))
        _program(_Lanes(named, lanes, per, tuple(template)), T.dA, out)

    rows = pl.pallas_call(
        program,
        grid=(nblock, ntile * per),
        out_shape=jax.ShapeDtypeStruct((nblock, ntile * per, nout), block.d.dtype),
        compiler_params=triton.CompilerParams(num_warps=max(lanes // WARP, 1)),
        interpret=interpret,
        name="distsep_value_gradient",
    )(*arrays.values())
    return rows.reshape(nblock, ntile, per, nout).sum(2)


class _Lanes:
    """What the lanes of one program read, row by row.

    Args:
        refs: The arrays, by name.
        lanes: Number of lanes.
        per: Programs of a tile.
        template: Of each global term.
    """

    def __init__(self, refs: dict, lanes: int, per: int, template: tuple):
        self._refs, self._block, chunk = refs, pl.program_id(0), pl.program_id(1)
        self._pool = refs["pool"][self._block, chunk // per]
        self._at = pl.ds(chunk * lanes, lanes)
        self.nrow, self.ncomp = refs["A"].shape[1:]
        self.weighted, self.terms = "w" in refs, range(len(template))
        self.t = [refs["t"][self._block, k, self._at] for k in template]
        self.alpha = [refs["alpha"][self._pool, g] for g in self.terms]
        self.nothing = jnp.zeros((lanes,), refs["d"].dtype)

    def A(self, r: Any) -> list:  # noqa: N802
        """Mixing matrix."""
        return [self._refs["A"][self._pool, r, c] for c in range(self.ncomp)]

    def slopes(self, r: Any, count: int) -> list:
        """Entries of dA."""
        return [self._refs["dA"][self._pool, e, r] for e in range(count)]

    def phi(self, r: Any) -> list:
        """What each global term has of the row."""
        return [self._refs["phi"][self._pool, g, r] for g in self.terms]

    def w(self, r: Any) -> Any:
        """Inverse variances; whitened samples have 1."""
        return self._refs["w"][self._block, r, self._at] if self.weighted else 1.0

    def d(self, r: Any) -> Any:
        """Data less the global terms."""
        x = self._refs["d"][self._block, r, self._at]
        for f, alpha, t in zip(self.phi(r), self.alpha, self.t, strict=True):
            x = x - f * alpha * t
        return x


def _program(x: _Lanes, dA: Any, out: Any) -> None:
    """Sums over the lanes of one program."""
    s, residual = _weighted(x) if x.weighted else _whitened(x)
    nentry, nterm = len(dA.places), len(x.t)

    def row(r: Any, sums: list) -> list:
        """Value, r^T N^-1 along each entry of dA, and along each global term."""
        rest = residual(r)
        along = [rest, *x.slopes(r, nentry), *x.phi(r)]
        return [y + a * (x.w(r) * rest) for y, a in zip(sums, along, strict=True)]

    sums = _over_rows(x.nrow, row, [x.nothing] * (1 + nentry + nterm))
    # A regional column is there with its coefficient, beside those that are free.
    first = nterm - (dA.shape[1] - x.ncomp)
    columns = s + [x.alpha[g] * x.t[g] for g in range(first, nterm)]
    gradient = [x.nothing] * dA.shape[0]
    for (kind, column), along in zip(dA.places, sums[1 : 1 + nentry], strict=True):
        gradient[kind] = gradient[kind] - along * columns[column]
    gradient += [-y * t for y, t in zip(sums[1 + nentry :], x.t, strict=True)]
    for k, y in enumerate([0.5 * sums[0], *gradient]):
        out[pl.program_id(0), pl.program_id(1), k] = jnp.sum(y)


def _whitened(x: _Lanes) -> tuple[list, Callable]:
    """Amplitudes along orthonormal columns, and the residual of a row.

    What rounding left of the signal along them is projected out once more.
    """
    z = _projected(x, x.d)
    more = _projected(x, lambda r: _less(x.d(r), x.A(r), z))
    s = [a + b for a, b in zip(z, more, strict=True)]
    return s, lambda r: _less(_less(x.d(r), x.A(r), z), x.A(r), more)


def _weighted(x: _Lanes) -> tuple[list, Callable]:
    """Amplitudes by the normal equations of each lane, and the residual of a row."""
    lower = [(i, j) for i in range(x.ncomp) for j in range(i + 1)]

    def row(r: Any, m: list) -> list:
        A, w = x.A(r), x.w(r)
        return [y + A[i] * A[j] * w for y, (i, j) in zip(m, lower, strict=True)]

    m = _over_rows(x.nrow, row, [x.nothing] * len(lower))
    s = _solved(m, _projected(x, lambda r: x.w(r) * x.d(r)))
    return s, lambda r: _less(x.d(r), x.A(r), s)


def _projected(x: _Lanes, start: Callable) -> list:
    """A^T y of every lane, with y of each row by `start`."""

    def row(r: Any, z: list) -> list:
        y = start(r)
        return [b + a * y for b, a in zip(z, x.A(r), strict=True)]

    return _over_rows(x.nrow, row, [x.nothing] * x.ncomp)


def _over_rows(nrow: int, function: Callable, start: list) -> list:
    """Go through the rows, `x = function(row, x)`: a few in each step of a loop.

    So many are read at once; all of them written out would take minutes to compile.
    """

    def some(step: Any, x: list) -> list:
        for k in range(_ROWS):
            x = function(step * _ROWS + k, x)
        return x

    whole = nrow // _ROWS
    x = jax.lax.fori_loop(jnp.int32(0), jnp.int32(whole), some, start)
    for r in range(whole * _ROWS, nrow):
        x = function(r, x)
    return x


def _less(x: Any, A: list, s: list) -> Any:
    """A row less the amplitudes along it."""
    for a, y in zip(A, s, strict=True):
        x = x - a * y
    return x


def _solved(m: list, b: list) -> list:
    """Solve with small matrices, one per lane, by Cholesky's factor."""
    n, entry = len(b), iter(m)
    L: list[list[Any]] = [[None] * n for _ in range(n)]
    z: list[Any] = []
    for i in range(n):
        for j in range(i + 1):
            x = next(entry)
            if i == j:  # an empty lane has no weight: a unit matrix in place of zero
                x = jnp.where(x == 0, 1.0, x)
            for k in range(j):
                x = x - L[i][k] * L[j][k]
            # The reciprocal is kept on the diagonal.
            L[i][j] = 1 / jnp.sqrt(x) if i == j else x * L[j][j]
        z.append(_less(b[i], L[i][:i], z) * L[i][i])
    s: list[Any] = [None] * n
    for i in reversed(range(n)):
        below = range(i + 1, n)
        s[i] = _less(z[i], [L[k][i] for k in below], s[i + 1 :]) * L[i][i]
    return s
