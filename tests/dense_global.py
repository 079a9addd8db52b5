"""The full system with global terms: every pixel and every unknown in one matrix.

numpy only. A sample is one pixel and Stokes parameter, or one pixel where these are
fitted jointly; its rows are its bands. The unknowns are the amplitudes of all samples,
then the coefficients shared by the sky.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

STEP = 1e-25  # of the complex step


class System(NamedTuple):
    """A sky, and the model fitted to it.

    Attributes:
        d: `(sample, row)` data; zero where a band did not observe.
        invN: `(sample, row, row)`, likewise.
        mix: `beta -> (row, comp)`, or `(sample, row, comp)`.
        shared: `beta -> (sample, row, coefficient)` what the coefficients multiply.
        precision: `(coefficient,)` of priors with mean 0.
    """

    d: np.ndarray
    invN: np.ndarray
    mix: Callable
    shared: Callable
    precision: np.ndarray

    def design(self, beta):
        """The matrix of the linear unknowns: `(sample, row, unknown)`."""
        A, F = self.mix(beta), self.shared(beta)
        n, nrow, ncoefficient = F.shape
        ncomp = A.shape[-1]
        X = np.zeros((n, nrow, n * ncomp + ncoefficient), (A[..., :1, :1] + F).dtype)
        for p in range(n):
            X[p, :, p * ncomp : (p + 1) * ncomp] = A if A.ndim == 2 else A[p]
        X[:, :, n * ncomp :] = F
        return X

    def local(self, beta):
        """Number of unknowns that are amplitudes of one sample."""
        return len(self.d) * self.mix(beta).shape[-1]


def _normal(system, X):
    """X^T N^-1 X, with the priors of the coefficients, and X^T N^-1."""
    n = X.shape[-1]
    flat = X.reshape(-1, n)
    NX = np.einsum("prs,psk->prk", system.invN, X).reshape(-1, n)
    diagonal = np.zeros(n)
    diagonal[n - len(system.precision) :] = system.precision
    return flat.T @ NX + np.diag(diagonal), NX.T, diagonal


def solve(system, beta):
    """All linear unknowns at given beta: amplitudes `(sample, comp)`, coefficients."""
    X = system.design(beta)
    M, XN, _ = _normal(system, X)
    found = np.linalg.solve(M, XN @ system.d.ravel())
    k = system.local(beta)
    return found[:k].reshape(len(system.d), -1), found[k:]


def minimum_norm(system, beta, cut=1e-9):
    """Where they are degenerate: the coefficients of least norm, and the null space.

    The amplitudes are eliminated from the full system; relative to the largest, an
    eigenvalue under `cut` is null.
    """
    X = system.design(beta)
    M, XN, _ = _normal(system, X)
    b, k = XN @ system.d.ravel(), system.local(beta)
    left = M[k:, :k] @ np.linalg.inv(M[:k, :k])
    S = M[k:, k:] - left @ M[:k, k:]
    values, vectors = np.linalg.eigh(S)
    live = values > cut * values[-1]
    V = vectors[:, live]
    return V @ ((V.T @ (b[k:] - left @ b[:k])) / values[live]), vectors[:, ~live]


def value(system, beta):
    """-ln(L x prior) at the best amplitudes and coefficients, no constant."""
    X = system.design(beta)
    M, XN, diagonal = _normal(system, X)
    found = np.linalg.solve(M, XN @ system.d.ravel())
    r = system.d - X @ found
    chi2 = np.einsum("pr,prs,ps->", r, system.invN, r)
    return 0.5 * (chi2 + (diagonal * found**2).sum())


def gradient(system, beta):
    """Of `value`, amplitudes and coefficients following: a complex step, no formula."""
    steps = [beta + 1j * STEP * unit for unit in np.eye(len(beta))]
    return np.array([value(system, b).imag for b in steps]) / STEP


class Errors(NamedTuple):
    """Covariances of (beta, coefficients), and how s answers to them.

    Attributes:
        hessian_inverse, fisher_inverse: Blocks of the inverses of the full matrices.
        covariance: H^-1 F H^-1.
        tangents: `(unknown of (beta, coefficients), sample, comp)` ds/dp.
        amplitudes: `(sample, comp, comp)`: noise, and what `covariance` adds.
    """

    hessian_inverse: np.ndarray
    fisher_inverse: np.ndarray
    covariance: np.ndarray
    tangents: np.ndarray
    amplitudes: np.ndarray


def errors(system, beta):
    """Errors at given beta from the Hessian over all unknowns, linear or not."""
    n, k = len(beta), system.local(beta)
    units = np.eye(n)

    def slope(at, unit):  # dX/dbeta along a unit vector, by a complex step
        return system.design(at + 1j * STEP * unit).imag / STEP

    X = system.design(beta)
    found = np.concatenate([x.ravel() for x in solve(system, beta)])
    Nr = np.einsum("prs,ps->pr", system.invN, system.d - X @ found)
    dX = [slope(beta, u) for u in units]
    J = np.concatenate([X, np.stack([x @ found for x in dX], -1)], -1)
    F = _normal(system._replace(precision=np.zeros(0)), J)[0]
    first = X.shape[-1]
    F[np.arange(k, first), np.arange(k, first)] += system.precision
    H = F.copy()
    h = 1e-4
    for i in range(n):
        mixed = np.einsum("pr,prk->k", Nr, dX[i])
        H[first + i, :first] -= mixed
        H[:first, first + i] -= mixed
        for j in range(n):
            bend = slope(beta + h * units[j], units[i])
            bend = (bend - slope(beta - h * units[j], units[i])) / (2 * h)
            H[first + i, first + j] -= np.einsum("pr,pr->", Nr, bend @ found)
    wanted = np.r_[first : first + n, k:first]
    Hinv = np.linalg.inv(H)[np.ix_(wanted, wanted)]
    Finv = np.linalg.inv(F)[np.ix_(wanted, wanted)]
    C = Hinv @ np.linalg.inv(Finv) @ Hinv
    tangents = -np.linalg.solve(H[:k, :k], H[:k, wanted]).T
    ncomp = k // len(system.d)
    T = tangents.reshape(len(wanted), len(system.d), ncomp)
    own = np.linalg.inv(H[:k, :k])
    s = np.stack(
        [own[p * ncomp :, p * ncomp :][:ncomp, :ncomp] for p in range(len(system.d))]
    )
    return Errors(Hinv, Finv, C, T, s + np.einsum("kpc,kl,lpe->pce", T, C, T))
