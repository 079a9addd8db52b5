"""What is wrong with a configuration beyond types: names, files, tables that disagree.

Each check yields `(place, message)`; none stops at the first. Nothing is computed.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distsep.config.check_basics import (
    band_problems,
    file_problems,
    power_of_two,
    unit_problems,
)
from distsep.config.check_data import Known, data_problems
from distsep.config.check_headers import sphere_problems
from distsep.config.errors import Place, Problem, nearest
from distsep.config.model import build_law, expand
from distsep.config.tables import SYSTEMATICS

if TYPE_CHECKING:
    from distsep.config.run import ParameterTable, PatchTable, RunConfig


_BAND_KEYS = {"kind", "name", "bands", "stokes", "prior"}
GLOBAL_KEYS = {
    "monopole": _BAND_KEYS,
    "dipole": _BAND_KEYS,
    "template": _BAND_KEYS | {"file", "columns", "common"},
    "region": {"kind", "component", "regions", "prior"},
}


def run_problems(
    config: "RunConfig", simulated: Known | None = None
) -> Iterator[Problem]:
    """Yield everything wrong with run.toml that its types do not show.

    Args:
        config: The file.
        simulated: The data, where they are simulated and not yet there.
    """
    known = yield from data_problems(config, simulated)
    bands = known.bands
    laws = yield from build_laws(config.component)
    for n, (table, law) in enumerate(zip(config.component, laws, strict=True)):
        for name, parameter in table.parameters.items():
            place = ("component", n, "parameters", name)
            if law is not None and name not in law.parameters:
                continue  # reported by `build_laws`
            bounds = law.bounds.get(name) if law else None
            yield from _parameter(place, parameter, bounds, known)
            if parameter.shared is not None:
                yield from _shared(place, parameter.shared, config, laws)
        if law is not None and known.instrument is not None:
            quadrature = known.instrument.quadrature("K_CMB")
            for message in law.band_mistakes(quadrature):
                yield ("component", n), message
    names = _component_names(config, laws)
    if bands and len(names) > len(bands):
        many = f"{len(names)} components in {len(bands)} bands"
        yield ("component",), f"{many}: at least one cannot be told from the others"
    yield from _globals(config, known)
    yield from _systematics(config, bands)
    yield from _output(config, names)


def _moments(n: int, table: Any, law: Any) -> Iterator[Problem]:
    """What is wrong with an expansion in moments: its parameters are no longer free."""
    try:
        expand(table, law)
    except ValueError as error:
        yield ("component", n, "moments"), str(error)
    if "moments" not in table.options:
        return
    for name, parameter in getattr(table, "parameters", {}).items():
        for key in parameter.model_fields_set - {"start", "fixed"}:
            message = "with `moments` only a value to expand at, `start`, has a meaning"
            yield ("component", n, "parameters", name, key), message


def build_laws(tables: list, *, fix_numbers: bool = True) -> Iterator[Problem]:
    """Yield what is wrong with the emission laws; return them, None for a wrong one."""
    laws, labels = [], []
    for n, table in enumerate(tables):
        law, problems = build_law(table, fix_numbers=fix_numbers)
        for keys, message in problems:
            yield ("component", n, *keys), message
        laws.append(law)
        if law is not None and fix_numbers:
            yield from _moments(n, table, law)
        if table.label and table.label in labels:
            message = f"two components are called `{table.label}`: give one a `name`"
            yield ("component", n, "name"), message
        labels.append(table.label)
    return laws


def _parameter(
    place: Place, table: "ParameterTable", bounds: Any, known: Known
) -> Iterator[Problem]:
    ways = [w for w in ("fixed", "shared") if getattr(table, w) is not None]
    free = ("start", "bounds", "prior", "patches")
    extra = [k for k in free if getattr(table, k) is not None]
    if len(ways) > 1:
        yield place, "is `fixed` or `shared`, not both"
    elif ways and extra:
        yield (*place, extra[0]), f"means nothing for a parameter that is {ways[0]}"
    lo, hi = table.bounds or bounds or (-float("inf"), float("inf"))
    if not lo < hi:
        yield (*place, "bounds"), f"lower bound {lo:g} is not below the upper, {hi:g}"
        return
    if table.fixed is not None and not lo <= table.fixed <= hi:
        yield (
            (*place, "fixed"),
            f"{table.fixed:g} is outside its bounds [{lo:g}, {hi:g}]",
        )
    if table.start is not None and not lo <= table.start <= hi:
        yield (
            (*place, "start"),
            f"{table.start:g} is outside its bounds [{lo:g}, {hi:g}]",
        )
    if table.prior is not None and not lo <= table.prior.mean <= hi:
        mean = table.prior.mean
        yield (*place, "prior"), f"mean {mean:g} is outside the bounds [{lo:g}, {hi:g}]"
    if table.patches is not None:
        yield from patch_problems((*place, "patches"), table.patches, known)


def patch_problems(
    place: Place, table: "PatchTable", known: Known
) -> Iterator[Problem]:
    """Yield what is wrong with a patch table for the maps."""
    ways = [w for w in ("nside", "map", "kmeans") if getattr(table, w) is not None]
    if len(ways) > 1 or not (ways or table.stokes):
        yield place, "give exactly one of nside, map, kmeans"
    yield from file_problems(place, table, "map")
    nside, coordsys = known.nside, known.coordsys
    yield from sphere_problems(
        (*place, "map"), table.map, [table.field], nside=nside, coordsys=coordsys
    )
    if table.nside is not None:
        yield from power_of_two((*place, "nside"), table.nside)
        if nside is not None and table.nside > nside:
            yield (*place, "nside"), f"{table.nside} is finer than the maps ({nside})"


def _shared(place: Place, target: str, config: Any, laws: list) -> Iterator[Problem]:
    known = {
        f"{law.name}.{p}": (n, p)
        for n, law in enumerate(laws)
        if law is not None
        for p in law.parameters
    }
    if target not in known:
        yield (*place, "shared"), f"no parameter `{target}`; {nearest(target, known)}"
        return
    n, name = known[target]
    if (n, name) == (place[1], place[3]):
        yield (*place, "shared"), "a parameter cannot be shared with itself"
        return
    other = config.component[n].parameters.get(name)
    if other is not None and other.shared is not None:
        yield (*place, "shared"), f"`{target}` is itself shared: name the first"


def _globals(config: "RunConfig", known: Known) -> Iterator[Problem]:
    bands, stokes = known.bands, known.stokes
    labels = [table.label for table in config.component]
    for n, table in enumerate(config.global_):
        place = ("global", n)
        yield from band_problems((*place, "bands"), table.bands or [], bands)
        if table.stokes and stokes and not set(table.stokes) <= set(stokes):
            message = f"the data have {stokes!r}, got {table.stokes!r}"
            yield (*place, "stokes"), message
        wanted = {"template": "file", "region": "component"}.get(table.kind)
        if wanted and getattr(table, wanted) is None:
            yield (*place, wanted), f"is required for a {table.kind}"
        yield from file_problems(place, table, "file")
        yield from sphere_problems(
            (*place, "file"),
            table.file,
            table.columns or [0],
            nside=known.nside,
            coordsys=known.coordsys,
        )
        for key in sorted(table.model_fields_set - GLOBAL_KEYS[table.kind]):
            yield (*place, key), f"means nothing for a {table.kind}"
        if table.component is not None and table.component not in labels:
            name = table.component
            yield (*place, "component"), f"no `{name}`; {nearest(name, labels)}"
        if table.regions is not None:
            yield from patch_problems((*place, "regions"), table.regions, known)


def _systematics(config: "RunConfig", bands: list | None) -> Iterator[Problem]:
    for key in SYSTEMATICS:
        table = getattr(config.instrument, key)
        if table is None:
            continue
        place = ("instrument", key)
        yield from band_problems((*place, "bands"), table.bands, bands)
        if table.std is None and bands and len(set(table.bands)) == len(bands):
            message = "all bands are free: leave one out as reference, or give `std`"
            yield place, message
        if table.std is not None and len(table.std) not in (1, len(table.bands)):
            message = f"expected 1 or {len(table.bands)} values, got {len(table.std)}"
            yield (*place, "std"), message


def _output(config: "RunConfig", names: list[str]) -> Iterator[Problem]:
    yield from unit_problems(("output", "amplitude_unit"), config.output.amplitude_unit)
    for name in config.output.amplitude_covariance:
        if name not in names:
            where = ("output", "amplitude_covariance")
            yield where, f"no component `{name}`; {nearest(name, names)}"


def _component_names(config: "RunConfig", laws: list) -> list[str]:
    """The components that are fitted: moments are several."""
    names = []
    for table, law in zip(config.component, laws, strict=True):
        try:
            names += [c.name for c in expand(table, law)] if law else [table.label]
        except ValueError:
            names.append(law.name)
    return names
