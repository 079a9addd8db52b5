"""A trial of the emission laws where they start: what no fit could repair is named."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from distsep.model.columns import Source
from distsep.model.law import Bounds
from distsep.model.nodes import LONG
from distsep.model.quadrature import Quadrature
from distsep.model.syntax import short

_CONSTANT = 1e-10  # of the ratio of two laws over the bands, relative
_STEP = 0.01
_FINER = (4, 16)  # nodes of bandpasses, where those of `fineness` 1 do not serve
_NODES_OFF = 1e-7  # of a law, where it starts


def trial_mistakes(
    components: Sequence[Any],
    sources: Sequence[dict[str, Source]],
    quadrature: Quadrature,
    defaults: Mapping[str, float],
    bounds: Mapping[str, Bounds],
) -> list[str]:
    """Laws that are not finite, and parameters that only rescale an amplitude.

    Args:
        components: Emission laws.
        sources: For each law, where each of its parameters comes from.
        quadrature: The bands.
        defaults: Starts of the free parameters, in their order.
        bounds: Their bounds.

    Communication: none.
    """

    def columns(values: Sequence[float]) -> list[np.ndarray]:
        return _columns(components, sources, quadrature, values)

    start = list(defaults.values())
    base = columns(start)
    mistakes = []
    for component, source, law in zip(components, sources, base, strict=True):
        free = any(isinstance(s, int) for s in source.values())
        bad = quadrature.nominal[~np.isfinite(law)]
        if bad.size and not free:  # else another start may do
            where = ", ".join(f"{nu:g}" for nu in bad[:5])
            text = (
                "" if component.text is None else f" (formula {short(component.text)})"
            )
            mistakes.append(
                f"component `{component.name}` is not finite at {where} GHz{text}: "
                "change it, or leave these bands out"
            )
    if mistakes or len(quadrature.nominal) < 2:
        return mistakes
    for place, name in enumerate(defaults):
        using = [
            i
            for i, source in enumerate(sources)
            if any(isinstance(s, int) and s == place for s in source.values())
        ]
        scales = bool(using)
        for moved in _beside(start[place], *bounds[name]):
            there = columns([*start[:place], moved, *start[place + 1 :]])
            scales = scales and all(_rescaled(base[i], there[i]) for i in using)
        if scales:
            names = " and ".join(components[i].name for i in using)
            mistakes.append(
                f"`{name}` only rescales the amplitude of {names}: fix it, "
                f"`fixed={{{name!r}: {start[place]:g}}}`"
            )
    return mistakes


def nodes_for(
    components: Sequence[Any],
    sources: Sequence[dict[str, Source]],
    quadrature: Quadrature,
    finer: Callable[[int | None], Quadrature],
    start: Sequence[float],
) -> Quadrature:
    """The fewest nodes of long bandpasses that integrate these laws as all samples do.

    Narrow features of a law need more of them than its smooth ones.

    Args:
        components: Emission laws.
        sources: For each law, where each of its parameters comes from.
        quadrature: With as few nodes as serve a smooth law.
        finer: The same by `fineness`, see `Quadrature.of`.
        start: Of the free parameters, in their order.

    Communication: none.
    """
    if not is_long(quadrature):
        return quadrature
    whole = finer(None)
    for fewer in chain([quadrature], map(finer, _FINER)):
        if nodes_off(components, sources, fewer, whole, start) < _NODES_OFF:
            return fewer
    return whole


def is_long(quadrature: Quadrature) -> bool:
    """Whether a bandpass has so many samples that fewer nodes serve as well."""
    return any(t is not None and len(t[0]) > LONG for t in quadrature.tables)


def nodes_off(
    components: Sequence[Any],
    sources: Sequence[dict[str, Source]],
    fewer: Quadrature,
    whole: Quadrature,
    values: Sequence[float],
) -> float:
    """Largest difference of a law in any band, relative to the law there.

    Where it is below a thousandth of its largest, relative to that. What is not finite
    counts for nothing.
    """
    found, laws = (
        np.stack(_columns(components, sources, q, values)) for q in (fewer, whole)
    )
    good = np.isfinite(found) & np.isfinite(laws)
    found, laws = np.where(good, found, 0.0), np.where(good, laws, 0.0)
    largest = np.abs(laws).max(axis=1, keepdims=True)
    size = np.maximum(np.abs(laws), 1e-3 * largest)
    return float((np.abs(found - laws) / np.where(size > 0, size, 1.0)).max())


def _columns(
    components: Sequence[Any],
    sources: Sequence[dict[str, Source]],
    quadrature: Quadrature,
    values: Sequence[float],
) -> list[np.ndarray]:
    """Each law over the bands, in numpy."""
    return [
        c.band_values(
            quadrature,
            {n: values[s] if isinstance(s, int) else s for n, s in source.items()},
        )
        for c, source in zip(components, sources, strict=True)
    ]


def _beside(value: float, lower: float, upper: float) -> list[float]:
    """Two values near a start, within its bounds."""
    step = min(_STEP * max(abs(value), 1.0), (upper - lower) / 4)
    step = step if value + step <= upper else -step
    return [value + step, value + step / 2]


def _rescaled(law: np.ndarray, moved: np.ndarray) -> bool:
    """Whether a law is another one times a constant, and not the same."""
    used = law != 0
    if not (np.isfinite(law).all() and np.isfinite(moved).all() and used.any()):
        return False
    ratio = moved[used] / law[used]
    largest = np.abs(ratio).max()
    constant = np.ptp(ratio) <= _CONSTANT * largest and not moved[~used].any()
    return bool(constant and np.abs(ratio - 1).max() > 1e-6 * _STEP)
