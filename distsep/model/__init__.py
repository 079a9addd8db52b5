"""What the sky and the instrument are: emission laws, bands, A(beta). No MPI."""

from distsep.model.components import Component as Component
from distsep.model.instrument import Instrument as Instrument
from distsep.model.instrument import instrument as instrument
from distsep.model.instrument import presets as presets
from distsep.model.laws import *  # noqa: F403
from distsep.model.mixing import MixingMatrix as MixingMatrix
