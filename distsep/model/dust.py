"""Thermal dust: modified black bodies."""

from typing import Any

from distsep.model.components import Component
from distsep.model.mistakes import Real
from distsep.model.predefined import law

# B_nu(temp) / nu^3, relative to nu0, in a form that overflows at no frequency.
_PLANCK_RATIO = (
    "exp((nu0 - nu)*h_over_k/{0}) * expm1(-nu0*h_over_k/{0}) / expm1(-nu*h_over_k/{0})"
)


def Dust(
    nu0: Real,
    temp: Real | None = None,
    beta_d: Real | None = None,
    units: str = "K_CMB",
    *,
    name: str = "Dust",
    **options: Any,
) -> Component:
    r"""Modified black body, $I_\nu \propto \nu^{\beta_d} B_\nu(T)$.

    Args:
        nu0: Reference frequency [GHz].
        temp: Temperature [K].
        beta_d: Spectral index.
        units: Unit of the amplitude.
        name: Name of the component.
        options: `defaults` and `bounds`, see `Component`.

    References:
        Planck 2018 results XI (2020), A&A 641, A11.
    """
    return law(
        "(nu/nu0)**(1 + beta_d) * " + _PLANCK_RATIO.format("temp"),
        {"beta_d": beta_d, "temp": temp},
        {"beta_d": 1.54, "temp": 20.0},
        options,
        name=name,
        nu0=nu0,
        amplitude_unit=units,
    )


def TwoTemperatureDust(
    nu0: Real,
    beta_1: Real | None = None,
    temp_1: Real | None = None,
    beta_2: Real | None = None,
    temp_2: Real | None = None,
    f_1: Real | None = None,
    q_ratio: Real | None = 13.0,
    units: str = "K_CMB",
    *,
    name: str = "Dust",
    **options: Any,
) -> Component:
    r"""Two modified black bodies with one amplitude.

    $I_\nu \propto f_1 q\,(\nu/\nu_q)^{\beta_1} B_\nu(T_1)
    + (1 - f_1)(\nu/\nu_q)^{\beta_2} B_\nu(T_2)$, $\nu_q$ = 3000 GHz.

    Args:
        nu0: Reference frequency [GHz].
        beta_1: Spectral index of the cold dust.
        temp_1: Temperature of the cold dust [K].
        beta_2: Spectral index of the warm dust.
        temp_2: Temperature of the warm dust [K].
        f_1: Fraction of power of the cold dust.
        q_ratio: q, ratio of the opacities over absorption; degenerate with `f_1`.
        units: Unit of the amplitude.
        name: Name of the component.
        options: `defaults` and `bounds`, see `Component`.

    References:
        Finkbeiner, Davis & Schlegel (1999), ApJ 524, 867, model 8 (the starts).
    """
    body = "({0}/3000)**{1} * exp(-{0}*h_over_k/{2}) / expm1(-{0}*h_over_k/{2})"

    def both(nu: str) -> str:
        cold, warm = (body.format(nu, f"beta_{i}", f"temp_{i}") for i in (1, 2))
        return f"(f_1*q_ratio*{cold} + (1 - f_1)*{warm})"

    values = {"beta_1": beta_1, "temp_1": temp_1, "beta_2": beta_2, "temp_2": temp_2}
    starts = {"beta_1": 1.67, "temp_1": 9.4, "beta_2": 2.70, "temp_2": 16.2}
    return law(
        f"nu/nu0 * {both('nu')} / {both('nu0')}",
        {**values, "f_1": f_1, "q_ratio": q_ratio},
        {**starts, "f_1": 0.0363, "q_ratio": 13.0},
        options,
        name=name,
        nu0=nu0,
        amplitude_unit=units,
    )


def CIB(
    nu0: Real,
    temp: Real | None = None,
    beta_cib: Real | None = None,
    units: str = "K_CMB",
    *,
    name: str = "CIB",
    **options: Any,
) -> Component:
    """Cosmic infrared background, a modified black body.

    Args:
        nu0: Reference frequency [GHz].
        temp: Temperature [K].
        beta_cib: Spectral index.
        units: Unit of the amplitude.
        name: Name of the component.
        options: `defaults` and `bounds`, see `Component`.

    References:
        Planck 2013 results XXX (2014), A&A 571, A30: 24.4 K, 1.75.
    """
    return law(
        "(nu/nu0)**(1 + beta_cib) * " + _PLANCK_RATIO.format("temp"),
        {"beta_cib": beta_cib, "temp": temp},
        {"beta_cib": 1.75, "temp": 24.4},
        options,
        name=name,
        nu0=nu0,
        amplitude_unit=units,
    )
