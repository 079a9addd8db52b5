"""Checks of [observation] and [instrument]: is there what is named, and do they agree?

Of a store only the attributes are opened, of a FITS file the header. The noise that
goes with FITS maps is checked in `check_noise.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distsep.config.check_basics import (
    band_problems,
    file_problems,
    hits_problems,
    unit_problems,
)
from distsep.config.check_headers import header_problems, maps_nside, sphere_problems
from distsep.config.check_noise import NOISE_KEYS, noise_problems
from distsep.config.errors import Place, Problem
from distsep.config.model import build_instrument
from distsep.config.tables import SYSTEMATICS
from distsep.model.instrument import Instrument, instrument, presets

if TYPE_CHECKING:
    from distsep.config.run import BandTable, ObservationTable, RunConfig
    from distsep.config.tables import InstrumentTable

PLACE = ("observation",)


class Known(NamedTuple):
    """What is known of the data before they are read; None: nothing."""

    bands: list[str] | None = None
    stokes: str | None = None
    nside: int | None = None
    coordsys: str | None = None
    instrument: Instrument | None = None


def data_problems(config: "RunConfig", simulated: Known | None = None) -> Any:
    """Yield what is wrong with [observation]; return what is `Known` of the data.

    Args:
        config: The file.
        simulated: What they will be, of a simulation.
    """
    table = config.observation
    if simulated is not None:
        if table.fits is not None:
            yield (*PLACE, "fits"), "is no simulated sky: leave it out"
        yield from _known_already(config, "the sky, its file says it")
        yield from _stokes(table.stokes, simulated.stokes)
        yield from file_problems(PLACE, table, "mask")
        sphere = {"nside": simulated.nside, "coordsys": simulated.coordsys}
        yield from sphere_problems((*PLACE, "mask"), table.mask, **sphere)
        return simulated
    if (table.store is None) == (table.fits is None):
        yield PLACE, "give `store` or `fits`, one of the two"
        return Known()
    yield from file_problems(PLACE, table, "mask", "hits")
    yield from hits_problems(PLACE, table)
    known = yield from _fits(config) if table.fits is not None else _stored(config)
    sphere = {"nside": known.nside, "coordsys": known.coordsys}
    for key in ("mask", "hits"):
        yield from sphere_problems((*PLACE, key), getattr(table, key), **sphere)
    return known


def _stored(config: "RunConfig") -> Any:
    yield from _known_already(config, "the store; it goes with `fits`")
    table = config.observation
    return (yield from _store(str(table.store), table.stokes))


def _known_already(config: "RunConfig", where: str) -> Iterator[Problem]:
    """Say what is given that the store, or the simulated sky, knows."""
    table = config.observation
    maps = ("unit", "ordering", "coordsys", "polcconv", "resolution", "hdu")
    for key in (*maps, *NOISE_KEYS):
        if getattr(table, key) is not None:
            yield (*PLACE, key), f"is known from {where}"
    for key in sorted(config.instrument.model_fields_set - {*SYSTEMATICS}):
        if getattr(config.instrument, key) is not None:
            yield ("instrument", key), f"is known from {where}"


def _store(path: str, stokes: str | None) -> Any:
    if not Path(path).is_dir():
        yield ("observation", "store"), f"there is no `{path}`"
        return Known()
    from distsep.data.stored_observation import StoredObservation

    try:
        stored = StoredObservation(path)
    except (ValueError, OSError, KeyError) as error:
        yield ("observation", "store"), str(error)
        return Known()
    yield from _stokes(stokes, stored.stokes)
    bands = list(stored.instrument.bands)
    sphere = stored.nside, stored.coordsys
    return Known(bands, stored.stokes, *sphere, stored.instrument)


def _stokes(asked: str | None, there: str | None) -> Iterator[Problem]:
    if asked not in (None, there):
        yield ("observation", "stokes"), f"the maps are {there!r}, got {asked!r}"


def _fits(config: "RunConfig") -> Any:
    table = config.observation
    files = table.fits or []
    if table.stokes is None:
        yield (*PLACE, "stokes"), 'is required with `fits`: "I", "QU" or "IQU"'
    if not config.instrument.described:
        message = "give `preset`, or `nu` with `depth_i` / `depth_p`"
        yield ("instrument",), message
    named = [one.band for one in files if one.band]
    instrument = yield from instrument_problems(
        config.instrument, None if named else len(files)
    )
    bands = list(instrument.bands) if instrument is not None else None
    for n, one in enumerate(files):
        yield from _map((*PLACE, "fits", n), one, table, bands)
    yield from unit_problems((*PLACE, "unit"), table.unit)
    if named and (len(named) != len(files) or len(set(named)) != len(named)):
        yield (*PLACE, "fits"), "name the `band` of every map, each once, or of none"
    elif bands and not named and len(files) != len(bands):
        yield (*PLACE, "fits"), _count(config.instrument, bands, len(files))
    held = yield from header_problems(PLACE, table)
    if instrument is not None and named:
        known = len(set(named) & set(instrument.bands)) == len(named)
        instrument = instrument.select(named) if known else None
    yield from noise_problems(PLACE, table, held or table.stokes, instrument)
    sphere = maps_nside(table), table.coordsys
    return Known(named or bands, table.stokes, *sphere, instrument)


def _count(table: "InstrumentTable", bands: list[str], n: int) -> str:
    """Say that there are not as many maps as bands."""
    files = f"{n} file{'' if n == 1 else 's'}"
    if table.preset is not None and table.bands is None and n < len(bands):
        has = f"{table.preset} has {len(bands)} bands ({', '.join(bands)})"
        return f"{has}, {files}: choose with `bands` of [instrument]"
    order = "bands" if table.bands is not None or table.preset is not None else "nu"
    return (
        f"{files} for {len(bands)} bands: one file per band, in the order of "
        f"`{order}` of [instrument]"
    )


def _map(
    place: Place, one: "BandTable", table: "ObservationTable", bands: list[str] | None
) -> Iterator[Problem]:
    yield from file_problems(place, one, "file", "variance")
    yield from band_problems((*place, "band"), [one.band] if one.band else [], bands)
    yield from unit_problems((*place, "unit"), one.unit)
    for key, lengths in (("columns", {0}), ("variance_columns", {0, 1})):
        given, stokes = getattr(one, key) or [], table.stokes
        if stokes and len(given) not in {len(stokes), *lengths}:
            message = f"expected one for each of {stokes}, got {len(given)}"
            yield (*place, key), message


def instrument_problems(table: "InstrumentTable", nfiles: int | None = None) -> Any:
    """Yield what is wrong with [instrument]; return the `Instrument`, or None.

    Args:
        table: The table.
        nfiles: Number of maps that go with its bands in order, if there are.
    """
    if not table.described:
        return None
    if table.preset is not None and table.nu is not None:
        yield ("instrument", "preset"), "give `preset` or `nu`, not both"
        return None
    for n, file in enumerate(table.bandpass or []):
        if file and not Path(file).expanduser().is_file():
            yield ("instrument", "bandpass", n), f"there is no file `{file}`"
            return None
    table = yield from _lengths(table, nfiles)
    try:
        return build_instrument(table)
    except (ValueError, TypeError) as error:
        key = "preset" if table.preset is not None else "nu"
        yield ("instrument", key), str(error)
    return None


def _lengths(table: "InstrumentTable", nfiles: int | None) -> Any:
    """Say which lists are not as long as there are bands; return the table in order.

    Where the bands of a preset are not chosen yet, the maps may be right about them.
    """
    if table.preset is not None:
        if table.preset not in presets():
            return table
        names = table.bands or instrument(table.preset).bands
        whole = f"`bands` has {len(names)} bands"
        if table.bands is None:
            whole = f"{table.preset} has {len(names)} bands ({', '.join(names)})"
        n, keys = len(names), ("depth_i", "depth_p", "fwhm", "bandpass")
    else:
        n = len(table.nu or [])
        whole = f"`nu` has {n} band{'' if n == 1 else 's'}"
        keys = ("bands", "depth_i", "depth_p", "fwhm", "bandpass")
    chosen = nfiles if table.preset is not None and table.bands is None else n
    stand_in: dict[str, Any] = {}
    for key in keys:
        values = getattr(table, key)
        if values is not None and len(values) != n:
            stand_in[key] = [1.0] * n if key.startswith("depth") else None
            if len(values) != chosen:
                yield ("instrument", key), f"{whole}, `{key}` {len(values)}"
    return table.model_copy(update=stand_in)
