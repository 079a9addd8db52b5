"""Compiled kernels for GPUs of NVIDIA: what programs of XLA send through memory often.

The same sums as the XLA programs in `inference`, which serve machines where CUDA's
compiler was missing when distsep was installed. A tile gives the same bits wherever it
is worked on.
"""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from distsep.native.build import library
from distsep.native.kernels import asked, few_components, known, register

FEWEST_LANES = 32  # of a tile, and a multiple of them
MOST_ENTRIES = 32
MOST_SLOPES = 64  # entries of dA, and global terms
NAMES = ("gpu_root", "gpu_value_gradient")
_SHARE = 1024  # lanes of a warp
_OLDEST = 8.0  # compute capability, of the first with tensor cores for float64


@lru_cache
def state() -> tuple[bool, str]:
    """Whether the kernels are there, and in words which, or why not.

    Communication: none.
    """
    if not asked():
        return False, "switched off by DISTSEP_KERNELS"
    if not library("gpu").exists():
        return False, "not compiled: install with CUDA's nvcc and headers at hand"
    try:
        register("gpu", NAMES, "CUDA")
    except (OSError, AttributeError) as error:
        return False, f"do not load: {error}"
    found = getattr(jax.devices()[0], "compute_capability", _OLDEST)
    if float(found) < _OLDEST:
        return False, f"for GPUs of compute capability {_OLDEST} and later, not {found}"
    return True, "compiled"


def usable() -> bool:
    """Whether the passes of this process can run on the compiled kernels."""
    return jax.default_backend() == "gpu" and state()[0]


def fits(entries: int, lanes: int) -> bool:
    """Whether there is a kernel for tiles of so many lanes, samples of so many rows."""
    return entries <= MOST_ENTRIES and lanes > 0 and lanes % FEWEST_LANES == 0


def root(d: Array, t: Array, ntile: int) -> Array:
    """Root of the sum of x x^T of every tile, x = d and t of a sample.

    Args:
        d: `(..., row, lane)`, float32 or float64; the lanes of a tile side by side.
        t: `(..., template, lane)`, of the type of d.
        ntile: Tiles of a block.

    Returns:
        `(..., tile, n * n)` of float64, as `block_root`.

    Communication: none.
    """
    n = d.shape[-2] + t.shape[-2]
    out = jax.ShapeDtypeStruct((*d.shape[:-2], ntile, n * n), jnp.float64)
    call = jax.ffi.ffi_call("distsep_gpu_root", out, vmap_method="broadcast_all")
    return call(d, t)


def takes(T: Any, block: Any) -> bool:
    """Whether there is a kernel of value and gradient for such samples and tables."""
    tile = block.d.shape[-1] // block.pool.shape[-1]
    slopes = len(T.dA.places) + T.phi.shape[1]
    counts = (*T.dA.shape, slopes, block.t.shape[-2])
    return (
        block.invN is None
        and fits(block.d.shape[-2], tile)
        and few_components(T)
        and max(counts) <= MOST_SLOPES
    )


def value_gradient(T: Any, block: Any, template: tuple) -> Array:
    """Value and gradient of every tile of many blocks.

    Args:
        T: `Tables` of the pools.
        block: `Block` with arrays `(block, row, lane)`, all float32 or all float64;
            whitened without `w`.
        template: For each global term the row of `block.t` (static).

    Returns:
        `(block, tile, 1 + kind + global)` of float64, as `block_value_gradient`.

    Communication: none.
    """
    ntile, nlane = block.pool.shape[1], block.d.shape[-1]
    tile, dtype = nlane // max(ntile, 1), block.d.dtype
    nshare = tile // _SHARE if tile % _SHARE == 0 else 1
    if block.w is None:
        w, A, Rinv = jnp.zeros((0, 0, 0), dtype), T.Q, T.Rinv
    else:
        w, A, Rinv = block.w, T.A, jnp.zeros((0, *[T.A.shape[-1]] * 2), dtype)
    tables = [x.astype(dtype) for x in (A, Rinv, T.dA.value, T.phi, T.alpha)]
    nout = 1 + T.dA.shape[0] + len(template)
    out = jax.ShapeDtypeStruct((*block.pool.shape, nshare, nout), jnp.float64)
    call = jax.ffi.ffi_call("distsep_gpu_value_gradient", out)
    sums = call(block.d, w, block.t, block.pool, *tables, **known(T, template))
    return sums.sum(2)
