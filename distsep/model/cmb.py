"""The CMB, and what clusters do to it."""

from distsep.model.components import Component
from distsep.model.units import COMPTON_UNIT


def CMB(*, name: str = "CMB") -> Component:
    """Fluctuations of the CMB: 1 in K_CMB at every frequency."""
    return Component("1", name=name, unit="K_CMB")


def ThermalSZ(*, name: str = "ThermalSZ") -> Component:
    r"""Thermal Sunyaev-Zel'dovich effect, $T_{CMB}(x\coth(x/2) - 4)$ in K_CMB.

    The amplitude is the Compton parameter y; there is a null near 217 GHz.

    References:
        Sunyaev & Zel'dovich (1972), Comments Astrophys. Space Phys. 4, 173.
    """
    return Component(
        "T_CMB*(nu*h_over_k/T_CMB / tanh(nu*h_over_k/T_CMB/2) - 4)",
        name=name,
        unit="K_CMB",
        amplitude_unit=COMPTON_UNIT,
    )
