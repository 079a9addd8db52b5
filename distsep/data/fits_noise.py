"""Noise variances from FITS columns: variances, or numbers of observations.

One mechanism for both: a column for each band and Stokes parameter, on the pixels of
the maps. No unit conversion here: variances are in the squared unit of the maps.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from distsep.data.fits import BandMaps, per_band, some_names
from distsep.data.fits_scalar import on_sphere
from distsep.data.fits_table import FitsTable
from distsep.data.tunit import says_square

log = logging.getLogger("distsep")


def read_variances(
    files: Sequence[str | Path],
    bands: BandMaps,
    *,
    columns: Sequence[Sequence[str | int] | None] | None = None,
    sigma0: Float[np.ndarray, "freq stokes"] | None = None,
    observed: Bool[np.ndarray, " pix"] | None = None,
    ordering: str | None = None,
    hdu: int | None = None,
) -> tuple[Float[np.ndarray, "freq stokes pix"], list[str]]:
    """Read the noise variance of every sample of some maps.

    Args:
        files: One path per band; those of the maps if they hold the columns.
        bands: The maps.
        columns: Per band, the column of each Stokes parameter, or one for all; None:
            they are told by their names (II_COV, QQ_COV, UU_COV, or those of maps), or
            are the only one of the file.
        sigma0: Noise of one observation [unit of the band]; the columns are then the
            numbers of observations N, and the variance is sigma0^2 / N.
        observed: True = use; None: everywhere.
        ordering: "RING" or "NEST", where the headers do not say.
        hdu: Number of the FITS extension; None: the first that holds a HEALPix map.

    Returns:
        Variances [unit of the band, squared], infinite where the file has no value or
        no observation; and what was taken for granted, in words.

    Raises:
        ValueError: for columns that cannot be told, a unit that is not that of the
            maps squared, and a variance that is not positive where there are data.

    Communication: none; every rank that calls it reads the whole files.
    """
    paths = [Path(f) for f in files]
    variances = np.empty(bands.maps.shape)
    used = ~np.isnan(bands.maps) & (True if observed is None else observed)
    silent, dropped, without = [], [], []  # files
    covariances: list[str] = []
    for n, chosen in enumerate(per_band("columns", columns, paths)):
        table = FitsTable.open(paths[n], hdu, ordering)
        found = table.find_noise(bands.stokes, chosen)
        for k, column in enumerate(found):
            values = on_sphere(
                table, column, nside=bands.nside, coordsys=bands.coordsys
            )
            factor = None if sigma0 is None else sigma0[n, k]
            variances[n, k] = _variance(bands.here(values), factor)
        _check_positive(table, found, variances[n], used[n], bands.stokes)
        if lost := int((np.isinf(variances[n]) & used[n]).sum()):
            without.append(f"{lost} in {paths[n].name}")
        if sigma0 is None:
            where = f"{paths[n]} ({', '.join(table.names[c] for c in found)})"
            texts = {table.unit(column) for column in found}
            if not all(says_square(text, bands.unit[n], where) for text in texts):
                silent.append(paths[n].name)
            if own := table.covariances(bands.stokes):
                covariances += own
                dropped.append(paths[n].name)
    variances[variances <= 0] = np.inf  # where there are no data
    notes = _notes(without, silent, covariances, dropped)
    for note in notes:
        log.warning(note)
    return variances, notes


def _notes(
    without: list[str], silent: list[str], covariances: list[str], dropped: list[str]
) -> list[str]:
    """Put in words what was taken for granted, of which files."""
    notes = []
    if without:
        notes.append(
            "samples with data but no finite noise variance, taken as not observed: "
            f"{some_names(without)}."
        )
    if silent:
        notes.append(
            f"no unit of the noise variance in {some_names(silent)}: taken as that of "
            "the map, squared."
        )
    if dropped:
        notes.append(
            f"{', '.join(dict.fromkeys(covariances))} in {some_names(dropped)}: not "
            "used, the noise is taken as independent between Stokes parameters."
        )
    return notes


def _variance(
    values: Float[np.ndarray, " pix"], sigma0: float | None
) -> Float[np.ndarray, " pix"]:
    """Return variances from a column of them, or of numbers of observations."""
    if sigma0 is None:
        return np.where(np.isnan(values), np.inf, values)
    N = np.nan_to_num(values, nan=0.0)
    return np.divide(sigma0**2, N, out=np.full(N.shape, np.inf), where=N != 0)


def _check_positive(
    table: FitsTable, found: list[int], v: np.ndarray, used: np.ndarray, stokes: str
) -> None:
    """Refuse variances that are zero or negative in pixels that have data."""
    counts = ((v <= 0) & used).sum(-1)
    if counts.any():
        wrong = ", ".join(
            f"{count} of {letter} ({table.names[column]})"
            for count, letter, column in zip(counts, stokes, found, strict=True)
            if count
        )
        raise ValueError(
            f"{table.path}: the noise variance is zero or negative in pixels that have "
            f"data: {wrong}. Leave them out with `--mask`, or set them to UNSEEN."
        )
