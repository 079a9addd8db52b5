"""Stores into FITS files: one for each band, or for each component and for chi2."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distsep.data.fits_out import write_maps
from distsep.data.noise import Noise, shape_of_depths
from distsep.data.place import require_folder
from distsep.data.stored_observation import StoredObservation
from distsep.data.zarr_header import ResultHeader
from distsep.data.zarr_reader import GroupReader

log = logging.getLogger("distsep")

# Files that are named where there are many.
_NAMED = 4


def export_store(
    path: str | Path,
    directory: str | Path,
    *,
    partial: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write the maps of a store as FITS files that healpy and astropy read.

    Noise that is not the depths of the instrument goes along, as variances; but not
    the covariance of bands, which is said.

    Args:
        path: An observation or a result.
        directory: Where the files go; made if it is not there.
        partial: Write only the observed pixels, with their numbers.
        overwrite: Replace files.

    Returns:
        The files written.

    Raises:
        FileExistsError: if a file exists and is not to be replaced; a directory in a
            store.

    Communication: none; one rank does it, one file after another.
    """
    reader = GroupReader(path)
    head, directory = reader.header, Path(directory)
    require_folder(directory)
    cells = reader.read("cell_ids")
    found = _result(reader, head) if isinstance(head, ResultHeader) else _bands(reader)
    files = []
    for name, names, units, maps, cards in found:
        file = directory / f"{name}.fits"
        write_maps(
            file,
            maps,
            names=names,
            units=units,
            nside=head.nside,
            coordsys=head.coordsys,
            polcconv=head.polcconv,
            cell_ids=cells,
            cards=cards,
            partial=partial,
            overwrite=overwrite,
        )
        files.append(file)
    others = sorted({*directory.glob("*.fits")} - {*files})
    if others:
        more = ", ..." if len(others) > _NAMED else ""
        log.warning(
            f"{directory} has FITS files that are not of this store: "
            f"{', '.join(file.name for file in others[:_NAMED])}{more}"
        )
    return files


Maps = tuple[str, list[str], list[str], np.ndarray, dict[str, Any]]


def _bands(reader: GroupReader) -> Iterator[Maps]:
    """Name, columns, units, maps and header of every band; chunk by chunk."""
    stored = StoredObservation(reader)
    stokes, grid, n = stored.stokes, stored.grid, len(stored.stokes)
    unit = reader.attributes_of("maps")["units"]
    columns, units = [f"{letter}_STOKES" for letter in stokes], [unit] * n
    if dense := stored.noise_kind.startswith("dense"):
        log.warning("the covariance of bands is not written: FITS maps have no place.")
    variances = not dense and not _of_depths(stored, "weight" in reader.names)
    if variances:
        columns += [f"{letter}{letter}_COV" for letter in stokes]
        units += [f"({unit})^2"] * n
    for row, band in enumerate(stored.bands):
        maps = np.empty((len(columns), grid.npix), stored.dtype)
        for chunk in range(grid.nchunks):
            pixels = slice(*grid.chunk_range(chunk))
            part = stored.read(chunk, chunk + 1)
            maps[:n, pixels] = part.d[row]
            if variances:
                maps[n:, pixels] = _variance(part.noise, row)
        yield f"band_{band}", columns, units, maps, {"BAND": str(band)}


def _of_depths(stored: StoredObservation, weighted: bool) -> bool:
    """Whether the noise is that of the instrument's depths, and nothing else."""
    if stored.noise_kind != "uniform" or weighted:
        return False
    try:
        expected = shape_of_depths(stored.instrument, stored.stokes, stored.nside)
    except ValueError:  # it has none
        return False
    return np.allclose(stored.noise.shape, expected, rtol=1e-12, atol=0)


def _variance(noise: Noise, row: int) -> np.ndarray:
    """Variance of one band, (stokes, pix), NaN where it did not observe."""
    inverse = noise.shape[row]
    if noise.kind == "uniform":
        weight = np.ones(1) if noise.weight is None else noise.weight
        inverse = inverse[:, None] * weight
    return np.divide(1, inverse, out=np.full(inverse.shape, np.nan), where=inverse > 0)


def _result(reader: GroupReader, head: ResultHeader) -> Iterator[Maps]:
    """The same of every component, of chi2, residuals, and parameters with patches."""
    stokes, n = head.stokes, len(head.stokes)
    amplitudes = reader.read("amplitudes")
    covariance = None
    if "amplitude_covariance" in reader.names:
        covariance = reader.read("amplitude_covariance")
    for c, name in enumerate(head.component_names):
        unit = head.units[name]
        columns = [f"{letter}_STOKES" for letter in stokes]
        maps: Any = amplitudes[c]
        if name in head.covariance_names and covariance is not None:
            k = head.covariance_names.index(name)
            columns += [f"{letter}_SIGMA" for letter in stokes]
            maps = np.concatenate([maps, np.sqrt(covariance[:, k, k])])
        cards = {"COMP": name}
        if (nu0 := head.nu0.get(name)) is not None:
            cards["NU0"] = (nu0, "[GHz] of the amplitude")
        yield name, columns, [unit] * len(columns), maps, cards
    yield "chi2", [f"{s}_CHI2" for s in stokes], [""] * n, reader.read("chi2"), {}
    if "residuals" in reader.names:
        columns = [f"{letter}_STOKES" for letter in stokes]
        for band, maps in zip(head.bands, reader.read("residuals"), strict=True):
            cards = {"BAND": str(band)}
            yield f"residual_{band}", columns, ["uK_CMB"] * n, maps, cards
    for kind in head.patched:
        ids = reader.read(f"{kind}.patch")
        before = [""] if len(ids) == 1 else [f"{s}_" for s in stokes]
        none, cards = [""] * len(ids), {"PARAM": kind}
        yield f"{kind}.patch", [f"{s}PATCH" for s in before], none, ids, cards
        values, columns = [], []
        for what, name in (("VALUE", kind), ("SIGMA", f"{kind}.sigma")):
            known = np.append(np.atleast_1d(reader.read(name)), np.nan)
            values.append(known[np.where(ids < 0, -1, ids)])
            columns += [f"{s}{what}" for s in before]
        yield kind, columns, none * 2, np.concatenate(values), cards
