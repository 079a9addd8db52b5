"""The predefined emission laws, by name.

Names of parameters are fgbuster's where it has the law. A keyword given a number fixes
a parameter; None leaves it free. `units` is the unit of the amplitude, the brightness
at `nu0`; only CMB (1 in K_CMB), ThermalSZ (Compton y) and lines have their own.
"""

from distsep.model.cmb import CMB, ThermalSZ
from distsep.model.dust import CIB, Dust, TwoTemperatureDust
from distsep.model.lines import CO, Line
from distsep.model.moments import moments
from distsep.model.radio import (
    AME,
    CurvedSynchrotron,
    FreeFree,
    PowerLaw,
    Synchrotron,
    TabulatedAME,
)

__all__ = [
    "AME",
    "CIB",
    "CMB",
    "CO",
    "CurvedSynchrotron",
    "Dust",
    "FreeFree",
    "Line",
    "PowerLaw",
    "Synchrotron",
    "TabulatedAME",
    "ThermalSZ",
    "TwoTemperatureDust",
    "moments",
]

for _name in __all__:  # they are known, and pickled, under this address
    globals()[_name].__module__ = __name__
