"""Damped Newton and Gauss-Newton steps, each independent block of patches on its own.

The warm start of every fit and the `newton` solver. Decisions are taken on numbers
that are summed over all ranks, so every rank takes the same.
"""

from dataclasses import dataclass

import numpy as np

from distsep.inference.curvature import Factor
from distsep.inference.objective import Objective, Point
from distsep.inference.quadratic import Factors, Quadratic

# Beyond this many sigma the Fisher matrix leads; closer the Hessian, where it is
# positive definite.
_NEAR = 3.0
_FIRST_DAMPING = 1e-3
_MOST_DAMPING = 1e12
_SHARE = 1e-2
_NOTHING = 1e-6  # sigma


@dataclass(frozen=True)
class Local:
    """The quadratic model of the objective at a point.

    Attributes:
        point: Where.
        gradient: With the parameters held at a bound set to 0.
        held: True for parameters at a bound that the gradient pushes against, and for
            those the data say nothing about.
        hessian: True for each block whose Hessian is used; else Fisher's matrix.
        indefinite: True for each block whose Hessian is not positive definite.
        matrix: That matrix.
        newton: H^-1 g with it.
        distance: Of each block from its optimum, in sigma: root of g^T H^-1 g.
        diagonal: Of Fisher's matrix.
    """

    point: Point
    gradient: np.ndarray
    held: np.ndarray
    hessian: np.ndarray
    indefinite: np.ndarray
    matrix: Quadratic
    newton: np.ndarray
    distance: np.ndarray
    diagonal: np.ndarray

    @property
    def factor(self) -> Factor | Factors:
        """Factor of the whole matrix, for whitened coordinates."""
        return self.matrix.factor

    def offsets(self, objective: Objective) -> np.ndarray:
        """Distance of each whitened coordinate from the optimum [sigma], about.

        One that is there already counts a hundredth of the farthest in its block.
        """
        size = np.abs(self.factor.whiten_gradient(self.gradient))
        farthest = np.zeros(objective.nblocks)
        np.maximum.at(farthest, objective.label, size)
        floor = np.maximum(_SHARE * farthest, _NOTHING)
        return np.maximum(size, floor[objective.label])

    def step(self, objective: Objective, damping: np.ndarray) -> np.ndarray:
        """Step of every parameter with the damping of its block."""
        if not damping.any():
            return -self.newton
        extra = damping[objective.label] * self.diagonal
        damped = Quadratic(objective, self.point, self.hessian, self.held, extra)
        return -damped.solve(self.gradient)


def finite(objective: Objective, at: Point) -> np.ndarray:
    """True for each independent block where every number is finite."""
    arrays = (at.pool_value, at.pool_gradient, at.pool_fisher, at.pool_hessian)
    whole = np.isfinite(np.concatenate([a.reshape(len(a), -1) for a in arrays], 1))
    return np.bincount(objective.pool_label, ~whole.all(1), objective.nblocks) == 0


def local_model(objective: Objective, point: Point, near: float = _NEAR) -> Local:
    """Look at the objective around a point: gradient, curvature, distance in sigma."""
    p, label = objective.parameters, objective.label
    gradient = objective.gradient(point)
    diagonal = objective.matrix(point, False).diagonal()
    bad = np.isin(label, np.flatnonzero(~finite(objective, point)))
    if bad.any():
        raise FloatingPointError(
            "the likelihood is not finite at "
            + ", ".join(
                f"{p.names[i]}={point.x[i]:.6g}" for i in np.flatnonzero(bad)[:6]
            )
            + ": two components may have the same emission law, a parameter be far "
            "outside its range, or the inverse noise of a pixel have fewer dimensions "
            "than there are components. Fix one of the parameters, give `bounds`, or "
            "mask such pixels."
        )
    held = (point.x <= p.lower) & (gradient > 0) | (point.x >= p.upper) & (gradient < 0)
    held |= diagonal <= 0
    gradient = np.where(held, 0.0, gradient)

    def blockwise(bad):
        out = np.zeros(objective.nblocks, bool)
        out[label[bad]] = True
        return out

    use = np.ones(objective.nblocks, bool)
    indefinite = np.zeros(objective.nblocks, bool)
    for _ in range(2):
        matrix = Quadratic(objective, point, use, held)
        bad = blockwise(matrix.bad)
        if not bad.any():
            break
        indefinite |= bad
        use &= ~bad
    else:
        if (bad & ~use).any():  # Fisher's matrix itself is singular: damp it
            matrix = Quadratic(objective, point, use, held, 1e-10 * diagonal)
    newton = matrix.solve(gradient)
    distance = _distance(newton, gradient, label, objective.nblocks)
    far = use & (distance > near)
    if far.any():
        use &= ~far
        matrix = Quadratic(objective, point, use, held)
        if blockwise(matrix.bad).any():
            matrix = Quadratic(objective, point, use, held, 1e-10 * diagonal)
        newton = matrix.solve(gradient)
        fisher_distance = _distance(newton, gradient, label, objective.nblocks)
        distance = np.where(far, fisher_distance, distance)
    return Local(
        point, gradient, held, use, indefinite, matrix, newton, distance, diagonal
    )


def _distance(newton, gradient, label, nblocks):
    decrement = np.bincount(label, gradient * newton, nblocks)
    return np.sqrt(np.clip(decrement, 0, None))


def descend(
    objective: Objective, point: Point, until: float, most: int, tell
) -> tuple[Local, int]:
    """Step until every block is within `until` sigma of its optimum.

    A block's step is accepted when its own value falls; otherwise its damping grows.
    Bounds hold: a step is cut at them, and a parameter that pushes against one waits.

    Args:
        objective: What to minimise.
        point: Where to start.
        until: Distance in sigma at which a block is left alone.
        most: Largest number of passes, of which `point` took one.
        tell: Called with (passes, largest distance in sigma).

    Returns:
        The quadratic model at the end, and the number of passes.

    Communication: one pass per step.
    """
    p, label, pool_label = objective.parameters, objective.label, objective.pool_label
    here = local_model(objective, point)
    damping = np.zeros(objective.nblocks)
    done = 1
    while done < most:
        active = here.distance > until
        tell(done, here.distance.max(initial=0.0))
        if (damping[active] > _MOST_DAMPING).all():  # or none is active
            break
        step = np.where(active[label], here.step(objective, damping), 0.0)
        trial = objective.point(p.clip(here.point.x + step))
        done += 1
        old, new = objective.value(here.point), objective.value(trial)
        # The rounding of the sums must not refuse the last, tiny steps.
        slack = 1e-12 * np.abs(old) + 1e-9
        accept = active & finite(objective, trial) & (new <= old + slack)
        damping = np.where(
            accept,
            np.where(damping < 10 * _FIRST_DAMPING, 0.0, damping / 10),
            np.where(active, np.maximum(10 * damping, _FIRST_DAMPING), damping),
        )
        if accept.any():
            mixed = here.point.mix(trial, accept[label], accept[pool_label])
            here = local_model(objective, mixed)
    tell(done, here.distance.max(initial=0.0))
    return here, done
