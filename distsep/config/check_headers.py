"""Checks of the headers of FITS files: columns, units, frames; no pixel is read."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distsep.config.errors import Place, Problem
from distsep.data.fits import agreed_frames, column_unit
from distsep.data.fits_scalar import check_sphere
from distsep.data.fits_table import FitsTable
from distsep.model.units import MAP_UNITS

if TYPE_CHECKING:
    from distsep.config.run import BandTable, ObservationTable

Opened = list[tuple["BandTable", FitsTable]]


def header_problems(place: Place, table: "ObservationTable") -> Any:
    """Yield what the headers of the maps say is wrong, in the words of the reader.

    A file that cannot be opened as FITS is left to the reader.

    Args:
        place: Of the table.
        table: With `fits`.

    Returns:
        The Stokes parameters that the files hold, if they are not those asked for.
    """
    opened: Opened = []
    for one in table.fits or []:
        try:
            path = Path(one.file)
            opened.append((one, FitsTable.open(path, table.hdu, table.ordering, False)))
        except OSError:
            pass
        except ValueError as error:
            yield (*place, "fits"), str(error)
    if table.stokes is None or not opened:
        return None
    held = _stokes_held(opened, table.stokes)
    if held is not None:
        names = list(dict.fromkeys(", ".join(t.names) for _, t in opened))
        n = len(opened[0][1].names)
        what = f"{'one column' if n == 1 else f'{n} columns'} ({names[0]})"
        yield (*place, "stokes"), f'the files hold {what}: `stokes = "{held}"`?'
        return held
    yield from _each(place, opened, lambda one, t: _check(table, one, t))
    if len(opened) == len(table.fits or []):
        try:
            agreed_frames(
                [t for _, t in opened], table.stokes, table.coordsys, table.polcconv, []
            )
        except ValueError as error:
            for line in str(error).split("\n"):
                yield (*place, "fits"), line
    return None


def sphere_problems(
    place: Place,
    file: str | None,
    columns: Sequence[str | int] = (0,),
    *,
    nside: int | None,
    coordsys: str | None,
) -> Iterator[Problem]:
    """Yield what keeps a mask, a template or a patch map from going with the maps.

    A file that cannot be opened as FITS is left to the reader.

    Args:
        place: Of its key.
        file: FITS file.
        columns: Names or numbers of its columns.
        nside: Of the maps, if it is known.
        coordsys: Of the maps, if it is known.
    """
    if file is None:
        return
    try:
        table = FitsTable.open(Path(file).expanduser(), None, None, False)
        for column in columns:
            table.find_one(column)
        check_sphere(table, nside=nside, coordsys=coordsys)
    except OSError:
        pass
    except ValueError as error:
        yield place, str(error)


def maps_nside(table: "ObservationTable") -> int | None:
    """Nside of the first of the maps whose header can be read."""
    for one in table.fits or []:
        try:
            return FitsTable.open(
                Path(one.file), table.hdu, table.ordering, False
            ).nside
        except (OSError, ValueError):
            continue
    return None


def _stokes_held(opened: Opened, stokes: str) -> str | None:
    """What all the files hold by name, if it is not what is asked for."""

    def found(one: "BandTable", table: FitsTable, letters: str) -> bool:
        return one.columns is None and table.holds(letters)

    if all(found(one, t, stokes) or one.columns is not None for one, t in opened):
        return None
    for other in ("IQU", "QU", "I"):
        if other != stokes and all(found(one, t, other) for one, t in opened):
            return other
    return None


def _check(table: "ObservationTable", one: "BandTable", file: FitsTable) -> None:
    """Raise what the reader would of one file."""
    stokes = str(table.stokes)
    if one.columns is not None and len(one.columns) != len(stokes):
        return  # said of the key
    numbers = file.find(stokes, one.columns)
    noise = table.nobs or (None if table.variance_files else table.variance)
    unit = one.unit or table.unit
    if unit is None or unit in MAP_UNITS:
        column_unit(file, numbers, unit)
    if noise is not None and len(noise) in (1, len(stokes)):
        file.find_noise(stokes, noise)


def _each(place: Place, opened: Opened, check: Callable) -> Iterator[Problem]:
    """Yield a mistake of several files once, and how many more have it."""
    found: dict[str, list[str]] = {}
    for one, file in opened:
        try:
            check(one, file)
        except ValueError as error:
            # The name of the file stands first.
            own = str(error).removeprefix(str(file.path))
            found.setdefault(own, []).append(str(file.path))
    for words, paths in found.items():
        n = len(paths) - 1
        more = f" So {n} more file{'' if n == 1 else 's'}." if n else ""
        yield (*place, "fits"), f"{paths[0]}{words}{more}"
