"""FITS columns without Stokes parameters: masks, hits, patch ids.

Arrays of the whole sphere, in NEST order.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Inexact, Integer

from distsep.data import healpix
from distsep.data.fits_table import TURNED, FitsTable
from distsep.data.patches import checked_ids

log = logging.getLogger("distsep")


def read_scalar(
    path: str | Path,
    column: str | int = 0,
    *,
    nside: int | None = None,
    coordsys: str | None = None,
    hdu: int | None = None,
    missing: int | float = np.nan,
) -> Inexact[np.ndarray, " pix"]:
    """Read one column without unit: hits, a template, patch ids.

    Args:
        path: FITS file.
        column: Name or number of the column.
        nside: Resolution of the maps it goes with. A coarser file gives its value to
            all the pixels inside; a finer one is refused.
        coordsys: Coordinates of the maps it goes with; refused if the file says others.
        hdu: Number of the FITS extension.
        missing: Value where the file has none; for hits, 0.

    Returns:
        The whole sphere in NEST order.

    Raises:
        ValueError: if it is no such map, or has no value in any pixel.
    """
    table = FitsTable.open(Path(path), hdu, None)
    return _scalar(table, column, nside=nside, coordsys=coordsys, missing=missing)


def _scalar(
    table: FitsTable,
    column: str | int,
    *,
    nside: int | None,
    coordsys: str | None,
    missing: int | float = np.nan,
) -> Inexact[np.ndarray, " pix"]:
    """Return a column of an open file, and say which of its values are none."""
    number = table.find_one(column)
    m = on_sphere(table, number, nside=nside, coordsys=coordsys, missing=missing)
    bad = dict(zip(("NaN", "infinite"), table.not_finite(number), strict=True))
    if np.isnan(missing):
        bad["NaN"] = 0  # they come out as they are
    for what, count in bad.items():
        if count:
            log.warning(
                f"{table.path.name}: {count} pixels of {table.names[number]} are "
                f"{what}: taken as {missing:g}."
            )
    return m


def read_stokes(
    path: str | Path,
    columns: Sequence[str | int],
    stokes: str,
    *,
    nside: int | None = None,
    coordsys: str | None = None,
) -> Inexact[np.ndarray, "column pix"]:
    """Read a column for each Stokes parameter; U of a file in IAU changes sign.

    Args:
        path: FITS file.
        columns: Names or numbers of the columns.
        stokes: Their Stokes parameters.
        nside: As for `read_scalar`.
        coordsys: As for `read_scalar`.

    Returns:
        The whole sphere in NEST order, in COSMO.
    """
    table = FitsTable.open(Path(path), None, None)
    maps = np.stack(
        [_scalar(table, one, nside=nside, coordsys=coordsys) for one in columns]
    )
    if table.polcconv == "IAU" and "U" in stokes:
        healpix.turn_u(maps, stokes)
        log.warning(f"{table.path.name}: {TURNED}")
    return maps


def check_sphere(table: FitsTable, *, nside: int | None, coordsys: str | None) -> None:
    """Refuse a file that does not go with maps of this nside and frame.

    Raises:
        ValueError: it is finer, or in other coordinates.
    """
    if coordsys and table.coordsys in {*healpix.COORDSYS} - {coordsys}:
        raise ValueError(
            f"{table.path}: COORDSYS = {table.coordsys!r}, but the maps are in "
            f"{coordsys!r}: rotate it first, "
            f"`rotate_map(m, ({table.coordsys!r}, {coordsys!r}))`."
        )
    if nside is not None and table.nside > nside:
        raise ValueError(
            f"{table.path}: nside {table.nside}, finer than the maps (nside {nside}): "
            "degrade it first, e.g. with healpy.ud_grade."
        )


def on_sphere(
    table: FitsTable,
    number: int,
    *,
    nside: int | None,
    coordsys: str | None,
    missing: int | float = np.nan,
) -> Inexact[np.ndarray, " pix"]:
    """Return a column of an open file on the sphere, in silence."""
    path = table.path
    check_sphere(table, nside=nside, coordsys=coordsys)
    m = np.full(12 * table.nside**2, float(missing))
    samples = table.samples(number)
    if np.isnan(samples).all():
        raise ValueError(
            f"{path}: {table.names[number]} has no value in any pixel: all are NaN, "
            "infinite or UNSEEN."
        )
    m[table.nest_ids()] = np.where(np.isnan(samples), missing, samples)
    if nside is None or nside == table.nside:
        return m
    return m[healpix.parents(nside, np.arange(12 * nside**2), table.nside)]


def read_mask(
    path: str | Path,
    column: str | int = 0,
    *,
    nside: int | None = None,
    coordsys: str | None = None,
    threshold: float = 0.0,
) -> Bool[np.ndarray, " pix"]:
    """Read a mask: True = use, where the file is above `threshold` (0/1: the ones).

    Returns:
        The whole sphere in NEST order; False where the file has no value.

    Raises:
        ValueError: for values outside [0, 1], as of another map; none to use.
    """
    m = read_scalar(path, column, nside=nside, coordsys=coordsys)
    known = m[~np.isnan(m)]
    if ((known < 0) | (known > 1)).any():
        raise ValueError(
            f"{path}: a mask has values from 0 (not used) to 1 (used), found "
            f"{known.min():g} to {known.max():g}: this is another map."
        )
    if not (m > threshold).any():
        raise ValueError(
            f"{path}: the mask leaves no pixel: expected values above {threshold:g} "
            "where the maps are to be used."
        )
    between = ((m > 0) & (m < 1)).sum()
    if between:
        log.warning(
            f"{Path(path).name}: {between} pixels of the mask are between 0 and 1: "
            f"those above {threshold:g} are used, with full weight."
        )
    return m > threshold


def read_patches(
    path: str | Path,
    column: str | int = 0,
    *,
    nside: int | None = None,
    coordsys: str | None = None,
) -> Integer[np.ndarray, " pix"]:
    """Read patch numbers: the whole sphere in NEST order, -1 = not used.

    Raises:
        ValueError: if the column holds other than whole numbers from -1.
    """
    m = read_scalar(path, column, nside=nside, coordsys=coordsys, missing=-1)
    return checked_ids(m, f"{path}:", len(m))
