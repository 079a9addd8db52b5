"""A tabulated emission law: a smooth curve through its points, differentiable twice."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array


class TableData(NamedTuple):
    """Points of a tabulated law.

    Between the points it is a cubic spline of log value in log frequency; beyond them
    the power law of the last interval's end, so that it stays finite.

    Attributes:
        nu: Frequencies [GHz], increasing.
        value: Values, positive.
    """

    nu: tuple[float, ...]
    value: tuple[float, ...]

    @classmethod
    def of(cls, nu: Any, value: Any) -> "TableData":
        """Check two arrays and keep them as a table.

        Raises:
            ValueError: if they are not a positive curve on increasing frequencies.
        """
        x, y = np.asarray(nu, dtype=float), np.asarray(value, dtype=float)
        if x.ndim != 1 or x.shape != y.shape or x.size < 4:
            raise ValueError(
                "`table=(nu, value)` should be two arrays of one length, at least 4; "
                f"got shapes {x.shape} and {y.shape}."
            )
        good = np.isfinite(x).all() and np.isfinite(y).all()
        if not (good and (x > 0).all() and (np.diff(x) > 0).all() and (y > 0).all()):
            raise ValueError(
                "`table=(nu, value)` should have increasing positive frequencies and "
                "positive finite values; leave out points where the law vanishes."
            )
        return cls(tuple(x.tolist()), tuple(y.tolist()))

    def peak(self) -> float:
        """Frequency of the maximum [GHz].

        Raises:
            ValueError: if the curve has no maximum between its ends.
        """
        knots, spline = self._spline()
        places = spline.derivative().roots(extrapolate=False)
        places = places[np.isfinite(places)]
        ends = max(spline(knots[0]), spline(knots[-1]))
        if not places.size or spline(places).max() <= ends:
            raise ValueError("`table=(nu, value)` should peak between its ends.")
        return float(np.exp(places[np.argmax(spline(places))]))

    def _spline(self) -> tuple[np.ndarray, Any]:
        """Logarithms of the frequencies, and the spline through the points."""
        from scipy.interpolate import CubicSpline  # half a second: for tables alone

        knots = np.log(self.nu)
        return knots, CubicSpline(knots, np.log(self.value))

    def curve(self, order: int, nu: Any) -> Array:
        """The curve (order 0) or its first or second derivative at `nu` [GHz]."""
        knots, spline = self._spline()
        ends = slice(None, None, len(knots) - 1)
        # One straight piece before the first knot and one after the last.
        left, right = (
            np.asarray(spline(knots[ends])),
            np.asarray(spline(knots[ends], 1)),
        )
        straight = np.array([np.zeros(2), np.zeros(2), right, left])
        pieces = np.hstack([straight[:, :1], spline.c, straight[:, 1:]])
        origins = jnp.asarray([knots[0], *knots[:-1], knots[-1]])
        nu = jnp.asarray(nu, dtype=float)
        piece = jnp.searchsorted(jnp.asarray(knots), jnp.log(nu), side="right")
        a, b, c, d = jnp.asarray(pieces)[:, piece]
        t = jnp.log(nu) - origins[piece]
        value = jnp.exp(((a * t + b) * t + c) * t + d)
        if order == 0:
            return value
        slope = (3 * a * t + 2 * b) * t + c
        if order == 1:
            return value * slope / nu
        if order == 2:
            return value * (slope**2 - slope + 6 * a * t + 2 * b) / nu**2
        raise ValueError(f"A tabulated law has two derivatives; got order {order}.")
