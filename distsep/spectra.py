"""Whole-sky amplitudes of simulated components: CAMB, power laws, templates.

The only door to CAMB. What a component is by default is here too.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from distsep.config.sky import AmplitudeTable, PowerLawTable, SkyTable
from distsep.data.fits_scalar import read_stokes
from distsep.data.gaussian import gaussian_map, read_spectra

PIVOT = 80.0  # the l at which power laws are normalised

# Slopes, BB/EE and the correlation of T and E (0.36) of dust: Planck 2018 XI (A&A 641,
# A11), 71% of the sky. Slopes of polarised synchrotron: Planck 2018 IV (A&A 641, A4);
# its B/E ratio: Martire et al. 2022 (JCAP 04, 003). The amplitudes at l = 80 are those
# of the public Planck dust (353 GHz) and WMAP synchrotron (30 GHz) templates at
# |b| > 20 deg.
DEFAULTS = {
    "CMB": AmplitudeTable(spectrum="camb"),
    "Dust": AmplitudeTable(
        power_law=PowerLawTable(
            tt=12000.0,
            ee=200.0,
            bb=106.0,
            te=560.0,
            slope_tt=-0.5,
            slope_ee=-0.42,
            slope_bb=-0.54,
            slope_te=-0.5,
        ),
        unit="uK_CMB",
        nu=353.0,
    ),
    "Synchrotron": AmplitudeTable(
        power_law=PowerLawTable(
            tt=6.0, ee=2.4, bb=0.53, slope_tt=-1.0, slope_ee=-0.84, slope_bb=-0.76
        ),
        unit="uK_RJ",
        nu=30.0,
    ),
}

# Planck 2018 VI (A&A 641, A6), table 2, TT,TE,EE+lowE+lensing.
COSMOLOGY = {
    "H0": 67.36,
    "ombh2": 0.02237,
    "omch2": 0.1200,
    "tau": 0.0544,
    "As": 2.1e-9,
    "ns": 0.9649,
}


def whole_maps(
    sky: SkyTable, amplitude: AmplitudeTable, generator: Callable[..., Any]
) -> Float[np.ndarray, "stokes pix"]:
    """Draw or read the amplitude of one component on the whole sphere.

    Args:
        sky: Resolution, Stokes parameters, common beam.
        amplitude: A table with `spectrum`, `power_law` or `file`.
        generator: Makes the random numbers, if there are any.

    Returns:
        In NEST order, in the unit of the table.
    """
    if amplitude.file is not None:
        fields = amplitude.fields or _all_fields(sky.stokes)
        sphere = {"nside": sky.nside, "coordsys": sky.coordsys}
        return read_stokes(amplitude.file, fields, sky.stokes, **sphere)
    lmax = 3 * sky.nside - 1
    cl = _spectra(amplitude, lmax)
    maps = gaussian_map(cl, sky.nside, generator(), fwhm=sky.resolution or 0.0)
    return maps[["IQU".index(letter) for letter in sky.stokes]]


def _all_fields(stokes: str) -> list[int]:
    return ["IQU".index(letter) for letter in stokes]


def _spectra(amplitude: AmplitudeTable, lmax: int) -> Float[np.ndarray, "4 ell"]:
    """C_l of TT, EE, BB, TE from l = 0."""
    if amplitude.power_law is not None:
        return power_law(amplitude.power_law, lmax)
    if amplitude.spectrum == "camb":
        return camb_spectra(lmax, amplitude.r)
    return read_spectra(str(amplitude.spectrum))[:, : lmax + 1]


def power_law(law: PowerLawTable, lmax: int) -> Float[np.ndarray, "4 ell"]:
    """C_l of TT, EE, BB, TE that are power laws in l; nothing below l = 2."""
    ell = np.arange(2, lmax + 1)
    cl = np.zeros((4, lmax + 1))
    for row, name in zip(cl, ("tt", "ee", "bb", "te"), strict=True):
        size, slope = getattr(law, name), getattr(law, f"slope_{name}")
        row[2:] = size * (ell / PIVOT) ** slope * 2 * np.pi / (ell * (ell + 1))
    return cl


@functools.cache
def camb_spectra(lmax: int, r: float = 0.0) -> Float[np.ndarray, "4 ell"]:
    """Lensed C_l [uK_CMB^2] of the Planck 2018 cosmology.

    Args:
        lmax: Largest l.
        r: Tensor-to-scalar ratio at 0.05 / Mpc.

    Raises:
        ImportError: if CAMB is not installed.
    """
    try:
        import camb
    except ImportError as error:
        raise ImportError(
            'a CMB of `spectrum = "camb"` needs CAMB (`pip install camb`); or name a '
            f"FITS file of C_l as `spectrum`. ({error})"
        ) from error
    # Lensed BB at low l comes from E modes up to l of a few thousand.
    parameters = camb.set_params(
        **COSMOLOGY,  # pyright: ignore[reportArgumentType]
        r=r,
        WantTensors=r > 0,
        lmax=max(lmax, 2500),
        lens_potential_accuracy=1,
    )
    # The last bits depend on the number of threads.
    threads, camb.config.ThreadNum = camb.config.ThreadNum, 1
    try:
        powers = camb.get_results(parameters).get_cmb_power_spectra(
            parameters, lmax=lmax, CMB_unit="muK", raw_cl=True, spectra=["total"]
        )["total"]
    finally:
        camb.config.ThreadNum = threads
    return np.ascontiguousarray(powers[: lmax + 1].T)
