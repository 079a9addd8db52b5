"""Checks of the noise of FITS maps: is it known, once, and for every map?"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distsep.config.errors import Place, Problem
from distsep.model.instrument import Instrument

if TYPE_CHECKING:
    from distsep.config.run import ObservationTable

NOISE_KEYS = ("variance", "nobs", "sigma0", "sigma0_p", "hits")


def noise_problems(
    place: Place,
    table: "ObservationTable",
    stokes: str | None,
    instrument: Instrument | None,
) -> Iterator[Problem]:
    """Yield what is wrong with the noise of [observation], for maps in FITS files.

    Args:
        place: Of the table.
        table: With `fits`.
        stokes: What its files hold, if that is known.
        instrument: The bands of these maps, if they are known.
    """
    maps, stokes = table.fits or [], stokes or ""
    own = [one.variance is not None for one in maps]
    given = [key for key in ("variance", "nobs", "hits") if getattr(table, key)]
    if any(own) and (given or not all(own)):
        message = "give a `variance` for every map and no other noise, or for none"
        yield (*place, "fits"), message
    elif len(given) > 1:
        yield (*place, given[1]), f"give `{given[0]}` or `{given[1]}`, not both"
    elif instrument is not None and not any(own) and given in ([], ["hits"]):
        yield from _depth_problems(place, instrument, stokes)
    for n, file in enumerate(table.variance_files or []):
        if not Path(file).expanduser().is_file():
            yield (*place, "variance", n), f"there is no file `{file}`"
    per_map = {len(maps)}, f"one for each of {len(maps)} maps"
    per_stokes = {1, len(stokes)}, f"one column, or one for each of {stokes}"
    lengths = {
        "variance": per_map if table.variance_files else per_stokes,
        "nobs": per_stokes,
        "sigma0": per_map,
        "sigma0_p": per_map,
    }
    for key, (known, words) in lengths.items():
        value = getattr(table, key)
        if value is not None and stokes and len(value) not in known:
            yield (*place, key), f"expected {words}, got {len(value)}"
    yield from _sigma0_problems(place, table)


def _sigma0_problems(place: Place, table: "ObservationTable") -> Iterator[Problem]:
    """Say if the noise of one observation is missing, or of no use."""
    given = [key for key in ("sigma0", "sigma0_p") if getattr(table, key) is not None]
    if table.nobs is None and given:
        yield (*place, given[0]), "goes with `nobs`, the column of observations"
    if table.nobs is not None and table.sigma0 is None:
        if table.sigma0_p is None or "I" in (table.stokes or ""):
            message = "is required with `nobs`: the noise of one observation [unit]"
            yield (*place, "sigma0"), message


def _depth_problems(
    place: Place, instrument: Instrument, stokes: str
) -> Iterator[Problem]:
    """Say of which Stokes parameters the instrument has no depths, and the remedies."""
    unknown = ""
    for letter in stokes:
        try:
            instrument.depth(letter)
        except ValueError:
            unknown += letter
    if unknown:
        words = ["depth_i"] * ("I" in unknown) + ["depth_p"] * (unknown != "I")
        yield (
            place,
            f"the noise of {', '.join(unknown)} is not known in all of "
            f"{', '.join(instrument.bands)}: give depths [uK_CMB arcmin] with "
            f"{' and '.join(f'`{word}` of [instrument]' for word in words)}, noise "
            "variances with `variance`, or numbers of observations with `nobs` and "
            "`sigma0`",
        )
