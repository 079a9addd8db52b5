"""Compiled kernels for processors: the passes over the pixels, in one sweep of memory.

The same sums as the XLA programs in `inference`, which serve accelerators, machines
without a C++ compiler, and the tests as a reference. Nothing here knows of blocks'
owners, ranks or files; a block gives the same bits wherever it is worked on, on
whichever of XLA's threads.
"""

import ctypes
import os
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distsep.native.build import library

WIDTH = 8  # lanes of a vector
LANES = 16  # of a chunk: then a pass reads memory from end to end
MOST_LANES = 64  # `CHUNK` in lanes.hpp
MOST_COMPONENTS = 6
MOST_ENTRIES = 64
NAMES = ("value_gradient", "curvature", "root", "amplitudes")


def asked() -> bool:
    """Whether the passes are to run on kernels of our own, not on programs of XLA.

    Raises:
        ValueError: DISTSEP_KERNELS is neither.
    """
    word = os.environ.get("DISTSEP_KERNELS", "native")
    if word not in ("native", "xla"):
        raise ValueError(
            f"DISTSEP_KERNELS={word}: expected `native` (the default) or `xla`."
        )
    return word == "native"


@lru_cache
def state() -> tuple[bool, str]:
    """Whether the kernels are there, and in words which, or why not.

    Raises:
        ValueError: see `asked`.

    Communication: none.
    """
    if not asked():
        return False, "switched off by DISTSEP_KERNELS"
    if not library(0).exists():
        return False, "not compiled: install with a C++ compiler on the PATH"
    try:
        level = loaded(0).distsep_level()
        register(level, NAMES, "cpu")
    except (OSError, AttributeError) as error:
        return False, f"do not load: {error}"
    return True, f"compiled, x86-64-v{level}" if level else "compiled"


def loaded(level: int | str) -> ctypes.CDLL:
    """Load the library of a level, as `build` names them.

    Raises:
        OSError: it cannot be loaded, or is of a later jaxlib than this one, which would
            not start with it.
    """
    found = ctypes.CDLL(str(library(level)))
    found.distsep_jaxlib.restype = ctypes.c_char_p
    built, here = found.distsep_jaxlib().decode(), version("jaxlib")
    if _number(built) > _number(here):
        raise OSError(
            f"compiled for jaxlib {built}, this is {here}: install distsep again"
        )
    return found


def register(level: int | str, names: tuple[str, ...], platform: str) -> None:
    """Make kernels of a library known to JAX.

    Raises:
        OSError: see `loaded`.
        AttributeError: it has no such kernel.
    """
    found = loaded(level)
    for name in names:
        call = jax.ffi.pycapsule(getattr(found, f"distsep_{name}"))
        jax.ffi.register_ffi_target(f"distsep_{name}", call, platform=platform)


def few_components(T: Any) -> bool:
    """Whether the compiled kernels know so many amplitudes per sample."""
    return 0 < T.A.shape[-1] <= MOST_COMPONENTS


def _number(words: str) -> tuple[int, ...]:
    return tuple(int(n) for n in words.split(".")[:2])


def usable() -> bool:
    """Whether the passes of this process run on the compiled kernels."""
    return state()[0] and jax.default_backend() == "cpu"


def value_gradient(T: Any, block: Any, template: tuple) -> Array:
    """Value and gradient of every tile of many blocks.

    Args:
        T: `Tables` of the pools.
        block: `Block` with `d` `(block, chunk, row, lane)`, `t` and `w` alike; the
            chunks of a tile side by side. Without `w` the samples are whitened, and
            `T.A` has orthonormal columns.
        template: For each global term the row of `block.t` (static).

    Returns:
        `(block, tile, 1 + kind + global)`, as `block_value_gradient`.

    Communication: none.
    """
    nout = 1 + T.dA.shape[0] + len(template)
    out = jax.ShapeDtypeStruct((*block.pool.shape, nout), jnp.float64)
    call = jax.ffi.ffi_call("distsep_value_gradient", out, vmap_method="sequential")
    return call(*_samples(block), *_tables(T), **known(T, template))


def curvature(T: Any, block: Any, template: tuple) -> Array:
    """Value, gradient, Fisher matrix and Hessian of every tile of many blocks.

    Args:
        T: `Tables` of the pools, with second derivatives.
        block: As for `value_gradient`.
        template: For each global term the row of `block.t` (static).

    Returns:
        `(block, tile, 1 + n + 2 n^2)`, as `block_curvature`.

    Communication: none.
    """
    n = T.dA.shape[0] + len(template)
    out = jax.ShapeDtypeStruct((*block.pool.shape, 1 + n + 2 * n * n), jnp.float64)
    call = jax.ffi.ffi_call("distsep_curvature", out, vmap_method="sequential")
    static = {**known(T, template), "bends": _flat(T.d2A.places)}
    return call(*_samples(block), *_tables(T), T.d2A.value, **static)


def root(whitening: Any, maps: Any, lanes: Any) -> Array:
    """Root of the sum of x x^T of every tile of many blocks of whitened samples.

    Args:
        whitening: `Whitening` of the noise classes.
        maps: `RawMaps` of all blocks.
        lanes: `Lanes` of the blocks.

    Returns:
        `(block, tile, n * n)`, as `block_root`.

    Communication: none.
    """
    ntemplate = len(maps.t) // whitening.scale.shape[0]
    n = whitening.white.shape[1] + ntemplate
    out = jax.ShapeDtypeStruct((*lanes.pool.shape, n * n), jnp.float64)
    call = jax.ffi.ffi_call("distsep_root", out)
    return call(*_maps(whitening, maps, lanes), ntemplate=np.int64(ntemplate))


def amplitudes(
    T: Any, whitening: Any, maps: Any, lanes: Any, template: tuple
) -> tuple[Array, Array]:
    """Amplitudes and chi2 of every whitened sample of many blocks, on the sky.

    Args:
        T: `Tables` of the pools.
        whitening: `Whitening` of the noise classes.
        maps: `RawMaps` of all blocks.
        lanes: `Lanes` of the blocks.
        template: For each global term the row of the templates (static).

    Returns:
        `(comp + 1, group, pix)` s [uK_CMB] and chi2, NaN where no sample is used; and
        `(block,)` sums of chi2.

    Communication: none.
    """
    ngroup, ncomp = whitening.scale.shape[0], T.A.shape[-1]
    out = (
        jax.ShapeDtypeStruct((ncomp + 1, ngroup, maps.d.shape[1]), jnp.float64),
        jax.ShapeDtypeStruct((len(lanes.pool),), jnp.float64),
    )
    call = jax.ffi.ffi_call("distsep_amplitudes", out)
    s_chi2, block_chi2 = call(
        *_maps(whitening, maps, lanes),
        *(lanes.pool, T.Q, T.Rinv, T.phi, T.alpha),
        use=_flat(template),
        ntemplate=np.int64(len(maps.t) // ngroup),
    )
    return s_chi2, block_chi2


def _samples(block: Any) -> tuple:
    """The arrays of `Weighted` in value_gradient.hpp; no w: no elements."""
    w = jnp.zeros((0, 0, 0, 0)) if block.w is None else block.w
    return block.d, w, block.t, block.pool


def _tables(T: Any) -> tuple:
    return T.A, T.dA.value, T.phi, T.alpha


def known(T: Any, template: tuple) -> dict:
    """What is known beforehand: the entries of dA, the templates of global terms.

    Communication: none.
    """
    nkind, ncolumn = T.dA.shape
    return {
        "slopes": _flat(T.dA.places),
        "nkind": np.int64(nkind),
        "ncolumn": np.int64(ncolumn),
        "use": _flat(template),
    }


def _flat(numbers: tuple) -> np.ndarray:
    return np.array(numbers, np.int64).ravel()


def _maps(whitening: Any, maps: Any, lanes: Any) -> tuple:
    """The arrays of `Whitened` in lanes.hpp; what is absent has no elements."""
    d = maps.d if maps.d.dtype == jnp.float32 else maps.d.astype(jnp.float64)
    weight = jnp.zeros((0, 0)) if maps.weight is None else maps.weight
    index = lanes.index
    return (
        d,
        maps.t.astype(jnp.float64),
        weight.astype(jnp.float64),
        jnp.zeros((0, 0), jnp.int32) if index is None else index,
        lanes.noise_class.astype(jnp.int32),
        whitening.white,
        whitening.scale,
    )
