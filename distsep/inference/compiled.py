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
from distsep.inference.reduce import ReducedData

# Numbers in the whitening of all independent blocks, padded to the largest.
_MOST = 2**22


class _Problem(NamedTuple):
    """The arrays of a descent.

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


def possible(objective: Objective) -> bool:
    """Whether the data are reduced and the whitening is small enough."""
    label = objective.label
    size = np.bincount(label).max(initial=0)
    reduced = isinstance(objective.passes, ReducedData)
    return reduced and bool(0 < objective.nblocks * size**2 <= _MOST)


def descend(objective: Objective, local: Local, optimizer, steps: int) -> np.ndarray:
    """Run an optax optimiser for some steps from a point; return the parameters.

    Communication: none.
    """
    p, label, model = objective.parameters, objective.label, objective.model
    place = places(label)
    size = int(place.max()) + 1
    W = np.zeros((objective.nblocks, size, size))
    for j in range(size):
        unit = (place == j).astype(float)
        W[label, place, j] = local.factor.unwhiten(unit)
    problem = _Problem(
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
    shape = model.shape(False)
    return np.asarray(_run(shape, objective.passes.template, optimizer, steps, problem))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(shape, template, optimizer, steps, problem: _Problem):
    p = problem

    def parameters(z):
        step = jnp.einsum("bij,bj->bi", p.W, z)[p.label, p.place]
        return jnp.clip(p.x0 + jnp.where(p.free, step, 0.0), p.lower, p.upper)

    def gradient(x):
        T = tables(shape, x, p.index, p.white)
        rows = block_value_gradient(T, p.block, template)
        g = p.prior_precision * (x - p.prior_mean) + p.gauge @ (p.gauge.T @ x)
        return g.at[p.index.ravel()].add(rows[:, 1:].ravel())

    def step(state, _):
        z, memory = state
        g = jnp.where(p.free, gradient(parameters(z)), 0.0)
        whole = jnp.zeros_like(z).at[p.label, p.place].set(g)
        change, memory = optimizer.update(
            jnp.einsum("bij,bi->bj", p.W, whole), memory, z
        )
        return (z + change, memory), None

    z = jnp.zeros(p.W.shape[:2])
    (z, _), _ = jax.lax.scan(step, (z, optimizer.init(z)), length=steps)
    return parameters(z)
