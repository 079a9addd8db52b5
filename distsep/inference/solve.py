r"""The global solve: coefficients shared by the whole sky, at given beta.

The amplitudes of every sample are eliminated exactly; what is left of the linear terms
is the small system $(\sum F^T Q F)\,\alpha = \sum F^T Q d$, summed over all pixels of
all ranks. lineax solves it. Where monopoles, templates and free amplitudes are
degenerate, the null space is found and the solution of minimum norm returned.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

from distsep.inference.model import orthonormal
from distsep.inference.objective import Objective, Point

# Of the largest eigenvalue, with a unit diagonal: below is the null space. The matrix
# is summed from residuals, so a degenerate direction comes out at 1e-20 or less.
NULL = 1e-11
# Of the data's: a prior below is lost where the two are added.
_FELT = 1e-14
# Of a direction, the part along coefficients with priors that is none.
_OF_PRIORS = 1e-6
_ROUNDING = 1e-9
# Above this many coefficients (regions) conjugate gradients take over.
LARGEST_DENSE = 3000
# Conjugate gradients fail after so many steps for each coefficient.
STEPS = 20


class GlobalSolution(NamedTuple):
    """Coefficients at given beta.

    Attributes:
        alpha: Solution of minimum norm.
        null: `(coefficient, k)` orthonormal degenerate directions.
    """

    alpha: np.ndarray
    null: np.ndarray


def solve_global(objective: Objective, point: Point) -> GlobalSolution:
    """Solve for the linear parameters at the other parameters of a point.

    Args:
        objective: The objective; its parameters say which are linear.
        point: Where the sums were taken.

    Returns:
        The solution; no parameter but the linear ones is looked at.

    Raises:
        ValueError: a coefficient multiplies zero in every sample; a prior that is lost
            beside the data.
        RuntimeError: conjugate gradients did not converge.

    Communication: none; the point holds sums over all ranks.

    References:
        Björck (1996), Numerical Methods for Least Squares Problems, section 2.7 (null
        space) and 7.4 (preconditioned conjugate gradients).
    """
    linear = np.flatnonzero(objective.parameters.linear)
    gradient = objective.gradient(point)[linear]
    before = point.x[linear]
    system = _normal_equations(objective, point, linear)
    empty = linear[system.diagonal() <= 0]
    if len(empty):
        names = ", ".join(objective.parameters.names[i] for i in empty[:5])
        raise ValueError(
            f"`separate(global_terms=...)`: {names} multiplies zero in every observed "
            "sample, or what the amplitudes there absorb: its coefficient cannot be "
            "found. Leave it out, or give it a prior."
        )
    if len(linear) > LARGEST_DENSE:
        most = STEPS * len(linear) + 1
        step, converged = conjugate_gradients(system, gradient, 1e-10, most)
        if not converged:
            raise RuntimeError(
                f"`separate(global_terms=...)`: {most} steps of conjugate gradients, "
                f"the maximum, did not find the {len(linear)} coefficients: some may "
                "be degenerate. Leave terms out, or use larger regions."
            )
        return GlobalSolution(before - step, np.zeros((len(linear), 0)))
    matrix = objective.matrix(point, False)[linear][:, linear]
    M, precision = matrix.toarray(), system.precision
    inside = _absorbed(objective, point.x)[linear]
    M[inside] = M[:, inside] = 0.0
    names = [objective.parameters.names[i] for i in linear]
    null = _unknown(M - np.diag(precision), precision, names)
    # The null directions get a weight of their own: the rest is solved as it is.
    filled = M + (np.trace(M) / max(len(M), 1) or 1.0) * null @ null.T
    operator = lx.MatrixLinearOperator(
        jnp.asarray(filled), lx.positive_semidefinite_tag
    )
    solver = lx.Cholesky()
    step = lx.linear_solve(operator, jnp.asarray(-gradient), solver).value
    alpha = before + np.asarray(step)
    return GlobalSolution(alpha - null @ (null.T @ alpha), null)


def _absorbed(objective: Objective, x: np.ndarray) -> np.ndarray:
    """Find the coefficients that the amplitudes absorb whole: only rounding is left."""
    tables = objective.model.tables(x)
    phi, Q = np.asarray(tables.phi), np.asarray(orthonormal(tables.A)[0])
    left = phi - np.einsum("prc,psc,pgs->pgr", Q, Q, phi)
    share = np.zeros(objective.parameters.number)
    norm = np.maximum(np.linalg.norm(phi, axis=2), 1e-300)
    mine = objective.index[:, objective.model.nkind :]
    np.maximum.at(share, mine, np.linalg.norm(left, axis=2) / norm)
    free = objective.parameters.prior_precision == 0
    return (share < _ROUNDING) & free


def null_space(M: np.ndarray) -> np.ndarray:
    """Orthonormal directions in which a symmetric matrix is zero, by a relative cut."""
    if not len(M):
        return np.zeros((0, 0))
    scale = np.where(np.diagonal(M) > 0, np.diagonal(M), 1.0) ** -0.5
    values, vectors = np.linalg.eigh(scale[:, None] * M * scale)
    null = scale[:, None] * vectors[:, values < NULL * max(values[-1], 1e-300)]
    return np.linalg.qr(null)[0] if null.shape[1] else null


def _unknown(data: np.ndarray, precision: np.ndarray, names: list[str]) -> np.ndarray:
    """Orthonormal directions of which neither the data nor a prior says anything.

    Raises:
        ValueError: a prior that alone holds one, and is lost when added to the data.
    """
    null, diagonal = null_space(data), np.diagonal(data)
    prior = (precision > 0) & (np.linalg.norm(null, axis=1) > _OF_PRIORS)
    lost = np.flatnonzero(prior & (precision < _FELT * diagonal))
    if len(lost):
        i = lost[0]
        raise ValueError(
            f"`separate(global_terms=...)`: the prior of {names[i]}, std = "
            f"{precision[i] ** -0.5:g}, alone says what the data do not, and is lost "
            "beside them in double precision: give a std below "
            f"{(_FELT * diagonal[i]) ** -0.5:.2g}, or no prior for the solution of "
            "minimum norm."
        )
    _, size, right = np.linalg.svd(null[prior])
    return null @ right[int((size > _OF_PRIORS).sum()) :].T


class System(NamedTuple):
    """A symmetric matrix as what each pool adds to it: never formed.

    Attributes:
        index: `(pool, n)` rows that each pool adds to.
        blocks: `(pool, n, n)`.
        precision: `(row,)` added to the diagonal.
        gauge: `(row, k)`; its product with itself is added.
    """

    index: np.ndarray
    blocks: np.ndarray
    precision: np.ndarray
    gauge: np.ndarray

    def diagonal(self) -> np.ndarray:
        """Diagonal of the matrix."""
        own = np.einsum("pnn->pn", self.blocks).ravel()
        summed = np.bincount(self.index.ravel(), own, len(self.precision))
        return summed + self.precision + (self.gauge**2).sum(1)

    def scaled(self, scale: np.ndarray) -> "System":
        """Rows and columns multiplied by `scale`."""
        s = scale[self.index]
        return System(
            self.index,
            self.blocks * s[:, :, None] * s[:, None, :],
            self.precision * scale**2,
            self.gauge * scale[:, None],
        )

    def multiply(self, x):
        """Product with a vector: gather to the pools, multiply there, add up."""
        own = jnp.einsum("pnm,pm->pn", self.blocks, x[self.index])
        along = self.precision * x + self.gauge @ (self.gauge.T @ x)
        return along.at[self.index].add(own)


def _normal_equations(objective: Objective, point: Point, linear) -> System:
    """Take the system of the linear parameters out of the sums at a point."""
    place = np.zeros(objective.parameters.number, int)
    place[linear] = np.arange(len(linear))
    k = objective.model.nkind
    return System(
        place[objective.index[:, k:]],
        point.pool_fisher[:, k:, k:],
        objective.parameters.prior_precision[linear],
        np.zeros((len(linear), 0)),
    )


def conjugate_gradients(
    system: System, b: np.ndarray, rtol: float, most: int
) -> tuple[np.ndarray, bool]:
    """Solve with a positive definite matrix of many rows.

    The diagonal is the preconditioner: patches of one kind share no pool, so that it is
    all of the matrix within a kind. The host computes, where sums have one order.

    Args:
        system: The matrix.
        b: `(row,)`.
        rtol: Largest residual of any row, of the largest entry of b; both with the
            matrix scaled to a unit diagonal.
        most: Largest number of steps.

    Returns:
        The solution, and whether it was found. NaN where it was not because the matrix
        is not positive: a direction of negative curvature was met.

    Communication: none.
    """
    diagonal = system.diagonal()
    if not (diagonal > 0).all():
        return np.full(len(b), np.nan), False
    scale = diagonal**-0.5
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        y, converged = _iterate(system.scaled(scale), scale * b, rtol, most)
    return scale * np.asarray(y), bool(converged)


@partial(jax.jit, static_argnums=3)
def _iterate(system: System, b, rtol, most):
    def multiply(x):
        y = system.multiply(x)
        return jnp.where(x @ y < 0, jnp.nan, y)  # NaN ends the iteration

    operator = lx.FunctionLinearOperator(
        multiply, jax.ShapeDtypeStruct(b.shape, b.dtype), lx.positive_semidefinite_tag
    )
    # lineax's `rtol` is by row, and a row may be 0.
    solver = lx.CG(rtol=0.0, atol=rtol * jnp.abs(b).max(), max_steps=most)
    found = lx.linear_solve(operator, b, solver, throw=False)
    return found.value, found.result == lx.RESULTS.successful


def describe_null(null, names, phi, A, component_names) -> str | None:
    """Say in words which coefficients are degenerate, and with which amplitudes.

    Args:
        null: `(coefficient, k)`.
        names: Of the coefficients.
        phi: `(coefficient, row)` rows each acts on, in one pool.
        A: `(row, comp)` of the same pool.
        component_names: Of its columns.
    """
    if null.shape[1] == 0:
        return None
    size = np.abs(null).max(1)
    which = [n for n, x in zip(names, size, strict=True) if x > 0.01 * size.max()]
    acts = phi.T @ null
    columns, *_ = np.linalg.lstsq(A, acts, rcond=None)
    share = (np.abs(columns) * np.linalg.norm(A, axis=0)[:, None]).max(1)
    total = np.linalg.norm(acts, axis=0).max()
    # They cancel by themselves: as they are, or, where no amplitude acts like them, by
    # the sizes of their templates.
    off = np.linalg.norm(acts - A @ columns, axis=0).max()
    alone = total < 1e-6 * np.linalg.norm(phi) or off > 1e-3 * total
    partners = [
        n
        for n, x in zip(component_names, share, strict=True)
        if x > 0.05 * total and not alone
    ]
    shown = ", ".join(which[:8]) + (
        f" and {len(which) - 8} more" if len(which) > 8 else ""
    )
    with_what = (
        f"the amplitudes of {', '.join(partners)}" if partners else "one another"
    )
    k = null.shape[1]
    return (
        f"{shown}: {k} direction{'s are' if k > 1 else ' is'} degenerate with "
        f"{with_what}; the solution of minimum norm is returned."
    )
