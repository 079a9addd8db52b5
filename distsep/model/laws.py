"""The predefined emission laws: each is a formula, its names, starts and source.

Names of parameters are fgbuster's where it has the law. A keyword given a number fixes
a parameter; None leaves it free. `units` is the unit of the amplitude, the brightness
at `nu0`.
"""

from collections.abc import Mapping
from typing import Any

from distsep.model.components import Component

POSITIVE = (1e-3, 1e9)
TEMPERATURE = (1.0, 1000.0)

# B_nu(temp) / nu^3, relative to nu0, in a form that overflows at no frequency.
_PLANCK_RATIO = (
    "exp((nu0 - nu)*h_over_k/{0}) * expm1(-nu0*h_over_k/{0}) / expm1(-nu*h_over_k/{0})"
)


def _law(
    expression: str,
    values: Mapping[str, float | None],
    starts: Mapping[str, float],
    options: Mapping[str, Any],
    **keywords: Any,
) -> Component:
    """A component with the starts of its law, unless the caller has others."""
    options = dict(options)
    positive = {"temp": TEMPERATURE, "Te": POSITIVE, "nu_peak": POSITIVE}
    bounds = {n: b for n, b in positive.items() if n in values}
    return Component(
        expression,
        fixed=values,
        defaults={n: starts[n] for n in values if n in starts}
        | dict(options.pop("defaults", None) or {}),
        bounds=bounds | dict(options.pop("bounds", None) or {}),
        **keywords,
        **options,
    )


def CMB(*, name: str = "CMB") -> Component:
    """Fluctuations of the CMB: 1 in K_CMB at every frequency."""
    return Component("1", name=name, unit="K_CMB")


def Dust(
    nu0: float,
    temp: float | None = None,
    beta_d: float | None = None,
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
    return _law(
        "(nu/nu0)**(1 + beta_d) * " + _PLANCK_RATIO.format("temp"),
        {"beta_d": beta_d, "temp": temp},
        {"beta_d": 1.54, "temp": 20.0},
        options,
        name=name,
        nu0=nu0,
        amplitude_unit=units,
    )


def PowerLaw(
    nu0: float,
    beta_pl: float | None = None,
    nu_pivot: float | None = None,
    running: float | None = 0.0,
    units: str = "K_CMB",
    *,
    name: str = "PowerLaw",
    **options: Any,
) -> Component:
    r"""Power law in K_RJ with running, $(\nu/\nu_0)^{\beta + C\ln(\nu/\nu_{pivot})}$.

    Args:
        nu0: Reference frequency [GHz].
        beta_pl: Spectral index of the Rayleigh-Jeans temperature.
        nu_pivot: Frequency [GHz] where the index is `beta_pl`; not used when the
            running is 0. Give it: free, it is degenerate with `beta_pl`.
        running: C; 0 by default, None leaves it free.
        units: Unit of the amplitude.
        name: Name of the component.
        options: `defaults` and `bounds`, see `Component`.

    References:
        Kogut (2012), ApJ 753, 110.
    """
    exponent, values = "beta_pl", {"beta_pl": beta_pl}
    if running != 0:
        exponent = "(beta_pl + running*log(nu/nu_pivot))"
        values |= {"running": running, "nu_pivot": nu_pivot}
    return _law(
        f"(nu/nu0)**{exponent}",
        values,
        {"beta_pl": -3.0, "running": 0.0, "nu_pivot": 70.0},
        options,
        name=name,
        nu0=nu0,
        amplitude_unit=units,
    )


def Synchrotron(
    nu0: float,
    beta_pl: float | None = None,
    nu_pivot: float | None = None,
    running: float | None = 0.0,
    units: str = "K_CMB",
    *,
    name: str = "Synchrotron",
    **options: Any,
) -> Component:
    """`PowerLaw` under the name Synchrotron."""
    return PowerLaw(nu0, beta_pl, nu_pivot, running, units, name=name, **options)
