"""The maps a configuration names: FITS files read into an Observation, or a store."""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from distsep.config.model import build_instrument
from distsep.data.fits import read_bands
from distsep.data.fits_noise import read_variances
from distsep.data.fits_scalar import read_mask, read_scalar
from distsep.data.observation import Observation
from distsep.model.instrument import Instrument

if TYPE_CHECKING:
    from distsep.config.run import ObservationTable
    from distsep.config.tables import InstrumentTable

log = logging.getLogger("distsep")


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
        bands=instrument.bands,
    )
    sphere = {"nside": bands.nside, "coordsys": bands.coordsys}
    noise: dict[str, Any] = {}
    notes = list(bands.notes)
    if table.mask is not None:
        noise["observed"] = bands.here(read_mask(table.mask, **sphere))
    variance = _variance(table)
    if variance:
        observed = noise.get("observed")
        noise["noise_variance"], said = read_variances(
            bands=bands, observed=observed, **variance
        )
        notes += said
        if instrument_table.depth_i or instrument_table.depth_p:
            notes.append(
                "noise variances and depths are both given: the variances are used, "
                "not the depths."
            )
            log.warning(notes[-1])
    if table.hits is not None:
        hits = bands.here(read_scalar(table.hits, **sphere, missing=0))
        noise |= {"hits": hits, "hits_norm": table.hits_norm}
    return Observation(
        **bands.keywords(), instrument=instrument, resolution=table.resolution, **noise
    ).replace(provenance={"files": files, "notes": notes})


def _variance(table: "ObservationTable") -> dict[str, Any]:
    """Where the noise variances are, as `read_variances` wants it; empty: nowhere."""
    maps = table.fits or []
    if table.nobs is None and (table.variance is None or table.variance_files):
        files = table.variance_files or [one.variance for one in maps]
        columns = [one.variance_columns for one in maps]
        return {"files": files, "columns": columns} if any(files) else {}
    found: dict[str, Any] = {
        "files": [one.file for one in maps],
        "columns": [table.nobs or table.variance] * len(maps),
        "ordering": table.ordering,
        "hdu": table.hdu,
    }
    if table.nobs is not None:
        of_i, of_p = table.sigma0, table.sigma0_p or table.sigma0
        if table.sigma0_p is None and table.stokes == "IQU":
            log.warning(
                "sigma0 is taken for Q and U too: where the files have another for the "
                "polarisation (WMAP), give `sigma0_p`."
            )
        each = [of_i if letter == "I" else of_p for letter in str(table.stokes)]
        found["sigma0"] = np.array(each, float).T
    return found


def describe(instrument: Instrument) -> str:
    """The bands of an instrument in one line."""
    name = f"{instrument.name}: " if instrument.name else ""
    pairs = zip(instrument.bands, instrument.nu, strict=True)
    bands = [b if b == f"{nu:g}" else f"{b} ({nu:g} GHz)" for b, nu in pairs]
    what = "with bandpasses" if any(instrument.bandpass) else "single frequencies"
    return f"{name}{len(bands)} bands, {', '.join(bands)}; {what}"
