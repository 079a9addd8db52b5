"""Programs of the second pass: what is found in every lane of a block."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from distsep.inference.likelihood import Block, Tables, solve_lanes, tangents
from distsep.inference.tiles import over_tiles


class WithCovariance(NamedTuple):
    """Tables, the covariance of the parameters of each pool, and 1 or 0 for noise.

    With 0 there is only what the parameters' uncertainty adds.
    """

    tables: Tables
    covariance: Float[Array, "pool n n"]
    noise: Float[Array, " pool"]


def block_amplitudes(T: Tables, block: Block, template=()):
    """Amplitudes and chi2 of every lane of one block.

    Returns:
        `(comp + 1, lane)`: s [uK_CMB, times the root of the weight of whitened lanes],
        and r^T N^-1 r.

    Communication: none.
    """

    def tile(T, block):
        lanes = solve_lanes(T, block, template)
        chi2 = jnp.sum(lanes.Nr * lanes.r, 0)
        return jnp.concatenate([lanes.s, chi2[None]])

    return _in_lanes(tile, T, block)


def block_amplitude_errors(both: WithCovariance, block: Block, template=()):
    r"""Amplitudes, chi2 and the covariance of the amplitudes of every lane.

    $$ (A^T N^{-1} A)^{-1} + \frac{\partial s}{\partial p}\, C\,
       \frac{\partial s}{\partial p}^T, $$

    C the covariance of the parameters p: what their uncertainty adds.

    Returns:
        `(comp + 1 + comp^2, lane)`.

    Communication: none.
    """

    def tile(both, block):
        T = both.tables
        lanes = solve_lanes(T, block, template)
        ncomp, nlane = lanes.s.shape
        unit = jnp.eye(ncomp)[:, :, None] * jnp.ones(nlane)
        half = [lanes.forward(unit[c]) for c in range(ncomp)]
        J = tangents(T, lanes, block, template)
        added = jnp.einsum("kcl,km,mel->cel", J, both.covariance, J)
        whole = [
            both.noise * jnp.sum(half[i] * half[j], 0) + added[i, j]
            for i in range(ncomp)
            for j in range(ncomp)
        ]
        chi2 = jnp.sum(lanes.Nr * lanes.r, 0)
        return jnp.concatenate([lanes.s, chi2[None], jnp.stack(whole)])

    return _in_lanes(tile, both, block)


def _in_lanes(tile, tables, block):
    rows = over_tiles(tile, tables, block)
    return jnp.moveaxis(rows, 0, 1).reshape(rows.shape[1], -1)
