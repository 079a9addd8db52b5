"""Compiled kernels for GPUs of NVIDIA: what programs of XLA send through memory often.

The same sums as the XLA programs in `inference`, which serve machines where CUDA's
compiler was missing when distsep was installed. A tile gives the same bits wherever it
is worked on.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
from jax import Array

from distsep.native.build import library
from distsep.native.kernels import asked, loaded

FEWEST_LANES = 32  # of a tile, and a multiple of them
MOST_ENTRIES = 32
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
        call = jax.ffi.pycapsule(loaded("gpu").distsep_gpu_root)
        jax.ffi.register_ffi_target("distsep_gpu_root", call, platform="CUDA")
    except (OSError, AttributeError) as error:
        return False, f"do not load: {error}"
    return True, "compiled"


def usable() -> bool:
    """Whether the passes of this process can run on the compiled kernels."""
    if jax.default_backend() != "gpu" or not state()[0]:
        return False
    return float(getattr(jax.devices()[0], "compute_capability", 0)) >= _OLDEST


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
