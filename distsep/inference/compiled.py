"""A whole descent as one compiled loop, where the data are reduced.

No pixel, no communication and no return to Python between the steps: value and
gradient of the reduced data, the update, and the way back to the parameters.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distsep.inference.curvature import places
from distsep.inference.likelihood import Block, block_value_gradient
from distsep.inference.model import tables
from distsep.inference.newton import Local
from distsep.inference.objective import Objective
from distsep.inference.reduce import ReducedData, reduced_sums

# Numbers in the whitening of all independent blocks, padded to the largest.
_MOST = 2**22


class Whitened(NamedTuple):
    """The reduced likelihood in coordinates where its Hessian is the unit matrix.

    Attributes:
        W: `(block, m, m)` from whitened coordinates to parameters.
        label, place: Block of each parameter, and its place there.
        x0, lower, upper, prior_mean, prior_precision, free: By parameter.
        gauge: `(param, k)`, see `Objective`.
        index, white: Of the pools.
        block: Reduced data.
    """

    W: jax.Array
    label: jax.Array
    place: jax.Array
    x0: jax.Array
    lower: jax.Array
    upper: jax.Array
    prior_mean: jax.Array
    prior_precision: jax.Array
    free: jax.Array
    gauge: jax.Array
    index: jax.Array
    white: jax.Array | None
    block: Block

    def parameters(self, z):
        """Parameters at whitened coordinates `(block, m)`; bounds not looked at."""
        step = jnp.einsum("bij,bj->bi", self.W, z)[self.label, self.place]
        return self.x0 + jnp.where(self.free, step, 0.0)

    def value_gradient(self, shape, template, x):
        """-ln(likelihood x priors) and its gradient; `shape`, `template` are static."""
        T = tables(shape, x, self.index, self.white)
        rows = reduced_sums(block_value_gradient, T, self.block, template)
        off = x - self.prior_mean
        along = self.gauge.T @ x
        value = rows[:, 0].sum() + 0.5 * (self.prior_precision * off**2).sum()
        g = self.prior_precision * off + self.gauge @ along
        g = g.at[self.index.ravel()].add(rows[:, 1:].ravel())
        return value + 0.5 * (along**2).sum(), g

    def whiten(self, gradient):
        """The gradient by whitened coordinates, `(block, m)`."""
        g = jnp.where(self.free, gradient, 0.0)
        whole = jnp.zeros(self.W.shape[:2]).at[self.label, self.place].set(g)
        return jnp.einsum("bij,bi->bj", self.W, whole)


def possible(objective: Objective) -> bool:
    """Whether the data are reduced and the whitening is small enough."""
    label = objective.label
    size = np.bincount(label).max(initial=0)
    reduced = isinstance(objective.passes, ReducedData)
    return reduced and bool(0 < objective.nblocks * size**2 <= _MOST)


def whitened(objective: Objective, local: Local) -> Whitened:
    """Whiten the coordinates of reduced data at a point. Communication: none."""
    p, label, model = objective.parameters, objective.label, objective.model
    place = places(label)
    size = int(place.max()) + 1
    W = np.zeros((objective.nblocks, size, size))
    for j in range(size):
        unit = (place == j).astype(float)
        W[label, place, j] = local.factor.unwhiten(unit)
    return Whitened(
        W,
        label,
        place,
        local.point.x,
        p.lower,
        p.upper,
        p.prior_mean,
        p.prior_precision,
        ~local.held,
        objective.gauge,
        model.index,
        model.white,
        objective.passes.block,
    )


def descend(
    objective: Objective, local: Local, unit: np.ndarray, optimizer, steps: int
) -> np.ndarray:
    """Run an optax optimiser for some steps from a point; return the parameters.

    Args:
        objective: Of reduced data.
        local: The quadratic model at the start.
        unit: Unit of each whitened coordinate [sigma].
        optimizer: From optax.
        steps: How many.

    Communication: none.
    """
    problem, shape = whitened(objective, local), objective.model.shape(False)
    units = np.ones(problem.W.shape[:2])
    units[problem.label, problem.place] = unit
    x = _run(shape, objective.passes.template, optimizer, steps, problem, units)
    return np.asarray(x)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(shape, template, optimizer, steps, problem: Whitened, unit):
    def parameters(z):
        x = problem.parameters(unit * z)
        return jnp.clip(x, problem.lower, problem.upper)

    def step(state, _):
        z, memory = state
        _, g = problem.value_gradient(shape, template, parameters(z))
        change, memory = optimizer.update(problem.whiten(g) / unit, memory, z)
        return (z + change, memory), None

    z = jnp.zeros(problem.W.shape[:2])
    (z, _), _ = jax.lax.scan(step, (z, optimizer.init(z)), length=steps)
    return parameters(z)
