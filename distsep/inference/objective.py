"""The function a fit minimises: minus the log of likelihood times priors.

From sums over pools to the vector of parameters: gradients by patch, Fisher matrix and
Hessian block-sparse, values by independent block of patches. Host arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sparse

from distsep.inference import fill
from distsep.inference.curvature import assemble, components
from distsep.inference.likelihood import block_curvature, block_value_gradient
from distsep.inference.model import Model
from distsep.model.parameters import Parameters


@dataclass(frozen=True)
class Point:
    """The objective at one vector of parameters.

    Attributes:
        x: The parameters.
        pool_value: -ln L of each pool.
        pool_gradient: `(pool, n)`.
        pool_fisher, pool_hessian: `(pool, n, n)`.
    """

    x: np.ndarray
    pool_value: np.ndarray
    pool_gradient: np.ndarray
    pool_fisher: np.ndarray
    pool_hessian: np.ndarray

    def mix(self, other: "Point", param: np.ndarray, pool: np.ndarray) -> "Point":
        """Take the other point where the masks are True."""

        def pick(name):
            mine, its = getattr(self, name), getattr(other, name)
            mask = pool.reshape((-1,) + (1,) * (mine.ndim - 1))
            return np.where(mask, its, mine)

        return Point(
            np.where(param, other.x, self.x),
            *map(pick, ("pool_value", "pool_gradient", "pool_fisher", "pool_hessian")),
        )


class Objective:
    """-ln(likelihood x priors) of a data set.

    Args:
        model: Tables of the pools.
        parameters: The list of parameters.
        passes: `(kernel, x) -> (pool, k)`: one pass over all samples of all ranks at
            the parameters x, summed over each pool.

    Attributes:
        label: Independent block of each parameter.
        index: `(pool, n)` parameter of each kind and global term in each pool.
        gauge: `(param, k)` directions the data say nothing about: held where they are
            zero by a penalty that the likelihood does not feel.

    Communication: `passes` is collective; nothing else is.
    """

    def __init__(self, model: Model, parameters: Parameters, passes: Callable):
        self.model, self.parameters, self.passes = model, parameters, passes
        self.index = np.asarray(model.index)
        self.label = components(self.index, parameters.number)
        if self.index.shape[1]:
            self.pool_label = self.label[self.index[:, 0]]
        else:
            self.pool_label = np.zeros(len(self.index), int)
        self.nblocks = int(self.label.max(initial=-1)) + 1
        self.gauge = np.zeros((parameters.number, 0))
        self._has_priors = bool(parameters.prior_precision.any())

    @cached_property
    def wide(self) -> np.ndarray:
        """True for each independent block whose sparse factor would fill in."""
        return fill.widths(self.index, self.label, fill.WIDEST) > fill.WIDEST

    @property
    def _beside_data(self) -> bool:
        """Whether anything but the data has a say."""
        return self._has_priors or self.gauge.size > 0

    def _prior(self, x):
        p = self.parameters
        if not self._beside_data:
            return np.zeros(len(x)), np.zeros(len(x))
        off = x - p.prior_mean
        along = self.gauge @ (self.gauge.T @ x)
        gradient = p.prior_precision * off + along
        return 0.5 * (p.prior_precision * off**2 + along * x), gradient

    def value_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient at x. Communication: one pass."""
        rows = self.passes(block_value_gradient, x)
        value, gradient = rows[:, 0].sum(), self._scatter(rows[:, 1:])
        if not self._beside_data:
            return value, gradient
        prior, slope = self._prior(x)
        return value + prior.sum(), gradient + slope

    def point(self, x: np.ndarray) -> Point:
        """Everything at x. Communication: one pass."""
        rows = self.passes(block_curvature, x)
        npool, n = self.index.shape
        fisher, hessian = np.split(rows[:, 1 + n :], 2, axis=1)
        return Point(
            x,
            rows[:, 0],
            rows[:, 1 : 1 + n],
            fisher.reshape(npool, n, n),
            hessian.reshape(npool, n, n),
        )

    def release(self) -> None:
        """Let the samples go: what was found at points stays, no pass can follow."""
        self.passes = _released

    def _scatter(self, per_pool):
        n = self.parameters.number
        return np.bincount(self.index.ravel(), weights=per_pool.ravel(), minlength=n)

    def value(self, at: Point) -> np.ndarray:
        """Value of each independent block."""
        prior, _ = self._prior(at.x)
        return np.bincount(
            self.pool_label, weights=at.pool_value, minlength=self.nblocks
        ) + np.bincount(self.label, weights=prior, minlength=self.nblocks)

    def gradient(self, at: Point) -> np.ndarray:
        """Gradient, priors included."""
        return self._prior(at.x)[1] + self._scatter(at.pool_gradient)

    def matrix(self, at: Point, hessian: np.ndarray | bool):
        """Fisher matrix, or the Hessian in the blocks where `hessian` is True."""
        chosen = np.zeros(max(self.nblocks, 1), bool)  # one block without parameters
        chosen[: self.nblocks] = hessian
        pick = chosen[self.pool_label]
        blocks = np.where(pick[:, None, None], at.pool_hessian, at.pool_fisher)
        matrix = assemble(self.index, blocks, self.parameters.prior_precision)
        if self.gauge.shape[1]:
            gauge = sparse.csc_matrix(self.gauge)
            matrix = (matrix + gauge @ gauge.T).tocsc()
        return matrix


def _released(*_):
    raise RuntimeError("`Objective.passes`: the samples were released.")
