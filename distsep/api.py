"""Everything that `import distsep` offers, by name."""

from distsep.data.observation import Observation
from distsep.data.result import Result
from distsep.data.store import open_observation, read
from distsep.flow import separate
from distsep.model import laws
from distsep.model.components import Component
from distsep.model.instrument import Instrument, instrument
from distsep.model.laws import *  # noqa: F403
from distsep.model.mixing import MixingMatrix
from distsep.model.terms import Dipole, Monopole, Regional, Template

__all__ = [
    "Component",
    "Dipole",
    "Instrument",
    "MixingMatrix",
    "Monopole",
    "Observation",
    "Regional",
    "Result",
    "Template",
    "instrument",
    "open_observation",
    "read",
    "separate",
]
__all__ += laws.__all__
