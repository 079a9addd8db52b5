"""Block-sparse symmetric matrices over the parameters: assemble, factor, invert.

A pool couples one patch of each kind, so the Fisher matrix and the Hessian of
thousands of patches are sparse. Host arrays and scipy's SuperLU only; every rank
computes the same from the same summed numbers.
"""

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

_LARGEST_PROBED = 64
# With a unit diagonal a smaller pivot is rounding, not information.
_NO_PIVOT = 1e-13


def assemble(index: np.ndarray, blocks: np.ndarray, diagonal: np.ndarray) -> Any:
    """Add the `(pool, kind, kind)` blocks of all pools into one matrix.

    Args:
        index: `(pool, kind)` parameter of each kind in each pool.
        blocks: Their symmetric matrices.
        diagonal: `(param,)` added to the diagonal (precision of the priors).
    """
    nkind, n = index.shape[1], len(diagonal)
    every = np.arange(n)
    rows = np.concatenate([np.repeat(index, nkind, axis=1).ravel(), every])
    columns = np.concatenate([np.tile(index, (1, nkind)).ravel(), every])
    entries = np.concatenate([blocks.ravel(), diagonal])
    return sparse.coo_matrix((entries, (rows, columns)), shape=(n, n)).tocsc()


def components(index: np.ndarray, number: int) -> np.ndarray:
    """Label the independent blocks: parameters that no pool couples are apart."""
    first = np.repeat(index[:, :1], index.shape[1], axis=1).ravel()
    links = sparse.coo_matrix(
        (np.ones(first.size), (first, index.ravel())), shape=(number, number)
    )
    return connected_components(links, directed=False)[1]


def places(label: np.ndarray) -> np.ndarray:
    """Place of each parameter within its independent block."""
    n, order = len(label), np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    place = np.empty(n, int)
    place[order] = np.arange(n) - np.repeat(starts, np.diff([*starts, n]))
    return place


class Factor:
    """`P H P^T = L D L^T` of a sparse symmetric matrix, scaled to unit diagonal.

    Attributes:
        bad: True for each parameter whose pivot is not positive: H is not positive
            definite in its block.

    Args:
        matrix: H, real or complex.
        label: Independent block of each row, for `inverse_diagonal`; None: one block.
    """

    def __init__(self, matrix: Any, label: np.ndarray | None = None):
        self._label = np.zeros(matrix.shape[0], int) if label is None else label
        diagonal = matrix.diagonal()
        scale = np.where(np.abs(diagonal) > 0, np.abs(diagonal), 1.0) ** -0.5
        self.scale = scale.real
        scaled = matrix.tocsc(copy=True)
        columns = np.repeat(self.scale, np.diff(scaled.indptr))
        scaled.data *= self.scale[scaled.indices] * columns
        try:
            self._lu = _lu(scaled)
        except RuntimeError:  # a pivot is exactly zero: make it a very small one
            tiny = sparse.diags_array(np.full(matrix.shape[0], _NO_PIVOT / 10))
            self._lu = _lu((scaled + tiny).tocsc())
        self._order = np.argsort(self._lu.perm_c)
        pivots = self._lu.U.diagonal()
        self.bad = np.zeros(matrix.shape[0], bool)
        symmetric = (self._lu.perm_r == self._lu.perm_c).all()
        self.bad[self._order] = ~(pivots.real > _NO_PIVOT) | (not symmetric)
        self._pivots = pivots

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Return H^-1 b, for a vector or the columns of a matrix."""
        s = self.scale if b.ndim == 1 else self.scale[:, None]
        return s * self._lu.solve(s * b)

    def unwhiten(self, z: np.ndarray) -> np.ndarray:
        """Return x = W z with x^T H x = z^T z; W couples only what H does."""
        y = self._triangle.solve(z[self._order] / self._root, trans="T")
        return self.scale * y[self._lu.perm_c]

    def whiten_gradient(self, g: np.ndarray) -> np.ndarray:
        """Return the gradient in whitened coordinates, W^T g with x = W z."""
        y = self._triangle.solve((self.scale * g)[self._order])
        return (y / self._root)[self._lu.perm_c]

    @cached_property
    def _triangle(self) -> Any:
        """L as a factor of its own: `spsolve_triangular` makes one at each call."""
        return _lu(self._lu.L.tocsc(), "NATURAL")

    @cached_property
    def _root(self) -> np.ndarray:
        """Of the pivots; no step goes where there is none."""
        good = self._pivots > _NO_PIVOT
        return np.where(good, np.sqrt(np.where(good, self._pivots, 1.0)), np.inf)

    @property
    def positive(self) -> bool:
        """Whether H is positive definite."""
        return not self.bad.any()

    def inverse_diagonal(self) -> np.ndarray:
        """Diagonal of the inverse, exactly; real or complex."""
        size = np.bincount(self._label).max(initial=0)
        if size <= _LARGEST_PROBED:
            return self._probed_diagonal(self._label, size)
        return self._selected_diagonal()

    def _probed_diagonal(self, label, size):
        """One solve per place in a block serves all independent blocks at once."""
        n, place = len(label), places(label)
        unit = np.zeros((n, size), self._pivots.dtype)
        unit[np.arange(n), place] = 1
        return self.solve(unit)[np.arange(n), place]

    def _selected_diagonal(self):
        """Entries of the inverse on the pattern of L (Takahashi 1973), backwards."""
        L = self._lu.L.tocsc()
        L.sort_indices()
        n = L.shape[0]
        rows, values, diagonal = [None] * n, [None] * n, np.empty(n, L.dtype)
        for j in range(n - 1, -1, -1):
            span = slice(L.indptr[j], L.indptr[j + 1])
            index, column = L.indices[span], L.data[span]
            index, column = index[index > j], column[index > j]
            Z = np.zeros((len(index), len(index)), L.dtype)
            for a, i in enumerate(index):
                Z[a, a] = diagonal[i]
                later = index[a + 1 :]
                at = np.searchsorted(rows[i], later)
                Z[a + 1 :, a] = Z[a, a + 1 :] = values[i][at]
            rows[j], values[j] = index, -Z @ column
            diagonal[j] = 1 / self._pivots[j] - column @ values[j]
        return self.scale**2 * diagonal[self._lu.perm_c]


def _lu(matrix, order="MMD_AT_PLUS_A"):
    return splu(
        matrix,
        permc_spec=order,
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def sandwich_diagonal(hessian, fisher, invert) -> tuple[np.ndarray, np.ndarray]:
    """Return the diagonals of H^-1 and of H^-1 F H^-1.

    The second is minus the derivative of the first along F, taken with a complex
    step: diag((H + i e F)^-1) = diag(H^-1) - i e diag(H^-1 F H^-1), exact to rounding.

    Args:
        hessian: H.
        fisher: F.
        invert: `Factor`, or what else gives the diagonal of the inverse of a matrix.
    """
    step = 1e-30
    inverse = invert((hessian + 1j * step * fisher).tocsc()).inverse_diagonal()
    return inverse.real, -inverse.imag / step
