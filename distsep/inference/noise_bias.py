r"""The noise bias of the profile likelihood where the noise is not the one assumed.

With the noise $N$ assumed and $N_{true}$ there, the mean over the noise of $-\ln L$
contains $\tfrac12 \sum_p tr[Q(\beta) N_{true,p}]$, $Q = N^{-1} - N^{-1} A (A^T N^{-1}
A)^{-1} A^T N^{-1}$: a constant if the two have one frequency shape, else a slope in
beta. It is the likelihood of samples whose sum of squares is $\sum_p N_{true,p}$, so
it is taken off as the sums of such samples, with all derivatives.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from distsep.inference.model import Model
from distsep.inference.reduce import ReducedData


class Corrected:
    """Sums over the samples, less those that the noise alone gives on average.

    Fisher's matrix is left as it is: it stands for the variance of the score.

    Args:
        sums: `(kernel, x) -> (pool, k)` of the data.
        noise: The same of the noise.
        number: Parameters of a pool.
    """

    def __init__(self, sums: Callable, noise: Callable, number: int):
        self._sums, self._noise, self._number = sums, noise, number

    def __call__(self, kernel: Callable, x) -> np.ndarray:
        """One pass. Communication: that of the data's sums."""
        n = self._number
        bias = np.array(self._noise(kernel, x))
        bias[:, 1 + n : 1 + n + n * n] = 0.0
        return self._sums(kernel, x) - bias


def noise_mistakes(noise_true: Any, nfreq: int, nstokes: int) -> list[str]:
    """Say what is wrong with the true noise; None: it is the one assumed."""
    if noise_true is None:
        return []
    try:
        ratio = np.asarray(noise_true, float)
    except (TypeError, ValueError):
        ratio = np.full((), np.nan)
    good = ratio.shape in ((nfreq,), (nfreq, nstokes)) and np.isfinite(ratio).all()
    if good and (ratio >= 0).all() and ratio.any():
        return []
    return [
        "`noise_true` should be the variance of each band over the one assumed, of "
        f"shape ({nfreq},) or ({nfreq}, {nstokes}), finite, none negative and not all "
        f"zero; got {noise_true!r}"
    ]


def noise_samples(
    noise_true: Any,
    plan: Any,
    model: Model,
    *,
    nstokes: int,
    template: tuple[int, ...],
    ntemplate: int,
    total: Callable,
    single: Callable,
) -> ReducedData:
    """Make the samples that the noise is on average.

    Args:
        noise_true: Variance of each band over the one assumed, `(freq,)` or `(freq,
            stokes)`, without `noise_mistakes`.
        plan: Pools of the samples; their noise has common shapes.
        model: Their tables.
        nstokes: Number of Stokes parameters.
        template: For each global term its row of the templates.
        ntemplate: Number of templates.
        total: Sum of an array over the ranks.
        single: Puts arrays on the first local device.

    Raises:
        ValueError: every pixel has its own noise shape.

    Communication: one allreduce of a number per pool and Stokes group.
    """
    white = plan.classes.white
    if white is None:
        raise ValueError(
            "`separate(noise_true=...)`: every pixel has its own noise shape over the "
            "bands; the correction needs a common one."
        )
    ratio = np.asarray(noise_true, float)
    if ratio.ndim == 1:
        ratio = np.repeat(ratio[:, None], nstokes, axis=1)
    # Row by group, as the data are.
    ratio = ratio.reshape(-1, 1) if plan.joint else ratio
    npool = plan.pools.number
    count = np.zeros((npool, plan.ngroup))
    for part in range(plan.source.number):
        for g, pool in enumerate(plan.sample(part)):
            count[:, g] += np.bincount(pool[pool >= 0], minlength=npool)
    count = total(count)
    W = np.asarray(white)[np.asarray(plan.pools.noise_class)]
    W = W[:, :, None] * np.eye(W.shape[1]) if W.ndim == 2 else W
    back = np.linalg.pinv(W)
    squares = np.zeros(W.shape)
    for g, root in enumerate(np.sqrt(ratio.T)):
        half = W @ (root[:, None] * back)
        squares += count[:, g, None, None] * (half @ half.swapaxes(1, 2))
    values, vectors = np.linalg.eigh(squares)
    rows = np.sqrt(np.clip(values, 0, None))[:, :, None] * vectors.swapaxes(1, 2)
    roots = np.zeros((npool, W.shape[1] + ntemplate, W.shape[1] + ntemplate))
    roots[:, : W.shape[1], : W.shape[1]] = rows
    return ReducedData(roots.reshape(npool, -1), model, template, single)
