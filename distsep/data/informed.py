"""What is known of each sample, where no two have noise of one shape.

A band may be there and say nothing: its variance is huge, or its inverse covariance has
no full rank. Pure numpy; a few products for each sample, once per run.
"""

from typing import Any, NamedTuple

import numpy as np

from distsep.data.noise import Noise
from distsep.data.samples import marginalise_missing, rows

# A smaller pivot of A^T N^-1 A, scaled to a unit diagonal, is rounding. That of A^T A
# must be larger, or the laws are at fault and not the noise.
_NO_PIVOT = 1e-12
_PIVOT_OF_LAWS = 1e-11
_TOGETHER = 4096  # samples that are looked at together: they stay in cache
# Of the largest eigenvalue of an inverse covariance of unit diagonal.
_NO_EIGENVALUE = 1e-12


class Informed(NamedTuple):
    """What is known of the samples of a part, `(group, pix)`; None: nothing special.

    Attributes:
        number: Numbers that a sample has: the dimensions of its inverse covariance.
        tells: Whether its weights tell its amplitudes apart.
    """

    number: np.ndarray | None = None
    tells: np.ndarray | None = None

    @property
    def as_seen(self) -> bool:
        """Whether the bands that observed say all."""
        return self.number is None and self.tells is None


def informed(noise: Noise, seen: np.ndarray, A: np.ndarray, joint: bool) -> Informed:
    """Look at the noise of every sample.

    Args:
        noise: "pixel" or "dense_pixel".
        seen: `(row, group, pix)` True where the band observed.
        A: `(row, column)` mixing matrix at any parameters.
        joint: Whether Stokes parameters are fitted jointly.
    """
    size = np.linalg.norm(A, axis=0)
    A = A / np.where(size > 0, size, 1.0)
    lower = [(i, j) for i in range(A.shape[1]) for j in range(i + 1)]
    of_laws = _least_pivot(_products(A, lower).sum(1), lower)
    if not of_laws > _PIVOT_OF_LAWS:
        return Informed()
    if noise.kind == "pixel":
        tells = _by_weights(rows(noise.shape, joint), seen, A, lower)
        return Informed(None, None if tells is None or tells.all() else tells)
    invN = dense_rows(noise, seen, joint)
    NA = np.einsum("rsgp,sc->rcgp", invN, A)
    entries = [np.einsum("r,rgp->gp", A[:, i], NA[:, j]) for i, j in lower]
    tells = _least_pivot(np.stack(entries), lower) >= _NO_PIVOT
    number = _dimensions(invN)
    return Informed(
        None if (number == seen.sum(0)).all() else number,
        None if tells.all() else tells,
    )


def dense_rows(noise: Noise, seen: np.ndarray, joint: bool) -> np.ndarray:
    """Inverse covariances `(row, row, group, pix)`, missing bands marginalised.

    Args:
        noise: "dense_pixel".
        seen: `(row, group, pix)` True where the band observed.
        joint: Whether Stokes parameters are fitted jointly.
    """
    shape = np.moveaxis(noise.shape, 0, 2)
    nfreq, _, nstokes, npix = shape.shape
    if joint:
        whole = np.zeros((nfreq, nstokes, nfreq, nstokes, npix))
        for k in range(nstokes):
            whole[:, k, :, k] = shape[:, :, k]
        shape = whole.reshape(nfreq * nstokes, nfreq * nstokes, 1, npix)
    flat = shape.reshape(*shape.shape[:2], -1)
    return marginalise_missing(flat, seen.reshape(len(seen), -1)).reshape(shape.shape)


def _products(A: np.ndarray, lower: list) -> np.ndarray:
    """`(entry, row)`: what a weight of a row adds to A^T N^-1 A."""
    return np.stack([A[:, i] * A[:, j] for i, j in lower])


def _by_weights(
    weight: np.ndarray, seen: np.ndarray, A: np.ndarray, lower: list
) -> np.ndarray | None:
    """Whether weights tell the amplitudes of each sample apart; None: all do."""
    # No pivot is below that of A, times the smallest weight over the largest.
    least = np.linalg.eigvalsh(A.T @ A)[0] * weight.min(initial=np.inf)
    if seen.all() and least > _NO_PIVOT * weight.max(initial=0.0):
        return None
    _, ngroup, npix = weight.shape
    products, tells = _products(A, lower), np.empty((ngroup, npix), bool)
    for g in range(ngroup):
        for start in range(0, npix, _TOGETHER):
            at = np.s_[g, start : start + _TOGETHER]
            some = np.where(seen[:, *at], weight[:, *at], 0.0)
            tells[at] = _least_pivot(products @ some, lower) >= _NO_PIVOT
    return tells


def _least_pivot(entries: np.ndarray, lower: list) -> Any:
    """Smallest pivot of symmetric matrices, scaled to a unit diagonal; 0 if it is zero.

    Args:
        entries: `(entry, ...)` lower triangles.
        lower: Row and column of each entry.
    """
    m = dict(zip(lower, entries, strict=True))
    n = lower[-1][0] + 1
    scale = [np.where(m[i, i] > 0, m[i, i], np.inf) ** -0.5 for i in range(n)]
    least, factor = np.inf, {}
    for j in range(n):
        for i in range(j, n):
            x = m[i, j] * scale[i] * scale[j]
            for k in range(j):
                x = x - factor[i, k] * factor[j, k]
            factor[i, j] = x
        least = np.minimum(least, factor[j, j])
        root = np.sqrt(np.where(factor[j, j] > 0, factor[j, j], np.inf))
        for i in range(j, n):
            factor[i, j] = factor[i, j] / root
    return least


def _dimensions(invN: np.ndarray) -> np.ndarray:
    """Rank of `(row, row, group, pix)` inverse covariances."""
    size = np.sqrt(np.einsum("rrgp->rgp", invN))
    scale = np.where(size > 0, 1 / np.where(size > 0, size, 1.0), 0.0)
    unit = np.moveaxis(invN * scale[:, None] * scale, (2, 3), (0, 1))
    values = np.linalg.eigvalsh(unit)
    return (values > _NO_EIGENVALUE * values[..., -1:]).sum(-1)
