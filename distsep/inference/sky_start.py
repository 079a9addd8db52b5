"""Where patches start: at the one value of each parameter that suits the whole sky.

A patch with little signal, or a start that is far off, is reached from what all patches
together say. Decisions are taken on numbers that are summed over all ranks.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse

from distsep.inference.curvature import Factor
from distsep.inference.newton import finite
from distsep.inference.objective import Objective, Point
from distsep.inference.quadratic import hold

_PASSES = 40
_FIRST_DAMPING = 1e-3


def sky_start(
    objective: Objective, x: np.ndarray, most: int, tell: Callable
) -> tuple[Point, int]:
    """Fit one value per kind to the whole sky, by damped Gauss-Newton steps.

    It ends one sigma from their optimum. A block of patches that is better off where it
    was, because it or the others hold another sky, stays there; and kinds whose patches
    start at values of their own are not touched.

    Args:
        objective: What to minimise.
        x: The start given.
        most: Largest number of passes.
        tell: Called with (passes, None).

    Returns:
        The objective at the start found, and the number of passes.

    Communication: one pass per step.
    """
    first = here = objective.point(x)
    shared = _one_value_each(objective, x)
    if shared is None or not finite(objective, first).all():
        return first, 1
    p, damping, done = objective.parameters, 0.0, 1
    while done < min(most, _PASSES):
        tell(done, None)
        gradient = shared.T @ objective.gradient(here)
        matrix = (shared.T @ objective.matrix(here, False) @ shared).tocsc()
        held = _held(shared, p, here.x, gradient) | (matrix.diagonal() <= 0)
        gradient = np.where(held, 0.0, gradient)
        extra = sparse.diags_array(damping * matrix.diagonal())
        step = -Factor(hold((matrix + extra).tocsc(), held)).solve(gradient)
        if -(step @ gradient) < 1.0 or damping > 1e6:
            break
        trial = objective.point(p.clip(here.x + shared @ step))
        done += 1
        old, new = objective.value(here).sum(), objective.value(trial).sum()
        if finite(objective, trial).all() and new <= old:
            here, damping = trial, damping / 10
        else:
            damping = max(10 * damping, _FIRST_DAMPING)
    better = objective.value(here) < objective.value(first)
    return first.mix(here, better[objective.label], better[objective.pool_label]), done


def _one_value_each(objective: Objective, x: np.ndarray):
    """`(param, column)`: a column for every kind of several patches that start alike.

    None where there is no such kind, or nothing to be fitted together.
    """
    p = objective.parameters
    columns = []
    for kind in np.unique(p.kind[~p.linear]):
        mine = (p.kind == kind) & ~p.linear
        if np.ptp(x[mine]) == 0:
            columns.append(mine)
    if not columns or max(mine.sum() for mine in columns) < 2:
        return None
    return sparse.csc_matrix(np.array(columns, float).T)


def _held(shared, p, x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """True for a column with a patch at a bound, if the gradient pushes against it."""
    low, high = (shared.T @ (x <= p.lower) > 0, shared.T @ (x >= p.upper) > 0)
    return low & (gradient > 0) | high & (gradient < 0)
