"""Which parameters of a model are free, and what is wrong with those that are not.

Found without a column of A: a model that is wrong elsewhere has parameters too, so that
mistakes about both can be told together.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from distsep.model.columns import Source
from distsep.model.instrument import Instrument
from distsep.model.law import UNBOUNDED, Bounds
from distsep.model.mistakes import (
    ARRAYS,
    InputError,
    fixed_mistakes,
    is_number,
    mapping_mistakes,
    number_mistakes,
    start_mistakes,
    unknown_names,
    word_mistakes,
)


class Free(NamedTuple):
    """The free parameters of a model, in the order of components, formulas and bands.

    Attributes:
        components: Emission laws.
        defaults: Starting values by name.
        bounds: (lower, upper) by name.
        sources: For each law, where each of its parameters comes from.
        mistakes: What is wrong with `fixed`, `shared` and the bands.
    """

    components: tuple[Any, ...]
    defaults: dict[str, float]
    bounds: dict[str, Bounds]
    sources: list[dict[str, Source]]
    mistakes: list[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the free parameters."""
        return tuple(self.defaults)


def free_parameters(
    components: Any,
    instrument: Instrument,
    fixed: Any,
    shared: Any,
    bands: Mapping[str, tuple[str, ...]],
) -> Free:
    """Find the free parameters, as far as the arguments make sense.

    Args:
        components: Emission laws.
        instrument: Bands.
        fixed: Values of parameters that are not fitted.
        shared: Parameters that are one.
        bands: Names of bands of "calibration", "band_shift" and "angle".

    Raises:
        InputError: `components` are none: then nothing more can be said.

    Communication: none.
    """
    fixed_kind = mapping_mistakes("fixed", fixed, "{'Dust.temp': 20.0}")
    shared_kind = _shared_mistakes(shared)
    wrong = [*fixed_kind, *shared_kind]
    if none := _kind_mistakes(components):
        raise InputError("MixingMatrix(...)", *none, *wrong)
    components = tuple(components)
    if none := _component_mistakes(components):
        raise InputError("MixingMatrix(...)", *none, *wrong)
    fixed = {} if fixed_kind else dict(fixed or {})
    shared = {} if shared_kind else dict(shared or {})
    joined = {m: s for s, members in shared.items() for m in members}
    every = [f"{c.name}.{n}" for c in components for n in c.parameters]
    wrong += unknown_names("shared", joined, every)
    wrong += unknown_names("fixed", fixed, [*every, *shared])
    wrong += number_mistakes(fixed)
    wrong += [
        f"`fixed` value of {name!r} should be a finite number; got None: leave it out "
        "to fit it"
        for name, value in fixed.items()
        if value is None
    ]
    wrong += [
        f"`fixed` names {name!r}, which is shared as {joined[name]!r}: fix "
        f"{joined[name]!r}, or leave {name!r} out of `shared`"
        for name in fixed
        if joined.get(name, name) != name
    ]
    values = {k: float(v) if is_number(v) else float("nan") for k, v in fixed.items()}
    defaults, bounds = _all_parameters(components, joined)
    wrong += fixed_mistakes({k: v for k, v in values.items() if v == v}, bounds)
    for kind, names in bands.items():
        wrong += unknown_names(kind, names, instrument.bands)
        if len(set(names)) < len(names):
            wrong.append(f"`{kind}` names a band twice: {', '.join(names)}")
        for band in (b for b in names if b in instrument.bands):
            half = float(instrument.nu[instrument.index(band)]) / 2
            full = f"{kind}.{band}"
            defaults[full] = 1.0 if kind == "calibration" else 0.0
            bounds[full] = (-half, half) if kind == "band_shift" else UNBOUNDED
    defaults = {k: v for k, v in defaults.items() if k not in fixed}
    bounds = {k: bounds[k] for k in defaults}
    wrong += start_mistakes(defaults, bounds)
    place = {name: k for k, name in enumerate(defaults)}
    sources: list[dict[str, Source]] = []
    for component in components:
        pairs = [(n, f"{component.name}.{n}") for n in component.parameters]
        whole = {n: joined.get(full, full) for n, full in pairs}
        sources.append({n: values.get(f, place.get(f, 0)) for n, f in whole.items()})
    return Free(components, defaults, bounds, sources, wrong)


def band_names(bands: Any) -> tuple[str, ...]:
    """Names of bands; a single one is one band."""
    if bands is None:
        return ()
    if isinstance(bands, str) or not isinstance(bands, Iterable):
        return (str(bands),)
    return tuple(map(str, bands))


def _kind_mistakes(components: Any) -> list[str]:
    """Say if there is no list of components."""
    if hasattr(components, "band_law") or not isinstance(components, Iterable):
        return [f"`components` should be a list, [CMB(), ...]; got {components!r}"]
    if isinstance(components, str | Mapping):
        return [
            "`components` should be a list, [CMB(), Dust(nu0=353.0)]; got "
            f"{type(components).__name__} {components!r:.60}"
        ]
    return []


def _component_mistakes(components: Sequence[Any]) -> list[str]:
    """Say what in a list is no component."""
    mistakes = []
    for n, component in enumerate(components):
        if isinstance(component, type) or not hasattr(component, "band_law"):
            name = getattr(component, "__name__", None)
            hint = f": call it, {name}(...)" if name else ""
            mistakes.append(
                f"`components[{n}]` should be a component, such as CMB(); got "
                f"{component!r:.60}{hint}"
            )
    return mistakes


def _shared_mistakes(shared: Any) -> list[str]:
    """Say if `shared` does not give lists by name."""
    wrong = mapping_mistakes("shared", shared, "{'temp': ['Dust.temp', 'CIB.temp']}")
    wrong = wrong or [
        f"`shared` of {name!r} should be a list of parameters; got {members!r}"
        for name, members in (shared or {}).items()
        if isinstance(members, str) or not isinstance(members, Iterable)
    ]
    if wrong:
        return wrong
    seen: dict[str, str] = {}
    for name, members in (shared or {}).items():
        if name not in members:
            wrong += word_mistakes("shared", name)
        if name in ARRAYS:
            wrong.append(f"`shared`: {name!r} is an array of a result: choose another")
        for member in members:
            if seen.setdefault(member, name) != name:
                wrong.append(
                    f"`shared` names {member!r} in {seen[member]!r} and in {name!r}: "
                    "it is one parameter"
                )
    return wrong


def _all_parameters(
    components: Sequence[Any], joined: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, Bounds]]:
    """Start and bounds of all parameters of the laws; of those shared, of the first."""
    defaults: dict[str, float] = {}
    bounds: dict[str, Bounds] = {}
    for component in components:
        for name in component.parameters:
            full = f"{component.name}.{name}"
            defaults.setdefault(joined.get(full, full), component.defaults[name])
            bounds.setdefault(joined.get(full, full), component.bounds[name])
    return defaults, bounds
