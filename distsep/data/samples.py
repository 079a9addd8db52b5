"""From the maps of an observation to the samples the likelihood runs over.

Which samples are used, and which share the shape of their noise. A *row* is a band (or
a band and Stokes parameter, where Stokes parameters are fitted jointly); a *group* is a
Stokes parameter fitted on its own (or the one group of all, jointly). Pure numpy.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from distsep.data.noise import Noise

# Patterns of missing bands that are looked for one by one.
_COMMON = 8
# Of the largest singular value, or eigenvalue: below is zero.
_RANK = 1e-12


def rows(x: np.ndarray, joint: bool) -> np.ndarray:
    """`(freq, stokes, pix)` -> `(row, group, pix)`."""
    # No length is left to guess: a rank may have no pixels.
    return x.reshape(math.prod(x.shape[:-1]), 1, x.shape[-1]) if joint else x


def groups(x: np.ndarray, nstokes: int, joint: bool) -> np.ndarray:
    """`(comp [x stokes], group, pix)` -> `(comp, stokes, pix)`."""
    return x.reshape(len(x) // nstokes, nstokes, x.shape[-1]) if joint else x


@dataclass(frozen=True)
class NoiseClasses:
    """The distinct noise shapes of a data set, numbered alike on every rank.

    Attributes:
        number: From this rank's numbers of the patterns of missing bands to classes.
        white: `(class, row)` or `(class, row, row)`: W with W^T W = invN / weight;
            None where every sample has its own noise and nothing is whitened.
        scale: `(group,)` weight of each group beside the pixel's.
    """

    number: np.ndarray
    white: np.ndarray | None
    scale: np.ndarray


class Patterns:
    """The patterns of missing bands met so far, numbered in the order they came."""

    def __init__(self, group_class: np.ndarray):
        self._group_class = group_class
        self._number: dict[bytes, int] = {}

    def add(self, observed: np.ndarray) -> np.ndarray:
        """Number the pattern of each sample, `(row, group, pix)` -> `(group, pix)`."""
        packed = np.packbits(observed, axis=0)
        out = np.empty(observed.shape[1:], np.uint16)
        for g, c in enumerate(self._group_class):
            one = np.ascontiguousarray(packed[:, g].T)
            found, inverse = _distinct(one)
            keys = [bytes([c]) + row.tobytes() for row in found]
            numbers = [self._number.setdefault(k, len(self._number)) for k in keys]
            if len(self._number) > np.iinfo(np.uint16).max:
                raise ValueError(
                    "more than 65535 patterns of missing bands: give the noise as "
                    "`noise_variance` maps that are infinite where a band is missing."
                )
            out[g] = np.array(numbers, np.uint16)[inverse] if len(one) else 0
        return out

    def usable(
        self, A: np.ndarray, classes: "NoiseClasses"
    ) -> tuple[np.ndarray, np.ndarray]:
        """How many numbers each pattern has, and whether they tell its amplitudes.

        They do where its rows have the rank of all: not where a component is in no band
        that observed, or one Stokes parameter of several that are fitted jointly.

        Args:
            A: `(row, column)` mixing matrix at any parameters.
            classes: Of these patterns.
        """
        nrow, ncolumn = A.shape
        seen = np.array([_bands(k, nrow) for k in self._number], bool)
        seen = seen.reshape(-1, nrow)
        number, own = seen.sum(1), seen[:, :, None] * A
        if classes.white is not None and classes.white.ndim == 3:
            # Covariances may have no inverse: what is left of a row is its projection.
            span = np.array([_span(W) for W in classes.white]).reshape(-1, nrow, nrow)
            number = np.einsum("kij,kij->k", span, span).round().astype(int)
            number, own = number[classes.number], (span @ A)[classes.number]
        return number, (number >= ncolumn) & (_rank(own, A) == _rank(A, A))

    def classes(self, noise: Noise, joint: bool, nrow: int, allgather) -> NoiseClasses:
        """Number the noise classes of all ranks.

        Communication: one allgather of the distinct patterns.
        """
        if noise.kind.endswith("pixel"):
            return NoiseClasses(
                np.zeros(len(self._number), int), None, np.ones(len(self._group_class))
            )
        shapes, scale, _ = _shapes(noise, joint)
        every = sorted(set().union(*allgather(list(self._number))))
        place = {k: i for i, k in enumerate(every)}
        white = [_whitener(shapes[k[0]], _bands(k, nrow)) for k in every]
        return NoiseClasses(
            np.array([place[k] for k in self._number], int),
            np.array(white).reshape(len(every), *shapes.shape[1:]),
            scale,
        )


def _distinct(x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Distinct rows, and the place of each row among them.

    Those that are met first are compared with all that are left: most samples lack no
    band, or the same ones, and sorting them takes a hundred times as long.
    """
    place, left = np.zeros(len(x), np.intp), np.arange(len(x))
    found: list[np.ndarray] = []
    while len(left) and len(found) < _COMMON:
        same = (x[left] == x[left[0]]).all(1)
        place[left[same]] = len(found)
        found.append(x[left[0]])
        left = left[~same]
    if len(left):
        rest, at = np.unique(x[left], axis=0, return_inverse=True)
        place[left] = len(found) + at.ravel()
        found.extend(rest)
    return found, place


def patterns(noise: Noise, joint: bool, ngroup: int) -> Patterns:
    """Start a list of patterns; groups that share a noise shape share theirs."""
    if noise.kind.endswith("pixel"):
        return Patterns(np.zeros(ngroup, int))
    return Patterns(_shapes(noise, joint)[2])


def _span(W: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span those of a matrix, and zeros."""
    _, values, rows = np.linalg.svd(W)
    return np.where(values > _RANK * values.max(initial=0.0), 1.0, 0.0)[:, None] * rows


def _rank(part: np.ndarray, A: np.ndarray) -> Any:
    """Rank of parts (..., row, column) of A, whatever the size of their columns."""
    norm = np.linalg.norm(part, axis=-2, keepdims=True)
    there = norm > _RANK * np.linalg.norm(A, axis=0)  # and not what rounding left
    return np.linalg.matrix_rank(
        np.where(there, part / np.where(there, norm, 1.0), 0.0), rtol=_RANK
    )


def _bands(key: bytes, nrow: int) -> np.ndarray:
    bits = np.frombuffer(key[1:], np.uint8)
    return np.unpackbits(bits, count=nrow).astype(bool)


def _shapes(noise: Noise, joint: bool):
    """Distinct shapes over rows, each group's scale and shape: Q and U may share."""
    a = noise.shape
    if noise.kind == "uniform":
        a = a.reshape(1, -1) if joint else a.T
    elif joint:
        nstokes, nfreq = a.shape[:2]
        whole = np.zeros((nfreq, nstokes, nfreq, nstokes))
        for k in range(nstokes):
            whole[:, k, :, k] = a[k]
        a = whole.reshape(1, nfreq * nstokes, nfreq * nstokes)
    shapes, scale, number = [], [], []
    for x in a:
        for i, y in enumerate(shapes):
            factor = x.sum() / y.sum()
            if np.allclose(x, factor * y, rtol=1e-14, atol=0):
                number.append(i)
                scale.append(factor)
                break
        else:
            number.append(len(shapes))
            scale.append(1.0)
            shapes.append(x)
    return np.array(shapes), np.array(scale), np.array(number)


def _whitener(shape: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """W with W^T W = the inverse covariance of the bands that observed, 0 elsewhere."""
    if shape.ndim == 1:
        return np.where(seen, np.sqrt(shape), 0.0)
    there, out = np.diagonal(shape) > 0, np.zeros_like(shape)
    live, lost = np.flatnonzero(seen & there), np.flatnonzero(~seen & there)
    # Of a unit diagonal: what is rounding then is zero, and no information.
    scale = np.where(there, np.sqrt(np.where(there, np.diagonal(shape), 1.0)), 1.0)
    unit = shape / np.outer(scale, scale)
    invN = shape[np.ix_(live, live)]
    if len(lost):
        # Marginalise the missing bands: the inverse of the block of the covariance.
        half = _root(unit[np.ix_(lost, lost)], -0.5) @ unit[np.ix_(lost, live)]
        half = half * scale[live]
        invN = invN - half.T @ half
    root = _root(invN / np.outer(scale[live], scale[live]), 0.5) * scale[live]
    if root.any(1).all():
        # Of full rank: rows at right angles, of the matrix itself, round the least.
        values, vectors = np.linalg.eigh(invN)
        root = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T
    out[np.ix_(np.arange(len(live)), live)] = root
    return out


def _root(matrix: np.ndarray, power: float) -> np.ndarray:
    """W with W^T W = a matrix of about unit size, or for -0.5 its inverse.

    Directions that are zero stay so.
    """
    values, vectors = np.linalg.eigh(matrix)
    good = values > _RANK
    root = np.where(good, np.where(good, values, 1.0) ** power, 0.0)
    return root[:, None] * vectors.T


def marginalise_missing(invN: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Inverse covariance of the bands that observed, for each sample.

    Args:
        invN: `(row, row, sample)`.
        seen: `(row, sample)` True where the band observed.
    """
    out = np.array(invN)
    for p in np.flatnonzero(~seen.all(0)):
        W = _whitener(invN[..., p], seen[:, p])
        out[..., p] = W.T @ W
    return out
