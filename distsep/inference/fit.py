"""The fit of the spectral parameters and global terms.

Patches start at the one value that suits the whole sky. A damped Newton warm start
brings every independent block of them close; there the coordinates are whitened, and
Adam, L-BFGS or Newton goes to the end. All decisions are taken on summed numbers, so
that beta is the same on every rank.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distsep.inference import compiled
from distsep.inference.distinct import alike, require_distinct
from distsep.inference.newton import Local, descend, local_model
from distsep.inference.objective import Objective
from distsep.inference.sky_start import sky_start
from distsep.inference.solve import solve_global
from distsep.model.mistakes import is_number

SOLVERS = ("adam", "lbfgs", "newton")
_WARM_PASSES = 40
_WARM_DISTANCE = 0.03  # sigma
_WORSE = 1.0  # -ln L by which no refinement may end higher
# Of the distance left, in each coordinate: 40 steps leave less than 1e-4 of it where
# the curvature is within 20% of that at the start.
_ADAM_STEPS = 40
_ADAM_RATE = 0.3
_ADAM_MOMENTUM = 0.5
_ROUNDING = 1e-9
# Times that degenerate global terms are looked for anew where a fit has ended.
_MOST_GAUGES = 4


@dataclass(frozen=True)
class Fit:
    """Where a fit ended.

    Attributes:
        x: The parameters.
        local: The quadratic model there.
        converged: True for each independent block within `tolerance` sigma, not held
            at a bound, with a positive definite Hessian and distinct components.
        passes: Passes over the data of the warm start, and of the solver, without
            those that see where it ended.
    """

    x: np.ndarray
    local: Local
    converged: np.ndarray
    passes: tuple[int, int]


def setting_mistakes(
    solver: str, tolerance: float, max_steps: int, reduce: Any = None
) -> list[str]:
    """Say which settings of a fit are none."""
    wrong = []
    if solver not in SOLVERS:
        wrong.append(f"`solver` should be one of {SOLVERS}, got {solver!r}")
    if not (is_number(tolerance) and 0 < tolerance < 1):
        wrong.append(
            f"`tolerance` should be positive and below 1 [sigma], got {tolerance!r}"
        )
    if not (is_number(max_steps) and max_steps >= 1 and max_steps == int(max_steps)):
        wrong.append(
            f"`max_steps` should be a whole number, at least 1, got {max_steps!r}"
        )
    if not (reduce is None or isinstance(reduce, (bool, np.bool_))):
        wrong.append(f"`reduce` should be True, False or None, got {reduce!r}")
    return wrong


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
        max_steps: Largest number of passes in all, counted so.
        tell: Called with (phase, passes, largest distance in sigma or None).

    Returns:
        Where it ended; not converging is not an exception.

    Raises:
        ValueError: two components of one emission law.
        FloatingPointError: the likelihood is not finite at a point it went to.

    Communication: one pass over the data (one packed allreduce) per step.

    References:
        Kingma & Ba (2015), arXiv:1412.6980, for Adam.
    """
    p = objective.parameters
    require_distinct(objective, p.clip(p.start))
    x0, start = _solve_linear(objective, p.clip(p.start))
    until = 1e-2 * tolerance if solver == "newton" else _WARM_DISTANCE
    most = max_steps if solver == "newton" else min(max_steps, _WARM_PASSES)
    told = partial(tell, "warm start")
    point, sky = sky_start(objective, x0, most, told)
    local, warm = descend(objective, point, until, most - sky + 1, told)
    warm += sky - 1
    if solver == "newton" and warm < max_steps:
        # Where a fit started must not show: a last step from 1e-5 sigma leaves nothing.
        local, _ = descend(objective, local.point, 0.0, 2, told)
        warm += 1
    steps = 0
    refine = {"adam": _adam, "lbfgs": _lbfgs}.get(solver) if p.number else None
    while refine is not None and warm + steps < max_steps:
        # optax mixes integers of 32 and 64 bits.
        with jax.numpy_dtype_promotion("standard"):
            x, done = refine(objective, local, max_steps - warm - steps, tell)
        steps += done
        if not np.isfinite(x).all():  # it left for where there is no likelihood
            break
        point = objective.point(x)
        before = objective.value(local.point).sum()
        if not objective.value(point).sum() < before + _WORSE:
            break
        local = local_model(objective, point)
        tell(solver, steps, local.distance.max(initial=0.0))
        if (local.distance <= tolerance).all():
            break
    for _ in range(_MOST_GAUGES if start else 0):
        held = objective.gauge.shape[1]
        x, _ = _solve_linear(objective, local.point.x)
        local = local_model(objective, objective.point(x))
        left = max_steps - warm - steps
        if objective.gauge.shape[1] == held or left < 2:
            break
        # Patches that started alike hid what tells directions apart: now it is fitted.
        local, more = descend(objective, local.point, 1e-2 * tolerance, left, told)
        steps += more
    ok = (local.distance <= tolerance) & ~local.indefinite
    ok[objective.label[local.held]] = False
    ok[objective.pool_label[alike(objective, local.point.x)[0]]] = False
    return Fit(local.point.x, local, ok, (warm + start, steps + start))


def _solve_linear(objective: Objective, x: np.ndarray) -> tuple[np.ndarray, int]:
    """Put the global terms at their optimum, of minimum norm; fix the gauge there.

    Returns:
        The parameters, and the number of passes it took.
    """
    linear = np.flatnonzero(objective.parameters.linear)
    if not len(linear):
        return x, 0
    objective.gauge = np.zeros((len(x), 0))
    point = objective.point(x)
    alpha, null = solve_global(objective, point)
    x = x.copy()
    x[linear] = alpha
    diagonal = objective.matrix(point, False).diagonal()[linear]
    weight = np.sqrt((diagonal[:, None] * null**2).sum(0))
    weight = np.where(weight > _ROUNDING * np.sqrt(diagonal.max()), weight, 1.0)
    objective.gauge = np.zeros((len(x), null.shape[1]))
    objective.gauge[linear] = weight * null
    return x, 1


@lru_cache
def _adam_optimizer(steps: int) -> optax.GradientTransformation:
    """Adam with a cosine decay; the same object at each call, as it is compiled in."""
    rate = optax.cosine_decay_schedule(_ADAM_RATE, steps)
    return optax.adam(rate, b1=_ADAM_MOMENTUM)


def _adam(
    objective: Objective, local: Local, most: int, tell: Callable
) -> tuple[np.ndarray, int]:
    """Adam in coordinates where the Hessian at the start is the unit matrix.

    Each is counted in the distance it has left there, so that one rate fits all.
    """
    steps = min(_ADAM_STEPS, most)
    optimizer, unit = _adam_optimizer(steps), local.offsets(objective)
    if compiled.possible(objective):
        return compiled.descend(objective, local, unit, optimizer, steps), steps
    return _loop(objective, local, unit, optimizer, steps, tell, "adam")


@lru_cache
def _lbfgs_optimizer() -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_lbfgs(memory_size=10), optax.scale(-1.0))


def _lbfgs(
    objective: Objective, local: Local, most: int, tell: Callable
) -> tuple[np.ndarray, int]:
    """L-BFGS in the same coordinates; the unit step needs no line search there."""
    unit = np.ones(objective.parameters.number)
    optimizer = _lbfgs_optimizer()
    return _loop(objective, local, unit, optimizer, most, tell, "lbfgs", until=1e-6)


def _loop(objective, local, unit, optimizer, most, tell, name, until=0.0):
    """Steps of an optimiser in whitened coordinates, one pass over the data each."""
    z = jnp.zeros(objective.parameters.number)
    state = optimizer.init(z)

    x, k = local.point.x, 0
    for k in range(1, most + 1):
        g = np.where(local.held, 0.0, objective.value_gradient(x)[1])
        g = local.factor.whiten_gradient(g)
        if np.linalg.norm(g) < until:
            break
        z, state = _update(optimizer, z, jnp.asarray(g / unit), state)
        step = np.where(local.held, 0.0, local.factor.unwhiten(unit * np.asarray(z)))
        x = objective.parameters.clip(local.point.x + step)
        tell(name, k, None)
    return x, k


@partial(jax.jit, static_argnums=0)
def _update(optimizer, z, g, state):
    change, state = optimizer.update(g, state, z)
    return optax.apply_updates(z, change), state
