"""Rows of A: what the instrument does to each band, after the emission laws."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Places = tuple[list[int], list[int]]
"""Places of parameters among all, and the bands they belong to."""


def row_factors(
    values: Array, count: int, gains: Places, angles: Places, stokes: str | None
) -> Array:
    """What multiplies each row.

    Args:
        values: All parameters, (K,).
        count: Number of bands.
        gains: Calibrations; a band without one has 1.
        angles: Polarisation angles [rad]; a band without one has 0.
        stokes: "QU" or "IQU" for a joint row, None for a row per band.

    Returns:
        (freq, stokes, stokes), or (freq, 1, 1).
    """
    gain = _scatter(values, jnp.ones(count), gains)[:, None, None]
    if stokes is None:
        return gain
    psi = _scatter(values, jnp.zeros(count), angles)
    c, s = jnp.cos(2 * psi), jnp.sin(2 * psi)
    rotation = jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], -2)
    if stokes == "IQU":
        rotation = jnp.pad(rotation, ((0, 0), (1, 0), (1, 0))).at[:, 0, 0].set(1)
    return gain * rotation


def multiply_rows(
    factors: Callable[[Array], Array], values: Array, A: Array, dA: Array, d2A: Array
) -> tuple[Array, Array, Array]:
    """A and its derivatives after the rows are multiplied, by the product rule.

    Args:
        factors: Parameters (K,) -> (freq, stokes, stokes).
        values: Parameters, (K,).
        A: Columns, (freq, comp).
        dA: Their derivatives, (K, freq, comp).
        d2A: Second derivatives, (K, K, freq, comp).

    Returns:
        The same three, (freq * stokes, comp * stokes) at the end.
    """
    M = factors(values)
    dM = jnp.moveaxis(jax.jacfwd(factors)(values), -1, 0)
    d2M = jnp.moveaxis(jax.jacfwd(jax.jacfwd(factors))(values), (-2, -1), (0, 1))
    mixed = times(dM[:, None], dA[None, :])
    return (
        times(M, A),
        times(M, dA) + times(dM, A),
        times(M, d2A) + mixed + jnp.swapaxes(mixed, 0, 1) + times(d2M, A),
    )


def times(M: Array, A: Array) -> Array:
    """(..., freq, stokes, stokes) times (..., freq, comp), rows and columns joined."""
    product: Any = jnp.einsum("...fst,...fc->...fsct", M, A)
    *lead, nf, ns, nc, nt = product.shape
    return product.reshape(*lead, nf * ns, nc * nt)


def _scatter(values: Array, neutral: Array, places: Places) -> Array:
    """One number per band: its parameter, or the neutral one."""
    if not places[0]:
        return neutral
    return neutral.at[np.array(places[1])].set(values[np.array(places[0])])
