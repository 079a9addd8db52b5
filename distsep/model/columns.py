"""Columns of A: the emission laws over the bands, for one set of parameters.

Derivatives are kept as a table of the entries that do not vanish.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distsep.model.entries import Entries
from distsep.model.law import Law
from distsep.model.quadrature import Quadrature

Source = int | float
"""Where a law's parameter comes from: the place of a free parameter, or a number."""


class Columns(NamedTuple):
    """Columns of A, and their derivatives with respect to the K free parameters.

    Attributes:
        value: (freq, comp).
        first: (freq,) by (parameter, column).
        second: (freq,) by (parameter, parameter, column).
    """

    value: Array
    first: dict[tuple[int, ...], Array]
    second: dict[tuple[int, ...], Array]

    def entries(self, count: int) -> tuple[Array, Entries, Entries]:
        """The same as arrays, for K = `count`."""
        nfreq, ncomp = self.value.shape
        shape, size = (count, ncomp), (nfreq,)
        first = Entries.of(self.first, shape, size)
        return self.value, first, Entries.of(self.second, shape, size)


def columns(
    components: Sequence[Any],
    sources: Sequence[dict[str, Source]],
    quadrature: Quadrature,
    values: Array,
    shift: Array | None = None,
    order: int = 2,
) -> Columns:
    """Columns at one set of parameters.

    Args:
        components: Emission laws.
        sources: For each law, where each of its parameters comes from.
        quadrature: The bands.
        values: Free parameters, (K,).
        shift: Shift of every band [GHz], (freq,), or None.
        order: Highest order of the derivatives.

    Returns:
        The columns, in map unit per amplitude unit.
    """
    laws = []
    first: dict[tuple[int, ...], Array] = {}
    second: dict[tuple[int, ...], Array] = {}
    for column, (component, source) in enumerate(zip(components, sources, strict=True)):
        free = {n: s for n, s in source.items() if isinstance(s, int)}
        numbers = {n: values[s] if n in free else s for n, s in source.items()}
        law: Law = component.band_law(quadrature, numbers, shift, order)
        laws.append(law.value)
        for name, x in law.first.items():
            if name in free:
                _add(first, (free[name], column), x)
        for (a, b), x in law.second.items():
            if a in free and b in free:
                _add(second, (free[a], free[b], column), x)
                if a != b:
                    _add(second, (free[b], free[a], column), x)
    return Columns(jnp.stack(laws, axis=-1), first, second)


def shifted_columns(
    components: Sequence[Any],
    sources: Sequence[dict[str, Source]],
    quadrature: Quadrature,
    values: Array,
    places: Sequence[int],
    rows: Sequence[int],
    order: int = 2,
) -> Columns:
    """Columns where some bands are shifted, and the shifts are parameters too.

    Args:
        components: Emission laws.
        sources: For each law, where each of its parameters comes from.
        quadrature: The bands.
        values: Free parameters, (K,).
        places: Which of them are shifts [GHz].
        rows: The band of each shift.
        order: Highest order of the derivatives.

    Returns:
        The columns, with derivatives in the shifts.
    """

    def at(shift: Array, order: int) -> Columns:
        return columns(components, sources, quadrature, values, shift, order)

    # A band depends on its own shift alone: one tangent serves them all.
    def slope(shift: Array, order: int) -> Columns:
        return jax.jvp(lambda x: at(x, order), (shift,), (jnp.ones_like(shift),))[1]

    def curvature(shift: Array) -> Columns:
        return jax.jvp(lambda x: slope(x, 0), (shift,), (jnp.ones_like(shift),))[1]

    shift = jnp.zeros(len(quadrature.nominal))
    shift = shift.at[np.array(rows)].set(values[np.array(places)])
    result = at(shift, order)
    if order == 0:
        return result
    d1, d2 = slope(shift, order - 1), curvature(shift)
    first, second = dict(result.first), dict(result.second)
    for place, row in zip(places, rows, strict=True):
        only = np.arange(len(quadrature.nominal)) == row
        for column in range(len(components)):
            first[place, column] = jnp.where(only, d1.value[:, column], 0)
            second[place, place, column] = jnp.where(only, d2.value[:, column], 0)
        for (other, column), x in d1.first.items():
            second[place, other, column] = jnp.where(only, x, 0)
            second[other, place, column] = second[place, other, column]
    return Columns(result.value, first, second)


def _add(table: dict[tuple[int, ...], Array], key: tuple[int, ...], x: Array) -> None:
    """Add to an entry: two parameters of one law may be the same free parameter."""
    table[key] = table[key] + x if key in table else x
