"""Value and gradient on a GPU, each sample in registers once: a Pallas kernel.

A program takes some lanes of one tile. It reads their data and variances once, solves
for their amplitudes and adds up what the sums need; the tables of its pool are the same
numbers for all of its lanes. The same sums as `block_value_gradient`, of all blocks at
once. Nothing depends on how many blocks there are, or on which device.
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
from distsep.native import kernels as native

# Lanes of a program, one for each of its threads. A tile of less than a warp is left to
# XLA.
LANES = 128
WARP = 32
_MOST_ROWS = 64
_MOST_NUMBERS = 2**31  # Triton counts them in 32 bits


def gpu_kernel(kernel: Callable, tables: Any, block: Block) -> Callable | None:
    """The kernel that makes the sums of `kernel` on a GPU, if there is one.

    Returns:
        `f(tables, block, template)` -> `(block, tile, k)`, traceable by JAX.

    Communication: none.
    """
    if kernel is not block_value_gradient or not native.asked():
        return None
    tile = block.d.shape[-1] // block.pool.shape[-1]
    fits = tile >= WARP and block.d.shape[-2] <= _MOST_ROWS and block.invN is None
    fits = fits and block.d.size < _MOST_NUMBERS
    return value_gradient if fits and few_components(tables) else None


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
        _program(named, out, lanes, per, tuple(template), T.dA)

    rows = pl.pallas_call(
        program,
        grid=(nblock, ntile * per),
        out_shape=jax.ShapeDtypeStruct((nblock, ntile * per, nout), block.d.dtype),
        compiler_params=triton.CompilerParams(num_warps=max(lanes // WARP, 1)),
        interpret=interpret,
        name="distsep_value_gradient",
    )(*arrays.values())
    return rows.reshape(nblock, ntile, per, nout).sum(2)


def _program(refs: dict, out: Any, lanes: int, per: int, template: tuple, dA: Any):
    """Sums over the lanes of one program."""
    b, chunk = pl.program_id(0), pl.program_id(1)
    pool = refs["pool"][b, chunk // per]
    at = pl.ds(chunk * lanes, lanes)
    nrow, ncomp = refs["A"].shape[1:]
    rows, comps = range(nrow), range(ncomp)
    A = [[refs["A"][pool, r, c] for c in comps] for r in rows]
    t = [refs["t"][b, k, at] for k in template]
    alpha = [refs["alpha"][pool, g] for g in range(len(template))]
    phi = [[refs["phi"][pool, g, r] for r in rows] for g in range(len(template))]
    d = [refs["d"][b, r, at] for r in rows]
    for g, one in enumerate(t):
        d = [d[r] - phi[g][r] * alpha[g] * one for r in rows]

    if "w" in refs:
        w = [refs["w"][b, r, at] for r in rows]
        s, r = _weighted(A, d, w)
        Nr = [x * y for x, y in zip(w, r, strict=True)]
    else:
        s, r = _whitened(A, d)
        Nr = r
    # A regional column is there with its coefficient, beside those that are free.
    nregional = dA.shape[1] - ncomp
    first = len(template) - nregional
    s += [alpha[g] * t[g] for g in range(first, len(template))]

    gradient = [jnp.zeros_like(r[0])] * dA.shape[0]
    for e, (kind, column) in enumerate(dA.places):
        along = _total(refs["dA"][pool, e, i] * Nr[i] for i in rows)
        gradient[kind] = gradient[kind] - along * s[column]
    for g, one in enumerate(t):
        gradient.append(-one * _total(phi[g][i] * Nr[i] for i in rows))
    value = 0.5 * _total(x * y for x, y in zip(Nr, r, strict=True))
    for k, x in enumerate([value, *gradient]):
        out[b, chunk, k] = jnp.sum(x)


def _total(terms: Any) -> Any:
    """Their sum, in their order, and nothing else."""
    first, *others = terms
    return sum(others, first)


def _whitened(Q: list, d: list) -> tuple[list, list]:
    """Amplitudes along orthonormal columns, and residuals: projected twice."""
    comps, total = range(len(Q[0])), [0.0] * len(Q[0])
    for _ in range(2):
        z = [_total(q[c] * x for q, x in zip(Q, d, strict=True)) for c in comps]
        d = [x - _total(q[c] * z[c] for c in comps) for q, x in zip(Q, d, strict=True)]
        total = [x + y for x, y in zip(total, z, strict=True)]
    return total, d


def _weighted(A: list, d: list, w: list) -> tuple[list, list]:
    """Amplitudes by the normal equations of each lane, and residuals."""
    rows, ncomp = range(len(A)), len(A[0])
    L: list[list[Any]] = [[None] * ncomp for _ in range(ncomp)]
    z: list[Any] = []
    for i in range(ncomp):
        for j in range(i + 1):
            x = _total(A[r][i] * A[r][j] * w[r] for r in rows)
            if i == j:  # an empty lane has no weight: a unit matrix in place of zero
                x = jnp.where(x == 0, 1.0, x)
            for k in range(j):
                x = x - L[i][k] * L[j][k]
            # The reciprocal is kept on the diagonal.
            L[i][j] = 1 / jnp.sqrt(x) if i == j else x * L[j][j]
        x = _total(A[r][i] * (w[r] * d[r]) for r in rows)
        for k in range(i):
            x = x - L[i][k] * z[k]
        z.append(x * L[i][i])
    s: list[Any] = [None] * ncomp
    for i in reversed(range(ncomp)):
        x = z[i]
        for k in range(i + 1, ncomp):
            x = x - L[k][i] * s[k]
        s[i] = x * L[i][i]
    return s, [d[r] - _total(A[r][c] * s[c] for c in range(ncomp)) for r in rows]
