"""The sums over tiles that the kernels for GPUs make, of many blocks at once.

As the functions of the same names in `likelihood` and `reduce`.
"""

from collections.abc import Callable
from typing import Any

from jax import Array

from distsep.inference.likelihood import Block, block_value_gradient
from distsep.inference.reduce import block_root
from distsep.native import gpu


def gpu_kernel(kernel: Callable, tables: Any, block: Block) -> Callable | None:
    """The kernel that makes the sums of `kernel` on a GPU, if there is one.

    Returns:
        `f(tables, block, template)` -> `(block, tile, k)`, traceable by JAX.

    Communication: none.
    """
    if not gpu.usable():
        return None
    if kernel is block_root:
        tile = block.d.shape[-1] // block.pool.shape[-1]
        entries = block.d.shape[-2] + block.t.shape[-2]
        return _root if gpu.fits(entries, tile) else None
    if kernel is block_value_gradient and gpu.takes(tables, block):
        return gpu.value_gradient
    return None


def _root(_tables: Any, block: Block, _template: tuple) -> Array:
    return gpu.root(block.d, block.t, block.pool.shape[-1])
