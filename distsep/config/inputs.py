"""The maps a configuration names: FITS files read into an Observation, or a store."""

from typing import TYPE_CHECKING, Any

import numpy as np

from distsep.config.model import build_instrument
from distsep.data.fits import read_bands
from distsep.data.fits_scalar import read_mask, read_scalar, read_variances
from distsep.data.observation import Observation
from distsep.model.instrument import Instrument

if TYPE_CHECKING:
    from distsep.config.run import ObservationTable
    from distsep.config.tables import InstrumentTable


def read_fits(
    table: "ObservationTable", instrument_table: "InstrumentTable"
) -> Observation:
    """Read the FITS maps of [observation], for the instrument of [instrument].

    Args:
        table: With `fits`.
        instrument_table: What the bands are.

    Returns:
        The whole observation.

    Raises:
        ValueError, OSError: for what the files hold or lack.

    Communication: none; every rank that calls it reads the whole files.
    """
    assert table.fits is not None
    assert table.stokes is not None
    instrument = build_instrument(instrument_table)
    names = [one.band for one in table.fits]
    if names[0] is not None:
        instrument = instrument.select([str(name) for name in names])
    files = [one.file for one in table.fits]
    bands = read_bands(
        files,
        table.stokes,
        unit=[one.unit or table.unit for one in table.fits],
        ordering=table.ordering,
        coordsys=table.coordsys,
        polcconv=table.polcconv,
        columns=[one.columns for one in table.fits],
        hdu=table.hdu,
    )
    sphere = {"nside": bands.nside, "coordsys": bands.coordsys}

    def here(m: np.ndarray) -> np.ndarray:
        """A map of the whole sphere, on the pixels of the bands."""
        return m if bands.cell_ids is None else m[bands.cell_ids.astype(np.int64)]

    noise: dict[str, Any] = {}
    variances = [one.variance for one in table.fits]
    if any(variances):
        noise["noise_variance"] = read_variances(
            [str(file) for file in variances],
            table.stokes,
            bands,
            columns=[one.variance_columns for one in table.fits],
        )
    if table.hits is not None:
        hits = np.nan_to_num(here(read_scalar(table.hits, **sphere)), nan=0.0)
        noise |= {"hits": hits, "hits_norm": table.hits_norm}
    if table.mask is not None:
        noise["observed"] = here(read_mask(table.mask, **sphere))
    return Observation(
        **bands.keywords(), instrument=instrument, resolution=table.resolution, **noise
    ).replace(provenance={"files": files, "notes": list(bands.notes)})


def share(observation: Observation, rank: int, size: int) -> Observation:
    """The pixels of one rank of an observation that all ranks have whole."""
    if size == 1:
        return observation
    start, stop = observation.grid.rank_pixels(rank, size)
    pixels = slice(start, stop)
    index = observation.caller_index
    return observation.replace(
        d=observation.d[..., pixels],
        noise=observation.noise.select(pixels),
        cell_ids=observation.cell_ids[pixels],
        start=start,
        caller_index=None if index is None else index[pixels],
    )


def describe(instrument: Instrument) -> str:
    """The bands of an instrument in one line."""
    name = f"{instrument.name}: " if instrument.name else ""
    return f"{name}{len(instrument.bands)} bands, {', '.join(instrument.bands)}"
