"""The quadratic model of the objective at a point, solved block by block.

Blocks of few or regional patches are factored together, exactly. Blocks whose factor
would fill in, of thousands of scattered patches, are solved by conjugate gradients on
products of the exact matrix and a vector: each pool multiplies its part. Where a fit
needs whitened coordinates of them, it has those of a dense Schur complement.
"""

from functools import cached_property

import numpy as np
import scipy.sparse as sparse

from distsep.inference.curvature import Factor
from distsep.inference.objective import Objective, Point
from distsep.inference.schur import Schur, split
from distsep.inference.solve import System, conjugate_gradients

# Largest residual of a step, in sigma, of the largest entry of the gradient. The length
# of the step in sigma, which says what has converged, is right to the square of that
# times the condition number.
_STEP = 1e-9
# Residual at which a matrix is taken to be positive definite.
_PROOF = 1e-6
# More steps of conjugate gradients than that: the block is factored after all.
_MOST = 5000


def hold(matrix, held: np.ndarray):
    """Unit rows and columns for the parameters that are held."""
    if not held.any():
        return matrix
    keep = sparse.diags_array((~held).astype(float))
    return (keep @ matrix @ keep + sparse.diags_array(held.astype(float))).tocsc()


class Factors:
    """The factor of narrow blocks and those of wide ones, side by side.

    Args:
        narrow: Of all rows, those of wide blocks being unit rows.
        rows: Of each wide block.
        wide: Its factor.
    """

    def __init__(self, narrow: Factor, rows: list[np.ndarray], wide: list[Schur]):
        self._narrow, self._wide = narrow, list(zip(rows, wide, strict=True))
        self.bad = narrow.bad.copy()
        for mine, one in self._wide:
            self.bad[mine] = not one.positive

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Return H^-1 b."""
        return self._each("solve", b)

    def unwhiten(self, z: np.ndarray) -> np.ndarray:
        """Return x = W z with x^T H x = z^T z."""
        return self._each("unwhiten", z)

    def whiten_gradient(self, g: np.ndarray) -> np.ndarray:
        """Return W^T g."""
        return self._each("whiten_gradient", g)

    def _each(self, what: str, x: np.ndarray) -> np.ndarray:
        out = getattr(self._narrow, what)(x)
        for rows, one in self._wide:
            out[rows] = getattr(one, what)(x[rows])
        return out


class Quadratic:
    """A matrix H of curvatures at a point, to solve with.

    Args:
        objective: The objective; `objective.wide` says which blocks are not factored.
        point: Where.
        hessian: True for each block whose Hessian is used; else Fisher's matrix.
        held: True for parameters that stay: unit rows and columns.
        extra: `(param,)` added to the diagonal.

    Communication: none; every rank computes the same from the same sums.

    References:
        Nocedal & Wright (2006), Numerical Optimization, section 7.1 (Newton-CG).
    """

    def __init__(
        self,
        objective: Objective,
        point: Point,
        hessian: np.ndarray,
        held: np.ndarray,
        extra: np.ndarray | float = 0.0,
    ):
        self._objective, self._point = objective, point
        self._hessian, self._held = hessian, held
        self._extra = np.broadcast_to(extra, held.shape)
        wide = objective.wide[objective.label]
        self._narrow = Factor(self._matrix(held | wide))
        self._wide = [
            np.flatnonzero(objective.label == b) for b in np.flatnonzero(objective.wide)
        ]
        self._systems = [self._system(rows) for rows in self._wide]

    @cached_property
    def bad(self) -> np.ndarray:
        """True where H is not positive definite.

        For each parameter of a block that conjugate gradients solve; for at least one
        of a factored block.
        """
        bad = self._narrow.bad.copy()
        for rows, system in zip(self._wide, self._systems, strict=True):
            bad[rows] = not self._positive(rows, system)
        return bad

    def _matrix(self, held):
        matrix = self._objective.matrix(self._point, self._hessian)
        if self._extra.any():
            matrix = (matrix + sparse.diags_array(self._extra)).tocsc()
        return hold(matrix, held)

    @cached_property
    def factor(self) -> Factor | Factors:
        """Factor of the whole matrix, wide blocks too: for whitened coordinates."""
        if not self._wide:
            return self._narrow
        matrix = self._matrix(self._held)
        blocks = [matrix[rows][:, rows] for rows in self._wide]
        first = [split(block) for block in blocks]
        if any(one is None for one in first):
            return Factor(matrix)
        wide = [Schur(*pair) for pair in zip(blocks, first, strict=True)]
        return Factors(self._narrow, self._wide, wide)

    def _system(self, rows: np.ndarray) -> System:
        """One wide block as what its pools add to it."""
        objective, point = self._objective, self._point
        block = objective.label[rows[0]]
        mine = objective.pool_label == block
        place = np.zeros(len(self._held), int)
        place[rows] = np.arange(len(rows))
        index, held = place[objective.index[mine]], self._held[rows]
        blocks = point.pool_hessian if self._hessian[block] else point.pool_fisher
        precision = objective.parameters.prior_precision[rows] + self._extra[rows]
        free = (~held).astype(float)
        matrix = System(index, blocks[mine], precision, objective.gauge[rows])
        return matrix.scaled(free)._replace(precision=np.where(held, 1.0, precision))

    def _positive(self, rows, system) -> bool:
        """Prove it: no direction of negative curvature on the way to a solution.

        Conjugate gradients that met none amplify what the right-hand side has along an
        eigenvector of negative eigenvalue, so they cannot end if it has any.
        """
        every = np.random.default_rng(0).normal(size=len(rows))  # always the same
        b = every * np.sqrt(np.abs(system.diagonal()))
        x, converged = conjugate_gradients(system, b, _PROOF, _MOST)
        if converged or np.isnan(x).any():
            return converged
        return not self.factor.bad[rows].any()

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Return H^-1 b of a vector."""
        out = self._narrow.solve(b)
        for rows, system in zip(self._wide, self._systems, strict=True):
            x, converged = conjugate_gradients(system, b[rows], _STEP, _MOST)
            out[rows] = x if converged else self.factor.solve(b)[rows]
        return out
