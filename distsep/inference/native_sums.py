"""Which sums over tiles the compiled kernels make."""

from collections.abc import Callable
from typing import Any

from distsep.inference.likelihood import (
    Tables,
    block_curvature,
    block_value_gradient,
)
from distsep.native import kernels as native

_NATIVE = {
    block_value_gradient: native.value_gradient,
    block_curvature: native.curvature,
}


def few_components(tables: Tables) -> bool:
    """Whether the compiled kernels know so many amplitudes per sample."""
    return 0 < tables.A.shape[-1] <= native.MOST_COMPONENTS


def native_kernel(kernel: Callable, tables: Any) -> Callable | None:
    """The compiled kernel that makes the same sums, of samples in chunks, if any."""
    own = _NATIVE.get(kernel)
    return own if own is not None and few_components(tables) else None
