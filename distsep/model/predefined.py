"""How a predefined law is built: a formula, its starts and bounds."""

from collections.abc import Mapping
from typing import Any

from distsep.model.components import Component

_TEMPERATURE = (1.0, 1000.0)
# Far outside any sky: where a patch holds no signal its index must stop somewhere.
_INDEX = (-15.0, 15.0)
_BOUNDS = {
    "beta_d": _INDEX,
    "beta_pl": _INDEX,
    "temp": _TEMPERATURE,
    "temp_1": _TEMPERATURE,
    "temp_2": _TEMPERATURE,
    "f_1": (0.0, 1.0),
    "Te": (10.0, 1e6),
    "nu_peak": (0.1, 1e4),
    "width": (0.01, 10.0),
}


def law(
    expression: str,
    values: Mapping[str, Any],
    starts: Mapping[str, float],
    options: Mapping[str, Any],
    **keywords: Any,
) -> Component:
    """A component with the starts of its law, unless the caller has others."""
    options = dict(options)
    bounds = {n: b for n, b in _BOUNDS.items() if n in values}
    return Component(
        expression,
        fixed=values,
        defaults={n: starts[n] for n in values if n in starts}
        | dict(options.pop("defaults", None) or {}),
        bounds=bounds | dict(options.pop("bounds", None) or {}),
        **keywords,
        **options,
    )
