"""FITS columns without Stokes parameters: masks, hits, variances, patch ids.

Whole-sphere arrays in NEST order, or the pixels of the maps they belong to.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Inexact, Integer

from distsep.data import healpix
from distsep.data.fits import BandMaps, per_band
from distsep.data.fits_table import FitsTable


def read_scalar(
    path: str | Path,
    column: str | int = 0,
    *,
    nside: int | None = None,
    coordsys: str | None = None,
    hdu: int | None = None,
    missing: int | float = np.nan,
) -> Inexact[np.ndarray, " pix"]:
    """Read one column without unit: hits, a variance, patch ids.

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
    """
    table = FitsTable.open(Path(path), hdu, None)
    if coordsys and table.coordsys not in (None, coordsys):
        raise ValueError(
            f"{path}: COORDSYS = {table.coordsys!r}, but the maps are in "
            f"{coordsys!r}: rotate it first, "
            f"`rotate_map(m, ({table.coordsys!r}, {coordsys!r}))`."
        )
    m = np.full(12 * table.nside**2, float(missing))
    samples = table.samples(table.find_one(column))
    m[table.nest_ids()] = np.where(np.isnan(samples), missing, samples)
    if nside is None or nside == table.nside:
        return m
    if table.nside > nside:
        raise ValueError(
            f"{path}: nside {table.nside}, finer than the maps (nside {nside}): "
            "degrade it first, e.g. with healpy.ud_grade."
        )
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
    """
    m = read_scalar(path, column, nside=nside, coordsys=coordsys, missing=-np.inf)
    return m > threshold


def read_variances(
    files: Sequence[str | Path],
    stokes: str,
    bands: BandMaps,
    *,
    columns: Sequence[Sequence[str | int] | None] | None = None,
) -> Inexact[np.ndarray, "freq stokes pix"]:
    """Read noise variance maps, on the pixels and in the (squared) units of `bands`.

    Args:
        files: One path per band.
        stokes: As for the maps.
        bands: The maps they belong to.
        columns: Per band, the columns of each Stokes parameter (II, QQ, UU); None: a
            file with one column, which serves all of them.

    Returns:
        Variances [unit of the band, squared]; infinite where the file has no value.

    Raises:
        ValueError: if the columns are not named and there are several: a covariance
            between Stokes parameters is not dropped unless the user says which
            columns to use.

    Communication: none.
    """
    paths = [Path(f) for f in files]
    variances = np.empty((len(paths), len(stokes), bands.maps.shape[-1]))
    for path, chosen, v in zip(
        paths, per_band("columns", columns, paths), variances, strict=True
    ):
        table = FitsTable.open(path, None, None)
        if chosen is None and len(table.names) > 1:
            raise ValueError(
                f"{path}: several columns ({', '.join(table.names)}): name the "
                f"variance of each of {', '.join(stokes)} (`columns=`). A covariance "
                "between Stokes parameters is not used."
            )
        for row, column in zip(v, chosen or [0] * len(stokes), strict=True):
            whole = read_scalar(
                path, column, nside=bands.nside, coordsys=bands.coordsys
            )
            known = whole if bands.cell_ids is None else whole[bands.cell_ids]
            row[:] = np.where(np.isnan(known), np.inf, known)
    return variances


def read_patches(
    path: str | Path,
    column: str | int = 0,
    *,
    nside: int | None = None,
    coordsys: str | None = None,
) -> Integer[np.ndarray, " pix"]:
    """Read patch numbers: the whole sphere in NEST order, -1 = not used.

    Raises:
        ValueError: if the column holds other than whole numbers.
    """
    m = read_scalar(path, column, nside=nside, coordsys=coordsys, missing=-1)
    ids = m.astype(np.int64)
    if (ids != m).any():
        raise ValueError(
            f"{path}: expected whole numbers (patch ids), got {m[ids != m][0]}."
        )
    return np.maximum(ids, -1)
