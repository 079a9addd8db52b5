"""Gaussian skies: maps with given angular power spectra, the same wherever drawn."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Complex, Float

from distsep.data import healpix

COLUMNS = ("TT", "EE", "BB", "TE")
ARCMIN = np.pi / 10800


def gaussian_map(
    cl: Float[np.ndarray, "4 ell"],
    nside: int,
    generator: np.random.Generator,
    *,
    fwhm: float = 0.0,
) -> Float[np.ndarray, "3 pix"]:
    """Draw I, Q and U maps with given spectra.

    Args:
        cl: C_l of TT, EE, BB and TE [unit^2] from l = 0; what is beyond 3 nside - 1 is
            not used.
        nside: Resolution.
        generator: Source of random numbers.
        fwhm: FWHM [arcmin] of a Gaussian beam.

    Returns:
        The whole sphere in NEST order [unit], polarisation COSMO.

    Raises:
        ValueError: if a spectrum is negative, or TE^2 > TT EE.
    """
    cl = np.asarray(cl, float)[:, : 3 * nside]
    alm = _draw(cl, generator)
    if fwhm:
        ell = np.arange(cl.shape[1])
        smooth = np.exp(-0.5 * ell * (ell + 1) * (fwhm * ARCMIN) ** 2 / (8 * np.log(2)))
        # The beam of a spin-2 field, 1 where that of a scalar is, as HEALPix has it.
        spin2 = smooth * np.exp(2 * (fwhm * ARCMIN) ** 2 / (8 * np.log(2)))
        where = _ell(cl.shape[1] - 1)
        alm *= np.stack([smooth, spin2, spin2])[:, where]
    return healpix.alm_to_map(alm, nside)


def _draw(
    cl: Float[np.ndarray, "4 ell"], generator: np.random.Generator
) -> Complex[np.ndarray, "3 alm"]:
    """Coefficients of T, E and B, in the order (m, l) of HEALPix."""
    tt, ee, bb, te = cl
    if (cl[:3] < 0).any() or (te**2 > tt * ee * (1 + 1e-10)).any():
        raise ValueError(
            "`gaussian_map(cl=...)` needs TT, EE, BB >= 0 and TE^2 <= TT EE at every l."
        )
    lmax = cl.shape[1] - 1
    where = _ell(lmax)
    x = generator.standard_normal((3, 2, len(where)))
    # Real for m = 0, which comes first; elsewhere half of the power in each part.
    unit = (x[:, 0] + 1j * x[:, 1]) / np.sqrt(2)
    unit[:, : lmax + 1] = x[:, 0, : lmax + 1]
    along = np.divide(te, np.sqrt(tt), out=np.zeros_like(te), where=tt > 0)
    across = np.sqrt(np.maximum(ee - along**2, 0))
    t, e, b = unit
    return np.stack(
        [
            np.sqrt(tt)[where] * t,
            along[where] * t + across[where] * e,
            np.sqrt(bb)[where] * b,
        ]
    )


def _ell(lmax: int) -> np.ndarray:
    """The l of every coefficient."""
    return np.concatenate([np.arange(m, lmax + 1) for m in range(lmax + 1)])


def read_spectra(path: str | Path) -> Float[np.ndarray, "4 ell"]:
    """Read C_l of TT, EE, BB and TE from a FITS file, as healpy writes them.

    Args:
        path: A table with one column for each, in that order, from l = 0.

    Raises:
        ValueError: if the file has fewer columns.
    """
    from astropy.io import fits

    with fits.open(path, memmap=False) as file:
        data: Any = file[1].data  # pyright: ignore[reportAttributeAccessIssue]
        if len(data.names) < len(COLUMNS):
            raise ValueError(
                f"{path}: expected columns for {', '.join(COLUMNS)}, got "
                f"{', '.join(data.names)}."
            )
        columns = [np.ravel(data.field(n)) for n in range(len(COLUMNS))]
    return np.nan_to_num(np.array(columns, dtype=float))
