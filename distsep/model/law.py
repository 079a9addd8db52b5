"""Law: values of an emission law and of its derivatives."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-math.inf, math.inf)


def pair(bounds: Any) -> Bounds:
    """Bounds as two numbers; None is unbounded."""
    if bounds is None:
        return UNBOUNDED
    lower, upper = bounds
    return float(lower), float(upper)


class Law(NamedTuple):
    """Values of an emission law, and of its derivatives by names of parameters.

    Derivatives that vanish identically are left out; of two equal mixed derivatives
    only one is there.
    """

    value: Array
    first: dict[str, Array]
    second: dict[tuple[str, str], Array]

    def map(self, function: Callable[[Array], Array]) -> "Law":
        """The same law with a linear function applied to everything."""
        return Law(
            function(self.value),
            {name: function(x) for name, x in self.first.items()},
            {pair: function(x) for pair, x in self.second.items()},
        )
