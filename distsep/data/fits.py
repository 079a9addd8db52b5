"""FITS maps: one band per file, or several bands in one.

What a header says is checked, completed by the user where it says nothing, and never
guessed in silence: everything taken for granted is logged (logger "distsep") and kept
in the `notes`. Masks, hits and patch ids are read by the same door. No unit conversion
here: maps keep the unit of their file until they become an Observation.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Inexact, Shaped

from distsep.data import healpix
from distsep.data.fits_table import TURNED, FitsTable
from distsep.data.tunit import unit_of

log = logging.getLogger("distsep")
# What a header may say.
_WORDS = {"COORDSYS": healpix.COORDSYS, "POLCCONV": ("COSMO", "IAU")}


@dataclass(frozen=True)
class BandMaps:
    """Frequency maps as read: whole sphere or observed pixels, NEST, NaN = missing.

    Attributes:
        maps: Maps in the units of their files.
        unit: One of our unit names per band.
        stokes: Stokes parameters, in the order of the axis.
        nside: Resolution.
        coordsys: "G", "C" or "E".
        cell_ids: NEST numbers, ascending; None: the whole sphere.
        notes: What was taken for granted, in words.
    """

    maps: Inexact[np.ndarray, "freq stokes pix"]
    unit: tuple[str, ...]
    stokes: str
    nside: int
    coordsys: str
    cell_ids: Shaped[np.ndarray, " pix"] | None
    notes: tuple[str, ...]

    def keywords(self) -> dict[str, Any]:
        """Return the arguments of `Observation` that are known from the files.

        U is in the COSMO convention whatever the files used.
        """
        known = ("maps", "stokes", "nside", "coordsys", "cell_ids")
        return {name: getattr(self, name) for name in known} | {
            "unit": list(self.unit),
            "ordering": "NEST",
            "polcconv": "COSMO",
        }

    def here(self, m: Shaped[np.ndarray, " sphere"]) -> Shaped[np.ndarray, " pix"]:
        """Return a map of the whole sphere, NEST, on the pixels of these maps."""
        return m if self.cell_ids is None else m[self.cell_ids]


def read_bands(
    files: Sequence[str | Path],
    stokes: str = "IQU",
    *,
    unit: str | Sequence[str | None] | None = None,
    coordsys: str | None = None,
    polcconv: str | None = None,
    ordering: str | Sequence[str | None] | None = None,
    columns: Sequence[Sequence[str | int] | None] | None = None,
    hdu: int | Sequence[int | None] | None = None,
    bands: Sequence[str] | None = None,
) -> BandMaps:
    """Read one map per band.

    Args:
        files: One path per band; a file that holds several bands is named once for
            each, with its `columns`.
        stokes: "I", "QU" or "IQU": the columns wanted.
        unit: Where the headers do not say: one of our names, or one per band.
        coordsys: "G", "C" or "E", where the headers do not say.
        polcconv: "COSMO" or "IAU", where the headers do not say.
        ordering: "RING" or "NEST", where the headers do not say; one, or one per band.
        columns: Per band, the name or number (from 0, pixel column not counted) of
            the column of each Stokes parameter; None: they are told by their names.
        hdu: Number of the FITS extension, one, or one per band; None: the first that
            holds a HEALPix map.
        bands: Names of the bands, to be compared with the BAND of the headers.

    Returns:
        The maps: NEST, COSMO, NaN where a sample is missing: BAD_DATA, UNSEEN, not
        finite, outside a partial map, or exactly zero in every Stokes parameter.

    Raises:
        ValueError: for an absent or ambiguous unit, for bands that disagree in nside,
            COORDSYS or POLCCONV, and for a file of another of the `bands`.

    Communication: none; every rank that calls it reads the whole files.
    """
    paths = [Path(f) for f in files]
    units = per_band("unit", unit, paths)
    wanted = per_band("columns", columns, paths)
    tables = [
        FitsTable.open(path, number, order)
        for path, number, order in zip(
            paths,
            per_band("hdu", hdu, paths),
            per_band("ordering", ordering, paths),
            strict=True,
        )
    ]
    _require_own_band(tables, bands or ())
    notes: list[str] = []
    nside, frame, convention = agreed_frames(tables, stokes, coordsys, polcconv, notes)
    found, names = [], []
    for table, chosen, given in zip(tables, wanted, units, strict=True):
        numbers = table.find(stokes, chosen)
        names.append(column_unit(table, numbers, given))
        found.append(np.stack([table.samples(number) for number in numbers]))
        _say_infinite(table, numbers, notes)
        _drop_zeros(found[-1], table.path, notes)
        if np.isnan(found[-1]).all():
            notes.append(
                f"{table.path.name}: no pixel has a value in "
                f"{', '.join(table.names[n] for n in numbers)}: the band is not used."
            )
    maps, cell_ids = _union([table.nest_ids() for table in tables], found, nside)
    if convention == "IAU" and "U" in stokes:
        healpix.turn_u(maps, stokes)
        notes.append(TURNED)
    for note in notes:
        log.warning(note)
    return BandMaps(maps, tuple(names), stokes, nside, frame, cell_ids, tuple(notes))


def _require_own_band(tables: list[FitsTable], bands: Sequence[str]) -> None:
    """Refuse a file whose header names another of the bands: the order is wrong."""
    for table, band in zip(tables, bands, strict=False):
        for card in ("BAND", "FREQ"):  # ours, and that of Planck and WMAP
            says = str(table.header.get(card, "")).strip().lstrip("0")
            if says != band and says in bands:
                raise ValueError(
                    f"{table.path.name}: the header says {card} = {says!r}, but the "
                    f"file is given for band {band}: expected one file for each of "
                    f"{', '.join(bands)}, in this order. Reorder the files or the "
                    "bands, or correct the header."
                )


def per_band(name: str, value: Any, files: list[Path]) -> list[Any]:
    """Return one entry per band from one for all, or from a list of that length."""
    if value is None or isinstance(value, str | int):
        return [value] * len(files)
    if len(value) != len(files):
        raise ValueError(
            f"`{name}` expected one entry per band ({len(files)} files), got "
            f"{len(value)}."
        )
    return list(value)


def agreed_frames(
    tables: Sequence[FitsTable],
    stokes: str,
    coordsys: str | None,
    polcconv: str | None,
    notes: list[str],
) -> tuple[int, str, str]:
    """Return NSIDE, COORDSYS and POLCCONV, which all bands share.

    Raises:
        ValueError: with all that they disagree in.
    """
    wrong: list[str] = []
    said: dict[str, tuple[list, Any, Any]] = {
        "NSIDE": ([t.nside for t in tables], None, None),
        "COORDSYS": ([t.coordsys for t in tables], coordsys, "G"),
    }
    if set(stokes) & set("QU"):
        said["POLCCONV"] = [t.polcconv for t in tables], polcconv, "COSMO"
    found: dict[str, Any] = {"POLCCONV": "COSMO"}
    for card, (values, given, otherwise) in said.items():
        if card in _WORDS:
            if given is None:
                wrong += [
                    f"{t.path}: {card} = {value!r} in the header, expected one of "
                    f"{', '.join(_WORDS[card])}: say which with `{card.lower()}=`"
                    for t, value in zip(tables, values, strict=True)
                    if value not in (None, *_WORDS[card])
                ]
            values = [v if v in _WORDS[card] else None for v in values]
        try:
            files = [t.path for t in tables]
            found[card] = _agreed(card, files, values, given, otherwise, notes)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    return found["NSIDE"], found["COORDSYS"], found["POLCCONV"]


def column_unit(table: FitsTable, numbers: list[int], given: str | None) -> str:
    """Return the unit that the columns of one band share."""
    units = {
        table.names[n]: unit_of(
            table.unit(n), given, f"{table.path} ({table.names[n]})"
        )
        for n in numbers
    }
    if len(set(units.values())) > 1:
        raise ValueError(f"{table.path}: the columns have different units: {units}.")
    return units[table.names[numbers[0]]]


def _agreed(
    card: str, files: list, said: list, given: Any, otherwise: Any, notes: list[str]
) -> Any:
    """Return the one value of a header card that all bands share."""
    values = [given if value is None else value for value in said]
    if None in values:
        silent = [f.name for f, v in zip(files, values, strict=True) if v is None]
        values = [otherwise if value is None else value for value in values]
        notes.append(
            f"no {card} in {some_names(silent)}: taken as {otherwise} (say otherwise "
            f"with `--{card.lower()}`)."
        )
    if len(set(values)) > 1:
        table = ", ".join(f"{f.name}: {v}" for f, v in zip(files, values, strict=True))
        raise ValueError(f"the bands disagree in {card}: {table}. Bring them to one.")
    if given not in (None, values[0]):
        key = card.lower()
        raise ValueError(
            f"{some_names([f.name for f in files])}: the header says {card} = "
            f"{values[0]!r} but {given!r} was asked for with `--{key}`: leave "
            f"`--{key}` (`{key}=`) out, or correct the header."
        )
    return values[0]


def some_names(names: list[str]) -> str:
    """Return the first names and how many more there are."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - 3} more" if len(unique) > 3 else ""
    return ", ".join(unique[:3]) + more


def _say_infinite(table: FitsTable, numbers: list[int], notes: list[str]) -> None:
    """Note the samples that are infinite: they are missing, but should not be there."""
    for number in numbers:
        infinite = table.not_finite(number)[1]
        if infinite:
            notes.append(
                f"{table.path.name}: {infinite} pixels of {table.names[number]} are "
                "infinite: taken as not observed."
            )


def _drop_zeros(m: np.ndarray, path: Path, notes: list[str]) -> None:
    """Mark as missing the samples that are exactly zero in every Stokes parameter."""
    zero = (m == 0).all(axis=0)
    if zero.any():
        m[:, zero] = np.nan
        notes.append(
            f"{path.name}: {zero.sum()} pixels are exactly zero in every Stokes "
            "parameter: taken as not observed."
        )


def _union(
    ids: list[np.ndarray], found: list[np.ndarray], nside: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Put all bands on the pixels that any of them has, ascending in NEST."""
    cells = np.unique(np.concatenate(ids))
    kind = np.result_type(*found)
    maps = np.full((len(found), len(found[0]), len(cells)), np.nan, kind)
    for band, own, samples in zip(maps, ids, found, strict=True):
        band[:, np.searchsorted(cells, own)] = samples
    whole = len(cells) == 12 * nside**2
    return maps, None if whole else cells
