"""The smallest checks of a configuration: a file, a unit, the names of bands."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distsep.config.errors import Place, Problem, nearest
from distsep.model.units import MAP_UNITS

if TYPE_CHECKING:
    from distsep.config.tables import Table

HITS = "goes with `hits`, which is not given: give both, or leave it out"
HITS_NORM = (
    'is required with `hits`: the count at which the depths hold, a number, "max" or '
    '"mean"'
)


def file_problems(place: Place, table: "Table", *keys: str) -> Iterator[Problem]:
    """Say which of these keys name a file that is not there."""
    for key in keys:
        name = getattr(table, key)
        if name is not None and not Path(name).expanduser().is_file():
            yield (*place, key), f"there is no file `{name}`"


def hits_problems(place: Place, table: Any) -> Iterator[Problem]:
    """Say if the normalisation of hits is not stated: it is never guessed."""
    if table.hits is not None and table.hits_norm is None:
        yield (*place, "hits_norm"), HITS_NORM
    if table.hits is None and table.hits_norm is not None:
        yield (*place, "hits_norm"), HITS


def unit_problems(
    place: Place, unit: str | None, units: tuple[str, ...] = MAP_UNITS
) -> Iterator[Problem]:
    """Say if a unit is not one of ours."""
    if unit is not None and unit not in units:
        begin = [f"`{u}`" for u in units if u.lower().startswith(unit.lower()) and unit]
        words = f"did you mean {' or '.join(begin)}?" if begin else nearest(unit, units)
        yield place, f"unknown unit {unit!r}; {words}"


def band_problems(
    place: Place, names: list[str], bands: list[str] | None
) -> Iterator[Problem]:
    """Say which names are not bands of the data, as far as these are known."""
    for name in names if bands else ():
        if name not in (bands or ()):
            yield place, f"no band `{name}`; {nearest(name, bands or ())}"
    if len(set(names)) < len(names):
        yield place, "names a band twice"


def power_of_two(place: Place, nside: int) -> Iterator[Problem]:
    """Say if an nside is not one of HEALPix."""
    if nside & (nside - 1):
        yield place, f"expected a power of two, got {nside}"
