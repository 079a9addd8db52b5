"""The passes of a separation without the fit: the one file that knows `flow` inside."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import distsep
from distsep.flow import local_devices
from distsep.inference.objective import Objective
from distsep.inference.passes import PoolSums, Survey
from distsep.inference.reduce import ReducedData, block_root, merge_roots
from distsep.maps import source_of
from distsep.parallel import serial
from distsep.parallel.mesh import single
from distsep.problem import Problem, set_up


class Passes(NamedTuple):
    """A problem whose samples are on the devices.

    Attributes:
        problem: Model and samples.
        survey: The samples.
        sums: One pass: `(kernel, x) -> sums over pools`.
        once: The same on samples that are packed on the way, as for a reduction.
        objective: The likelihood, a pass over all samples per call.
    """

    problem: Problem
    survey: Survey
    sums: PoolSums
    once: PoolSums
    objective: Objective

    def value_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """One pass: -ln L and its gradient."""
        return self.objective.value_gradient(x)

    def reduce(self) -> ReducedData:
        """One pass: the exact reduction of the data."""
        roots = self.once(block_root, None, merge_roots)
        return ReducedData(roots, self.problem.model, (), single)

    def reduced(self) -> Objective:
        """The likelihood of the reduced data: no pixels, no communication."""
        model = self.problem.model
        return Objective(model, self.problem.parameters, self.reduce())

    @property
    def blocks(self) -> Any:
        """The packed samples, on the devices; blocks of padding left out."""
        (part, block), *others = self.survey.blocks()
        assert not others, "more than one part in memory"
        nblocks = part.layout.pool.shape[0]
        return jax.tree.map(lambda x: x[:nblocks], block)

    @property
    def message(self) -> int:
        """Bytes that a step sums over the ranks."""
        return 8 * self.problem.plan.pieces.number * (1 + self.objective.index.shape[1])


def prepare(
    observation: distsep.Observation,
    components: list,
    patches: Mapping[str, Any] | None = None,
    comm: Any = None,
    devices: int | None = None,
) -> Passes:
    """Lay out the samples of an observation and put them on the devices.

    Communication: collective, that of `set_up`.
    """
    comm = comm or serial()
    problem = set_up(
        components,
        source_of(observation, None, comm),
        comm=comm,
        patches=patches or {},
    )
    local, pieces = local_devices(devices), problem.plan.pieces
    survey = problem.survey(local, often=True)
    sums = PoolSums(survey, problem.own, pieces, comm.sum)
    return Passes(
        problem,
        survey,
        sums,
        PoolSums(problem.survey(local), problem.own, pieces, comm.sum),
        Objective(problem.model, problem.parameters, sums),
    )
