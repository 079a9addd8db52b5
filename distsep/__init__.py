"""distsep: distributed component separation of maps of the microwave sky."""

import jax

jax.config.update("jax_enable_x64", True)

from distsep.data.observation import Observation  # noqa: E402
from distsep.data.result import Result  # noqa: E402
from distsep.flow import separate  # noqa: E402
from distsep.model.components import Component  # noqa: E402
from distsep.model.instrument import Instrument, instrument  # noqa: E402
from distsep.model.laws import *  # noqa: E402, F403
from distsep.model.mixing import MixingMatrix  # noqa: E402
from distsep.model.terms import Dipole, Monopole, Regional, Template  # noqa: E402
