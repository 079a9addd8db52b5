"""Fewer nodes for long tables: Gauss rules of the samples, interval by interval.

Measured bandpasses have 100 to 1e4 samples, and emission laws are smooth: over a short
interval of ln nu three nodes that share six moments of the samples integrate a law as
well as all of them. Numpy, once per band.
"""

import numpy as np

LONG = 32
"""Tables up to this length are left as they are."""

_NODES = 3
_STEP = 0.03  # in ln nu, where the transmission matters
_FAR_STEP = 0.2  # where it is below _FAR of the maximum
_FAR = 1e-4


def compress(
    nu: np.ndarray, weight: np.ndarray, fineness: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights that integrate smooth functions as the samples do.

    Args:
        nu: Frequencies [GHz], increasing.
        weight: Transmission times width of each sample.
        fineness: Divides the intervals, for laws with narrow features.

    Returns:
        The same sum of any smooth law to about 1e-9 of it; the samples themselves
        where they are few or where their signs differ.
    """
    if len(nu) <= LONG:
        return nu, weight
    parts = [_gauss(nu[i], weight[i]) for i in _intervals(nu, weight, fineness)]
    return (
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
    )


def _intervals(nu: np.ndarray, weight: np.ndarray, fineness: int) -> list[np.ndarray]:
    """Samples that are near in ln nu and of one sign, in order of the first of each."""
    density = np.abs(weight) / np.gradient(nu)
    far = density < _FAR * density.max()
    step = np.where(far, _FAR_STEP, _STEP) / fineness
    steps = np.floor(np.log(nu / nu[0]) / step)
    label = np.stack([steps, far, np.sign(weight)])
    _, first, member = np.unique(label, axis=1, return_index=True, return_inverse=True)
    members = np.argsort(member, kind="stable")
    groups = np.split(members, np.flatnonzero(np.diff(member[members])) + 1)
    return [groups[i] for i in np.argsort(first)]


def _gauss(nu: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Gauss rule of a discrete measure, by the recurrence of its polynomials.

    References:
        Golub & Welsch (1969), Math. Comp. 23, 221.
    """
    total = weight.sum()
    if len(nu) <= _NODES or total == 0:
        return nu, weight
    middle, half = (nu[0] + nu[-1]) / 2, (nu[-1] - nu[0]) / 2
    x, w = (nu - middle) / half, weight / total
    before, now = np.zeros_like(x), np.ones_like(x)
    diagonal, offset = [], []
    for _ in range(_NODES):
        diagonal.append(np.sum(w * x * now**2))
        after = (x - diagonal[-1]) * now - (offset[-1] if offset else 0) * before
        norm = np.sqrt(np.sum(w * after**2))
        before, now = now, after / norm
        offset.append(norm)
    matrix = np.diag(diagonal) + np.diag(offset[:-1], 1) + np.diag(offset[:-1], -1)
    places, vectors = np.linalg.eigh(matrix)
    return middle + half * places, total * vectors[0] ** 2
