r"""Inverses of matrices over patches that all meet, where a sparse factor is full.

The patches of one kind share no pool, so the part of the matrix within a kind is
diagonal. The kind of most patches is eliminated exactly; the Schur complement of the
others, full anyway, is inverted as a dense matrix by LAPACK:

$$ M = \begin{pmatrix} D & C \\ C^T & B \end{pmatrix}, \quad S = B - C^T D^{-1} C,
   \quad \mathrm{diag}(M^{-1}) = \left( D^{-1} + \mathrm{diag}(X S^{-1} X^T),\;
   \mathrm{diag}(S^{-1}) \right), \quad X = D^{-1} C . $$
"""

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sparse
from scipy.linalg import solve_triangular

# Largest complement that is inverted: 16 bytes x 6000^2 = 0.6 GB, and its inverse.
LARGEST = 6000
_ROWS = 1024  # that are multiplied at once


def apart(matrix: Any) -> np.ndarray:
    """True for rows of which no two are coupled: greedily, those of fewest links.

    Args:
        matrix: Sparse, symmetric.
    """
    matrix = matrix.tocsr()
    links = np.diff(matrix.indptr)
    out, free = np.zeros(len(links), bool), np.ones(len(links), bool)
    for row in np.argsort(links, kind="stable"):
        if free[row]:
            out[row] = True
            free[matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]] = False
    return out


def split(matrix: Any) -> np.ndarray | None:
    """Return the rows to eliminate, or None if the others are too many to be dense."""
    first = apart(matrix)
    return first if np.count_nonzero(~first) <= LARGEST else None


class Schur:
    """A sparse symmetric matrix in two parts, one of them diagonal; real or complex.

    It does what `curvature.Factor` does, for one block.

    Attributes:
        first: True for the rows of the diagonal part.

    Args:
        matrix: The matrix.
        first: What `split` returns.

    References:
        Zhang (2005), The Schur Complement and Its Applications, section 1.1.
    """

    def __init__(self, matrix: Any, first: np.ndarray):
        matrix = matrix.tocsr()
        size = np.abs(matrix.diagonal())
        self.first, self.scale = first, np.where(size > 0, size, 1.0) ** -0.5
        S = sparse.diags_array(self.scale)
        scaled = (S @ matrix @ S).tocsr()
        top, bottom = np.flatnonzero(first), np.flatnonzero(~first)
        self._D = scaled.diagonal()[top]
        coupling = scaled[top][:, bottom]
        self._X = (sparse.diags_array(1 / self._D) @ coupling).tocsr()
        self._S = scaled[bottom][:, bottom].toarray() - (coupling.T @ self._X).toarray()

    @cached_property
    def _root(self) -> np.ndarray | None:
        """Cholesky factor of the complement, if the matrix is positive definite."""
        if not (self._D.real > 0).all():
            return None
        try:
            return np.linalg.cholesky(self._S.real)
        except np.linalg.LinAlgError:
            return None

    @property
    def _lower(self) -> np.ndarray:
        if self._root is None:
            raise FloatingPointError(
                "`separate`: a matrix of curvatures is not positive definite and has "
                "no whitened coordinates. Use `solver='newton'`, or give `priors`."
            )
        return self._root

    @property
    def positive(self) -> bool:
        """Whether the (real part of the) matrix is positive definite."""
        return self._root is not None

    def whiten_gradient(self, g: np.ndarray) -> np.ndarray:
        """Return W^T g, x = W z with x^T M x = z^T z."""
        g, out, root = self.scale * g, np.empty_like(g), np.sqrt(self._D)
        out[self.first] = y = g[self.first] / root
        rest = g[~self.first] - self._X.T @ (root * y)
        out[~self.first] = solve_triangular(self._lower, rest, lower=True)
        return out

    def unwhiten(self, z: np.ndarray) -> np.ndarray:
        """Return x = W z."""
        out = np.empty_like(z)
        y = solve_triangular(self._lower, z[~self.first], trans="T", lower=True)
        out[~self.first] = y
        out[self.first] = z[self.first] / np.sqrt(self._D) - self._X @ y
        return self.scale * out

    def solve(self, b: np.ndarray) -> np.ndarray:
        """Return M^-1 b, for a vector or the columns of a matrix.

        M need not be positive definite.
        """
        along = (slice(None),) + (None,) * (b.ndim - 1)
        scale, D = self.scale[along], self._D[along]
        b, out = scale * b, np.empty_like(b)
        out[~self.first] = y = np.linalg.solve(
            self._S, b[~self.first] - self._X.T @ b[self.first]
        )
        out[self.first] = b[self.first] / D - self._X @ y
        return scale * out

    def inverse_diagonal(self) -> np.ndarray:
        """Diagonal of the inverse."""
        Z = np.linalg.inv(self._S)
        out = np.empty(len(self.first), Z.dtype)
        out[~self.first] = np.diagonal(Z)
        inside = 1 / self._D
        for start in range(0, len(inside), _ROWS):
            X = self._X[start : start + _ROWS]
            added = X.multiply(X @ Z).sum(1)
            inside[start : start + _ROWS] += np.asarray(added).ravel()
        out[self.first] = inside
        return out * self.scale**2
