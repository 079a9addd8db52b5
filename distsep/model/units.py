"""Constants, the closed set of unit names, and conversions at one frequency.

Every brightness unit is described by the intensity [MJy/sr] of one unit of it, as a
function of frequency; a conversion is the ratio of two of them. Integrals over
bandpasses are taken in `instrument.py`.
"""

from types import ModuleType
from typing import Any

import numpy as np

# CODATA 2018 (exact) and Fixsen (2009), ApJ 707, 916.
PLANCK = 6.62607015e-34  # h [J s]
BOLTZMANN = 1.380649e-23  # k [J/K]
LIGHT_SPEED = 299792458.0  # c [m/s]
H_OVER_K = PLANCK * 1e9 / BOLTZMANN  # h/k [K/GHz]
T_CMB = 2.7255  # [K]
LARGEST_NU = 1e6  # of a frequency that is not one in Hz [GHz]

# 2 k nu^2 / c^2, in MJy/sr per K_RJ, at 1 GHz.
RJ_INTENSITY = 2 * BOLTZMANN * 1e18 / LIGHT_SPEED**2 * 1e20

_PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6}
_SCALES = {
    **{p + u: (u, v) for u in ("K_CMB", "K_RJ") for p, v in _PREFIXES.items()},
    "MJy/sr": ("MJy/sr", 1.0),
    "kJy/sr": ("MJy/sr", 1e-3),
    "Jy/sr": ("MJy/sr", 1e-6),
}

MAP_UNITS: tuple[str, ...] = tuple(_SCALES)
"""Units of maps and of emission laws."""

LINE_UNIT = "K km/s"
"""Unit of the amplitude of a line: velocity-integrated K_RJ."""

COMPTON_UNIT = "y_SZ"
"""Unit of the amplitude of the thermal SZ effect: the Compton parameter."""

UNITS: tuple[str, ...] = (*MAP_UNITS, COMPTON_UNIT, LINE_UNIT)
"""All unit names; the last two are units of amplitudes only."""

_MICRO = {
    "K_CMB": "uK_CMB",
    "K_RJ": "uK_RJ",
    "MJy/sr": "Jy/sr",
    "mK_CMB": "nK_CMB",
    "mK_RJ": "nK_RJ",
    COMPTON_UNIT: "1e-6 y_SZ",
    LINE_UNIT: "uK km/s",
}


def check_unit(unit: str, argument: str, allowed: tuple[str, ...] = MAP_UNITS) -> str:
    """Return `unit`, or raise the one error about unknown units.

    Raises:
        ValueError: if `unit` is not one of `allowed`.
    """
    if unit not in allowed:
        raise ValueError(
            f"`{argument}` should be one of {', '.join(allowed)}; got {unit!r}."
        )
    return unit


def micro(unit: str) -> str:
    """Name of one millionth of `unit`.

    Inside, maps are in uK_CMB, a millionth of K_CMB: an amplitude whose law is given
    in K_CMB per `unit` then comes out in millionths of `unit`.
    """
    return _MICRO.get(unit, f"1e-6 {unit}")


def cmb_over_rj(nu: Any, xp: ModuleType = np) -> Any:
    r"""K_RJ per K_CMB, $(x / 2\sinh(x/2))^2$ with $x = h\nu / k T_{CMB}$, nu in GHz."""
    half = nu * (H_OVER_K / T_CMB / 2)
    # 2 sinh(x/2), not (e^x - 1)^2 / e^x: neither overflow nor cancellation.
    return (half / xp.sinh(half)) ** 2


def compton_law(nu: Any, xp: ModuleType = np) -> Any:
    r"""K_CMB per Compton y, $T_{CMB}(x \coth(x/2) - 4)$, nu in GHz.

    References:
        Sunyaev & Zel'dovich (1972), Comments Astrophys. Space Phys. 4, 173.
    """
    x = nu * (H_OVER_K / T_CMB)
    return T_CMB * (x / xp.tanh(x / 2) - 4)


def intensity(unit: str, nu: Any, xp: ModuleType = np) -> Any:
    """Intensity of one `unit` of brightness.

    Args:
        unit: One of `MAP_UNITS` or `y_SZ`.
        nu: Frequency [GHz].
        xp: numpy, or jax.numpy where the result is differentiated in `nu`.

    Returns:
        Intensity [MJy/sr], shape of `nu`.
    """
    if unit == COMPTON_UNIT:
        return compton_law(nu, xp) * intensity("K_CMB", nu, xp)
    base, scale = _SCALES[check_unit(unit, "unit")]
    if base == "MJy/sr":
        return scale * xp.ones_like(nu)
    rayleigh_jeans = scale * RJ_INTENSITY * nu**2
    return rayleigh_jeans * cmb_over_rj(nu, xp) if base == "K_CMB" else rayleigh_jeans


def conversion(unit_from: str, unit_to: str, nu: Any, xp: ModuleType = np) -> Any:
    """Factor from one unit of brightness to another, for monochromatic bands.

    Args:
        unit_from: Unit of what is multiplied by the factor.
        unit_to: Unit of the product.
        nu: Frequency [GHz].
        xp: numpy, or jax.numpy where the result is differentiated in `nu`.

    Returns:
        Factors, shape of `nu`.

    Raises:
        ValueError: if a unit is unknown, or is a line's.

    Examples:
        >>> float(conversion("K_RJ", "K_CMB", 150.0).round(3))
        1.735
    """
    nu = xp.asarray(nu, dtype=float)
    if unit_from == unit_to:
        return xp.ones_like(nu)
    for unit, argument in ((unit_from, "unit_from"), (unit_to, "unit_to")):
        check_unit(unit, argument, (*MAP_UNITS, COMPTON_UNIT))
    return intensity(unit_from, nu, xp) / intensity(unit_to, nu, xp)
