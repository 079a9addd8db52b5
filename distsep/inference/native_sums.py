"""The sums over tiles that the compiled kernels make, of samples in chunks.

As the functions of the same names in `likelihood`, of many blocks at once.
"""

from collections.abc import Callable
from typing import Any

from distsep.inference.likelihood import (
    Block,
    Tables,
    block_curvature,
    block_value_gradient,
)
from distsep.native import kernels as native


def native_kernel(kernel: Callable, tables: Any) -> Callable | None:
    """The compiled kernel that makes the sums of `kernel`, if there is one.

    Returns:
        `f(tables, block, template)` -> `(block, tile, k)`, traceable by JAX.

    Communication: none.
    """
    every = {block_value_gradient: _value_gradient, block_curvature: _curvature}
    own = every.get(kernel)
    return own if own is not None and native.few_components(tables) else None


def _value_gradient(T: Tables, block: Block, template: tuple):
    return native.value_gradient(_for_samples(T, block), block, template)


def _curvature(T: Tables, block: Block, template: tuple):
    return native.curvature(_for_samples(T, block), block, template)


def _for_samples(T: Tables, block: Block) -> Tables:
    """Tables for whitened samples: the amplitudes are those of Q in A = Q R.

    The likelihood is the same, and its derivatives are, at a fixed change of basis.
    """
    if block.w is not None:
        return T
    assert T.Q is not None
    assert T.Rinv is not None
    d2A = None if T.d2A is None else T.d2A.times(T.Rinv)
    return T._replace(A=T.Q, dA=T.dA.times(T.Rinv), d2A=d2A)
