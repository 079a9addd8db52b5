"""What the sky and the instrument are: emission laws, bands, A(beta). No MPI, no maps."""

from distsep.model.components import Component as Component
from distsep.model.instrument import Instrument as Instrument
from distsep.model.instrument import instrument as instrument
from distsep.model.laws import CMB as CMB
from distsep.model.laws import Dust as Dust
from distsep.model.laws import PowerLaw as PowerLaw
from distsep.model.laws import Synchrotron as Synchrotron
from distsep.model.mixing import MixingMatrix as MixingMatrix
