"""Emission of the radio sky: synchrotron, free-free, spinning dust."""

from typing import Any

from distsep.model.components import Component
from distsep.model.mistakes import Real
from distsep.model.predefined import law
from distsep.model.tables import TableData


def PowerLaw(
    nu0: Real,
    beta_pl: Real | None = None,
    nu_pivot: Real | None = None,
    running: Real | None = 0.0,
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
    return law(
        f"(nu/nu0)**{exponent}",
        values,
        {"beta_pl": -3.0, "running": 0.0, "nu_pivot": 70.0},
        options,
        name=name,
        nu0=nu0,
        amplitude_unit=units,
    )


def Synchrotron(
    nu0: Real,
    beta_pl: Real | None = None,
    nu_pivot: Real | None = None,
    running: Real | None = 0.0,
    units: str = "K_CMB",
    *,
    name: str = "Synchrotron",
    **options: Any,
) -> Component:
    """`PowerLaw` under the name Synchrotron."""
    return PowerLaw(nu0, beta_pl, nu_pivot, running, units, name=name, **options)


def CurvedSynchrotron(
    nu0: Real,
    beta_pl: Real | None = None,
    curvature: Real | None = None,
    units: str = "K_CMB",
    *,
    name: str = "Synchrotron",
    **options: Any,
) -> Component:
    r"""Power law in K_RJ with curvature, $(\nu/\nu_0)^{\beta + C\ln(\nu/\nu_0)}$.

    Args:
        nu0: Reference frequency [GHz], where the index is `beta_pl`.
        beta_pl: Spectral index of the Rayleigh-Jeans temperature.
        curvature: C.
        units: Unit of the amplitude.
        name: Name of the component.
        options: `defaults` and `bounds`, see `Component`.

    References:
        Kogut (2012), ApJ 753, 110.
    """
    return law(
        "(nu/nu0)**(beta_pl + curvature*log(nu/nu0))",
        {"beta_pl": beta_pl, "curvature": curvature},
        {"beta_pl": -3.0, "curvature": 0.0},
        options,
        name=name,
        nu0=nu0,
        amplitude_unit=units,
    )


def FreeFree(
    nu0: Real,
    Te: Real | None = 7000.0,
    units: str = "K_CMB",
    *,
    name: str = "FreeFree",
    **options: Any,
) -> Component:
    r"""Optically thin free-free emission, $T_{RJ} \propto \nu^{-2} g_{ff}(\nu, T_e)$.

    $g_{ff} = \ln[\exp(5.960 - \sqrt3/\pi\,\ln(\nu_9 T_4^{-3/2})) + e]$, for ions of
    charge 1. The amplitude is the emission at `nu0`, not the emission measure.

    Args:
        nu0: Reference frequency [GHz].
        Te: Electron temperature [K]; None leaves it free.
        units: Unit of the amplitude.
        name: Name of the component.
        options: `defaults` and `bounds`, see `Component`.

    References:
        Draine (2011), Physics of the Interstellar and Intergalactic Medium, eq. 10.9;
        Planck 2015 results X (2016), A&A 594, A10.
    """
    gaunt = (
        "log(exp(5.960 - 0.5513288954217920*log({0}*(Te/10000)**(-1.5)))"
        " + 2.718281828459045)"
    )
    return law(
        f"(nu0/nu)**2 * {gaunt.format('nu')} / {gaunt.format('nu0')}",
        {"Te": Te},
        {"Te": 7000.0},
        options,
        name=name,
        nu0=nu0,
        amplitude_unit=units,
    )


def AME(
    nu0: Real,
    nu_peak: Real | None = None,
    width: Real | None = None,
    units: str = "K_CMB",
    *,
    name: str = "AME",
    **options: Any,
) -> Component:
    r"""Anomalous microwave emission, log-normal in intensity.

    $I_\nu \propto \exp[-\frac12 (\ln(\nu/\nu_{peak})/W)^2]$.

    Args:
        nu0: Reference frequency [GHz].
        nu_peak: Frequency of the peak of the intensity [GHz].
        width: W, in ln nu.
        units: Unit of the amplitude.
        name: Name of the component.
        options: `defaults` and `bounds`, see `Component`.

    References:
        Stevenson (2014), ApJ 781, 113.
    """
    return law(
        "(nu0/nu)**2 * exp((log(nu0/nu_peak)**2 - log(nu/nu_peak)**2) / width**2 / 2)",
        {"nu_peak": nu_peak, "width": width},
        {"nu_peak": 25.0, "width": 0.5},
        options,
        name=name,
        nu0=nu0,
        amplitude_unit=units,
    )


def TabulatedAME(
    nu0: Real,
    table: Any,
    nu_peak: Real | None = None,
    units: str = "K_CMB",
    *,
    name: str = "AME",
    **options: Any,
) -> Component:
    r"""Spinning dust from a table of intensities, moved in ln nu to peak at `nu_peak`.

    Args:
        nu0: Reference frequency [GHz].
        table: (nu [GHz], intensity [any unit of Jy/sr]), for example from SpDust.
        nu_peak: Frequency of the peak of the intensity [GHz]; starts at the table's.
        units: Unit of the amplitude.
        name: Name of the component.
        options: `defaults` and `bounds`, see `Component`.

    Raises:
        ValueError: if the table has no peak inside.

    References:
        Ali-Haimoud, Hirata & Dickinson (2009), MNRAS 395, 1055 (SpDust);
        BeyondPlanck I (2023), A&A 675, A1 (the shift).
    """
    points = TableData.of(*table)
    peak = points.peak()
    moved = "table({0}*nu_table/nu_peak)"
    return law(
        f"(nu0/nu)**2 * {moved.format('nu')} / {moved.format('nu0')}",
        {"nu_peak": nu_peak, "nu_table": peak},
        {"nu_peak": peak},
        options,
        name=name,
        nu0=nu0,
        amplitude_unit=units,
        table=points,
    )
