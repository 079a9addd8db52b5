"""The fit of the spectral parameters and global terms.

A damped Newton warm start brings every independent block of patches close; there the
coordinates are whitened, and Adam, L-BFGS or Newton goes to the end. All decisions are
taken on summed numbers, so that beta is the same on every rank.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distsep.inference.newton import Local, descend, local_model
from distsep.inference.objective import Objective

SOLVERS = ("adam", "lbfgs", "newton")
_WARM_PASSES = 40
_WARM_DISTANCE = 0.1  # sigma
_ADAM_STEPS = 200
_ADAM_RATE = 0.1  # sigma


@dataclass(frozen=True)
class Fit:
    """Where a fit ended.

    Attributes:
        x: The parameters.
        local: The quadratic model there.
        converged: True for each independent block within `tolerance` sigma, not held
            at a bound, with a positive definite Hessian.
        passes: Passes over the data of the warm start, and of the solver.
    """

    x: np.ndarray
    local: Local
    converged: np.ndarray
    passes: tuple[int, int]


def fit(
    objective: Objective,
    *,
    solver: str,
    tolerance: float,
    max_steps: int,
    tell: Callable = lambda *_: None,
) -> Fit:
    """Minimise the objective from the parameters' start.

    Args:
        objective: What to minimise.
        solver: `"adam"`, `"lbfgs"` or `"newton"`, after the warm start.
        tolerance: Largest distance from the optimum, in sigma, of any block.
        max_steps: Largest number of passes in all.
        tell: Called with (phase, passes, largest distance in sigma or None).

    Returns:
        Where it ended; not converging is not an exception.

    Raises:
        ValueError: unknown solver, tolerance not positive, max_steps under 1.
        FloatingPointError: the likelihood is not finite at a point it went to.

    Communication: one pass over the data (one packed allreduce) per step.

    References:
        Kingma & Ba (2015), arXiv:1412.6980, for Adam.
    """
    if solver not in SOLVERS:
        raise ValueError(
            f"`separate(solver=...)` must be one of {SOLVERS}, got {solver!r}."
        )
    if not tolerance > 0:
        raise ValueError(
            f"`separate(tolerance=...)` must be positive [sigma], got {tolerance}."
        )
    if not max_steps >= 1:
        raise ValueError(
            f"`separate(max_steps=...)` must be at least 1, got {max_steps}."
        )
    p = objective.parameters
    x0 = np.clip(p.start, p.lower, p.upper)
    until = 1e-2 * tolerance if solver == "newton" else _WARM_DISTANCE
    most = max_steps if solver == "newton" else min(max_steps, _WARM_PASSES)
    local, warm = descend(objective, x0, until, most, lambda *a: tell("warm start", *a))
    steps = 0
    refine = {"adam": _adam, "lbfgs": _lbfgs}.get(solver)
    while refine is not None and warm + steps < max_steps:
        x, done = refine(objective, local, max_steps - warm - steps, tell)
        steps += done
        local = local_model(objective, objective.point(x))
        tell(solver, steps, local.distance.max(initial=0.0))
        if (local.distance <= tolerance).all():
            break
    ok = (local.distance <= tolerance) & ~local.indefinite
    ok[objective.label[local.held]] = False
    return Fit(local.point.x, local, ok, (warm, steps))


def _clip(objective, x):
    return np.clip(x, objective.parameters.lower, objective.parameters.upper)


def _adam(
    objective: Objective, local: Local, most: int, tell
) -> tuple[np.ndarray, int]:
    """Adam in coordinates where the Hessian at the start is the unit matrix."""
    steps = min(_ADAM_STEPS, most)
    optimizer = optax.adam(optax.cosine_decay_schedule(_ADAM_RATE, steps))
    z = jnp.zeros(objective.parameters.number)
    state = optimizer.init(z)

    @jax.jit
    def update(z, g, state):
        change, state = optimizer.update(g, state)
        return optax.apply_updates(z, change), state

    x0, x = local.point.x, local.point.x
    for k in range(steps):
        _, g = objective.value_gradient(x)
        g = local.factor.whiten_gradient(np.where(local.held, 0.0, g))
        z, state = update(z, g, state)
        step = np.where(local.held, 0.0, local.factor.unwhiten(np.asarray(z)))
        x = _clip(objective, x0 + step)
        tell("adam", k + 1, None)
    return x, steps


def _lbfgs(
    objective: Objective, local: Local, most: int, tell
) -> tuple[np.ndarray, int]:
    """L-BFGS in the same coordinates; the unit step needs no line search there."""
    optimizer = optax.scale_by_lbfgs(memory_size=10)
    z = jnp.zeros(objective.parameters.number)
    state = optimizer.init(z)

    @jax.jit
    def update(z, g, state):
        change, state = optimizer.update(g, state, z)
        return z - change, state

    x0, x = local.point.x, local.point.x
    k = 0
    for k in range(1, most + 1):
        _, g = objective.value_gradient(x)
        g = local.factor.whiten_gradient(np.where(local.held, 0.0, g))
        if np.linalg.norm(g) < 1e-6:
            break
        z, state = update(z, jnp.asarray(g), state)
        step = np.where(local.held, 0.0, local.factor.unwhiten(np.asarray(z)))
        x = _clip(objective, x0 + step)
        tell("lbfgs", k, None)
    return x, k
