"""What is wrong with a configuration beyond types: names, files, tables that disagree.

Each check yields `(place, message)`; none stops at the first. Nothing is computed, and
of the data only the attributes of a store are opened.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distsep.config.errors import Place, Problem, nearest
from distsep.config.model import build_instrument, build_law

if TYPE_CHECKING:
    from distsep.config.run import ParameterTable, PatchTable, RunConfig
    from distsep.config.tables import Table
    from distsep.model.components import Component


def run_problems(config: "RunConfig") -> Iterator[Problem]:
    """Yield everything wrong with run.toml that its types do not show."""
    data = yield from _observation(config)
    bands, nside = data.get("bands"), data.get("nside")
    laws = yield from build_laws(config.component)
    for n, (table, law) in enumerate(zip(config.component, laws, strict=True)):
        for name, parameter in table.parameters.items():
            place = ("component", n, "parameters", name)
            if law is not None and name not in law.parameters:
                continue  # reported by `build_laws`
            bounds = law.bounds.get(name) if law else None
            yield from _parameter(place, parameter, bounds, nside)
            if parameter.shared is not None:
                yield from _shared(place, parameter.shared, config, laws)
    if bands and len(config.component) > len(bands):
        many = f"{len(config.component)} components in {len(bands)} bands"
        yield ("component",), f"{many}: at least one cannot be told from the others"
    yield from _globals(config, bands, data.get("stokes"), nside)
    yield from _systematics(config, bands)
    yield from _output(config)


HITS_NORM = (
    'is required with `hits`: the count at which the depths hold, a number, "max" or '
    '"mean"'
)


def _observation(config: "RunConfig") -> Iterator[Problem]:
    """Check [observation] and return what is known of the data: bands, nside, stokes."""
    table, place = config.observation, ("observation",)
    if (table.store is None) == (table.fits is None):
        yield place, "give `store` or `fits`, one of the two"
        return {"bands": None}
    yield from file_problems(place, table, "mask", "hits")
    if table.hits and table.hits_norm is None:
        yield (*place, "hits_norm"), HITS_NORM
    if table.fits is not None:
        return (yield from _fits(config))
    for key in ("unit", "ordering", "coordsys", "polcconv", "resolution", "hits"):
        if getattr(table, key) is not None:
            yield (*place, key), "is known from the store; it goes with `fits`"
    if config.instrument.described:
        key = "preset" if config.instrument.preset is not None else "nu"
        yield ("instrument", key), "is known from the store; it goes with `fits`"
    return (yield from _store(table.store, table.stokes))


def _store(path: str, stokes: str | None) -> Iterator[Problem]:
    if not Path(path).is_dir():
        yield ("observation", "store"), f"there is no `{path}`"
        return {}
    from distsep.data.store import open_observation

    try:
        stored = open_observation(path)
    except (ValueError, OSError, KeyError) as error:
        yield ("observation", "store"), str(error)
        return {}
    if stokes is not None and stokes != stored.stokes:
        message = f"the store has {stored.stokes!r}, got {stokes!r}"
        yield ("observation", "stokes"), message
    bands = list(stored.instrument.bands)
    return {"bands": bands, "nside": stored.nside, "stokes": stored.stokes}


def _fits(config: "RunConfig") -> Iterator[Problem]:
    from distsep.model.units import UNITS

    table, place = config.observation, ("observation",)
    stokes = table.stokes
    if stokes is None:
        yield (*place, "stokes"), 'is required with `fits`: "I", "QU" or "IQU"'
    if not config.instrument.described:
        yield ("instrument",), "is required with `fits`: `preset`, or `nu` and depths"
    instrument = yield from instrument_problems(config.instrument)
    bands = list(instrument.bands) if instrument is not None else None
    if bands and len(table.fits) != len(bands) and not table.fits[0].band:
        message = f"{len(table.fits)} maps for {len(bands)} bands: name their `band`"
        yield (*place, "fits"), message
    for n, one in enumerate(table.fits):
        where = (*place, "fits", n)
        yield from file_problems(where, one, "file", "variance")
        yield from _bands(where, "band", [one.band] if one.band else [], bands)
        for columns in ("columns", "variance_columns"):
            given = getattr(one, columns)
            if given and stokes and len(given) not in (len(stokes), 1):
                message = f"expected one for each of {stokes}, got {len(given)}"
                yield (*where, columns), message
        if one.unit is not None and one.unit not in UNITS:
            message = f"unknown unit {one.unit!r}; {nearest(one.unit, UNITS)}"
            yield (*where, "unit"), message
    named = [one.band for one in table.fits if one.band]
    if named and (len(named) != len(table.fits) or len(set(named)) != len(named)):
        yield (*place, "fits"), "name the `band` of every map, each once, or of none"
    if table.unit is not None and table.unit not in UNITS:
        message = f"unknown unit {table.unit!r}; {nearest(table.unit, UNITS)}"
        yield (*place, "unit"), message
    return {"bands": named or bands, "stokes": stokes}


def instrument_problems(table: Any) -> Iterator[Problem]:
    if not table.described:
        return None
    if table.preset is not None and table.nu is not None:
        yield ("instrument", "preset"), "give `preset` or `nu`, not both"
        return None
    for n, file in enumerate(table.bandpass or []):
        if file and not Path(file).is_file():
            yield ("instrument", "bandpass", n), f"there is no file `{file}`"
            return None
    try:
        return build_instrument(table)
    except (ValueError, TypeError) as error:
        key = "preset" if table.preset is not None else "nu"
        yield ("instrument", key), str(error)
    return None


def build_laws(
    tables: list, *, fix_numbers: bool = True
) -> Iterator[Problem]:
    """Build every emission law; return them, None where that is not possible."""
    laws, labels = [], []
    for n, table in enumerate(tables):
        law, problems = build_law(table, fix_numbers=fix_numbers)
        for keys, message in problems:
            yield ("component", n, *keys), message
        laws.append(law)
        if table.label and table.label in labels:
            message = f"two components are called `{table.label}`: give one a `name`"
            yield ("component", n, "name"), message
        labels.append(table.label)
    return laws


def _parameter(
    place: Place, table: "ParameterTable", bounds: Any, nside: int | None
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
    if table.start is not None and not lo <= table.start <= hi:
        yield (*place, "start"), f"{table.start:g} is outside its bounds [{lo:g}, {hi:g}]"
    if table.prior is not None and not lo <= table.prior.mean <= hi:
        mean = table.prior.mean
        yield (*place, "prior"), f"mean {mean:g} is outside the bounds [{lo:g}, {hi:g}]"
    if table.patches is not None:
        yield from patch_problems((*place, "patches"), table.patches, nside)


def patch_problems(
    place: Place, table: "PatchTable", nside: int | None
) -> Iterator[Problem]:
    """Yield what is wrong with a patch table for maps of this nside."""
    ways = [w for w in ("nside", "map", "kmeans") if getattr(table, w) is not None]
    if len(ways) > 1 or not (ways or table.stokes):
        yield place, "give exactly one of nside, map, kmeans"
    yield from file_problems(place, table, "map")
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


def _globals(
    config: "RunConfig", bands: list | None, stokes: str | None, nside: int | None
) -> Iterator[Problem]:
    labels = [table.label for table in config.component]
    for n, table in enumerate(config.global_):
        place = ("global", n)
        yield from _bands(place, "bands", table.bands or [], bands)
        if table.stokes and stokes and not set(table.stokes) <= set(stokes):
            message = f"the data have {stokes!r}, got {table.stokes!r}"
            yield (*place, "stokes"), message
        wanted = {"template": "file", "region": "component"}.get(table.kind)
        if wanted and getattr(table, wanted) is None:
            yield (*place, wanted), f"is required for a {table.kind}"
        yield from file_problems(place, table, "file")
        if table.kind == "region" and table.regions is None:
            yield (*place, "regions"), "is required for a region"
        if table.component is not None and table.component not in labels:
            name = table.component
            yield (*place, "component"), f"no `{name}`; {nearest(name, labels)}"
        if table.regions is not None:
            yield from patch_problems((*place, "regions"), table.regions, nside)


def _systematics(config: "RunConfig", bands: list | None) -> Iterator[Problem]:
    for key in ("calibration", "band_shift", "angle"):
        table = getattr(config.instrument, key)
        if table is None:
            continue
        place = ("instrument", key)
        yield from _bands(place, "bands", table.bands, bands)
        if table.std is None and bands and len(set(table.bands)) == len(bands):
            message = "all bands are free: leave one out as reference, or give `std`"
            yield place, message
        if table.std is not None and len(table.std) not in (1, len(table.bands)):
            message = f"expected 1 or {len(table.bands)} values, got {len(table.std)}"
            yield (*place, "std"), message


def _output(config: "RunConfig") -> Iterator[Problem]:
    from distsep.model.units import UNITS

    unit = config.output.amplitude_unit
    if unit not in UNITS:
        where = ("output", "amplitude_unit")
        yield where, f"unknown unit {unit!r}; {nearest(unit, UNITS)}"
    labels = [table.label for table in config.component]
    for name in config.output.amplitude_covariance:
        if name not in labels:
            where = ("output", "amplitude_covariance")
            yield where, f"no component `{name}`; {nearest(name, labels)}"


def _bands(
    place: Place, key: str, names: list[str], bands: list | None
) -> Iterator[Problem]:
    for name in names if bands else ():
        if name not in bands:
            yield (*place, key), f"no band `{name}`; {nearest(name, bands)}"
    if len(set(names)) < len(names):
        yield (*place, key), "names a band twice"


def file_problems(place: Place, table: "Table", *keys: str) -> Iterator[Problem]:
    for key in keys:
        name = getattr(table, key)
        if name is not None and not Path(name).expanduser().is_file():
            yield (*place, key), f"there is no file `{name}`"


def power_of_two(place: Place, nside: int) -> Iterator[Problem]:
    if nside & (nside - 1):
        yield place, f"expected a power of two, got {nside}"
