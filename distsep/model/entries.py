"""Derivatives of A as the columns that are not zero: a parameter moves few of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Places = tuple[tuple[int, ...], ...]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["value"],
    meta_fields=["places", "shape"],
)
@dataclass(frozen=True)
class Entries:
    """First or second derivatives of A.

    Attributes:
        value: (..., entry, row).
        places: Of each entry its parameter, or two in ascending order (the others are
            the same), then its column; known when it is compiled.
        shape: Numbers of parameters and of columns, likewise.
    """

    value: Array
    places: Places
    shape: tuple[int, int]

    @classmethod
    def of(
        cls,
        columns: Mapping[tuple[int, ...], Array],
        shape: tuple[int, int],
        size: tuple[int, ...],
    ) -> "Entries":
        """Entries of columns by place.

        Args:
            columns: Of second derivatives those of descending parameters are left out.
            shape: Numbers of parameters and of columns.
            size: Shape of a column, (..., row).
        """
        kept = {p: x for p, x in columns.items() if _ascend(p)}
        if not kept:
            return cls(jnp.zeros((*size[:-1], 0, size[-1])), (), shape)
        return cls(jnp.stack([*kept.values()], -2), tuple(kept), shape)

    @classmethod
    def full(cls, derivative: Array) -> "Entries":
        """Every column of (K, row, comp) or of (K, K, row, comp)."""
        *kinds, _, ncolumn = derivative.shape
        every = np.ndindex(*kinds, ncolumn)
        places = tuple(p for p in every if _ascend(p))
        at = np.array(places, int).reshape(-1, len(kinds) + 1)
        return cls(_swapped(derivative)[(*at.T,)], places, (kinds[0], ncolumn))

    def rows(self, function: Callable[[Array], Array]) -> "Entries":
        """Apply a function to the rows, the second last axis of what it gets."""
        return replace(self, value=_swapped(function(_swapped(self.value))))

    def reordered(self, columns: list[int]) -> "Entries":
        """The columns in another order: for each new one the old."""
        places = tuple((*kinds, columns.index(c)) for *kinds, c in self.places)
        return replace(self, places=places)

    def times(self, triangle: Array) -> "Entries":
        """The first columns times an upper triangle (..., column, column).

        Args:
            triangle: Of as many columns as it moves; the others stay.
        """
        nmoved, ncolumn = triangle.shape[-1], self.shape[1]
        ends = [(0, 0)] * (triangle.ndim - 2) + [(0, ncolumn - nmoved)] * 2
        ones = np.diag(np.arange(ncolumn) >= nmoved)
        whole = jnp.pad(triangle, ends) + ones.astype(triangle.dtype)
        places = tuple(
            dict.fromkeys(
                (*kinds, j)
                for *kinds, i in self.places
                for j in (range(i, nmoved) if i < nmoved else (i,))
            )
        )
        column = np.array([p[-1] for p in places], int)
        shape = *self.value.shape[:-2], len(places), self.value.shape[-1]
        value = jnp.zeros(shape, self.value.dtype)
        for i in sorted({p[-1] for p in self.places}):
            of = self._number(np.array([(*p[:-1], i) for p in places], int))
            value = value + self._with_zero[..., of, :] * whole[..., i, column, None]
        return Entries(value, places, self.shape)

    def dense(self, order: int) -> Array:
        """(..., K, row, comp), or (..., K, K, row, comp) of order 2."""
        count, ncolumn = self.shape
        size = (*[count] * order, ncolumn)
        place = np.moveaxis(np.indices(size), 0, -1)
        place[..., :-1].sort(-1)
        return _swapped(self._with_zero[..., self._number(place), :])

    def _number(self, place: np.ndarray) -> np.ndarray:
        """Number of the entry at each place, that of `_with_zero`'s last if none."""
        number = {p: k for k, p in enumerate(self.places)}
        flat = place.reshape(-1, place.shape[-1]).tolist()
        found = [number.get((*p,), len(number)) for p in flat]
        return np.array(found, int).reshape(place.shape[:-1])

    @property
    def _with_zero(self) -> Array:
        shape = *self.value.shape[:-2], 1, self.value.shape[-1]
        return jnp.concatenate([self.value, jnp.zeros(shape, self.value.dtype)], -2)


def _ascend(place: tuple[int, ...]) -> bool:
    """Whether the parameters do, which come before the column."""
    return len(place) == 2 or place[0] <= place[1]


def _swapped(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)
