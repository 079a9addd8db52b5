"""The second pass: amplitudes and chi2 of every pixel at the best parameters."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from distsep.data.observation import Observation
from distsep.data.samples import groups, rows
from distsep.inference.passes import Part, Survey
from distsep.inference.pixels import (
    WithCovariance,
    block_amplitude_errors,
    block_amplitudes,
)

# Samples whose residuals are taken at once: their A stay in cache.
_TOGETHER = 2**10


class Maps(NamedTuple):
    """Maps of one part.

    Attributes:
        observation: Its pixels.
        s: Amplitudes `(comp, stokes, pix)` [uK_CMB]; NaN where not used.
        chi2: `(stokes, pix)`. Fitted jointly, a pixel has one for all Stokes
            parameters: it stands in the first, the others are NaN.
        covariance: `(stokes, comp, comp, pix)` [uK_CMB^2], or None.
        residuals: `(freq, stokes, pix)` [uK_CMB], or None.
        block_chi2: `(block,)` sums.
    """

    observation: Observation
    s: np.ndarray
    chi2: np.ndarray
    covariance: np.ndarray | None
    residuals: np.ndarray | None
    block_chi2: np.ndarray


class SecondPass:
    """Amplitudes and what belongs to them, at the best parameters.

    Args:
        survey: The samples of this rank.
        tables: At the best parameters.
        plan: Pools of the samples.
        nstokes: Number of Stokes parameters.
        covariance: `(pool, n, n)` covariance of the parameters of each pool, if
            amplitude covariances are wanted.
        model_rows: `(pool, row, comp)` A and `(pool, row, term)` F alpha of each pool,
            not whitened, if residual maps are wanted.
        noise: Count the noise to the amplitude covariances, beside what the parameters'
            uncertainty adds.
    """

    def __init__(
        self,
        survey: Survey,
        tables,
        plan,
        nstokes,
        covariance=None,
        model_rows=None,
        *,
        noise: bool = True,
    ):
        self._survey, self._plan, self._nstokes = survey, plan, nstokes
        self._tables, self._kernel = tables, block_amplitudes
        if covariance is not None:
            self._tables, self._kernel = (
                WithCovariance(
                    tables, covariance, np.full(len(covariance), 1.0 * noise)
                ),
                block_amplitude_errors,
            )
        self._rows = model_rows
        self._ncolumn = tables.A.shape[-1]

    def __iter__(self) -> Iterator[Maps]:
        """Go through the parts. Communication: none."""
        ngroup, joint = self._plan.ngroup, self._plan.joint
        for part, columns, group_chi2, more, block_chi2 in self._found():
            chi2 = group_chi2
            if ngroup != self._nstokes:
                chi2 = np.full((self._nstokes, columns.shape[-1]), np.nan)
                chi2[:ngroup] = group_chi2
            yield Maps(
                part.observation,
                groups(columns, self._nstokes, joint),
                chi2,
                self._covariance(more),
                self._residuals(part, columns),
                block_chi2,
            )

    def _found(self):
        """Part, amplitudes, chi2 and covariances `(k, group, pix)`, chi2 by block."""
        ncolumn = self._ncolumn
        if self._kernel is block_amplitudes:
            found = self._survey.amplitudes(self._tables)
            if found is not None:
                for part, maps, block_chi2 in found:
                    yield part, maps[:ncolumn], maps[ncolumn], maps[:0], block_chi2
                return
        scale = self._plan.classes.scale
        for part, lanes in self._survey.outputs(self._kernel, self._tables):
            maps = _unpack(lanes, part, self._plan.ngroup)
            weight = part.observation.noise.weight
            root = np.sqrt(scale)[:, None] * np.sqrt(1.0 if weight is None else weight)
            root = np.where(root > 0, root, np.nan)
            # Lanes are whitened by the root of their weight: the amplitudes too.
            columns, more = maps[:ncolumn] / root, maps[ncolumn + 1 :] / root**2
            # Empty lanes hold zeros.
            yield part, columns, maps[ncolumn], more, lanes[:, ncolumn].sum(axis=1)

    def _covariance(self, maps: np.ndarray) -> np.ndarray | None:
        """`(column^2, group, pix)` -> `(stokes, comp, comp, pix)`."""
        if not len(maps):
            return None
        n, nstokes = self._ncolumn, self._nstokes
        maps = maps.reshape(n, n, *maps.shape[1:])
        if not self._plan.joint:
            return np.moveaxis(maps, 2, 0)
        ncomp = n // nstokes
        maps = maps[:, :, 0].reshape(ncomp, nstokes, ncomp, nstokes, -1)
        return np.stack([maps[:, k, :, k] for k in range(nstokes)])

    def _residuals(self, part: Part, columns: np.ndarray) -> np.ndarray | None:
        """Residuals d - A s - F alpha [uK_CMB] by band, NaN where not observed."""
        if self._rows is None:
            return None
        d = rows(part.observation.d, self._plan.joint).astype(float)
        t = part.templates[list(self._survey.template)]
        out = np.full(d.shape, np.nan)
        # A few samples at a time, for each has its own A here; unused ones are NaN.
        for g, pool in enumerate(self._plan.sample_pool(part)):
            for at in range(0, len(pool), _TOGETHER):
                i = slice(at, at + _TOGETHER)
                model = np.zeros((len(d), len(pool[i])))
                for table, by in zip(self._rows, (columns, t), strict=True):
                    # Column by column: a product of many axes has an order of sums
                    # that depends on how many samples there are.
                    for c, row in enumerate(by[:, g, i]):
                        model += table[pool[i], :, c].T * row
                out[:, g, i] = np.where(pool[i] < 0, np.nan, d[:, g, i] - model)
        return out.reshape(part.observation.d.shape)


def _unpack(lanes: np.ndarray, part: Part, ngroup: int) -> np.ndarray:
    """`(block, k, lane)` -> `(k, group, pix)`, NaN where a sample is not used."""
    nblocks, k, _ = lanes.shape
    block = part.layout.block
    if part.layout.index is None:
        out = lanes
    else:
        out = np.full((nblocks, k, ngroup * block), np.nan)
        for b, index in enumerate(part.layout.index):
            live = np.flatnonzero(index >= 0)
            out[b][:, index[live]] = lanes[b][:, live]
    out = out.reshape(nblocks, k, ngroup, block)
    whole = np.moveaxis(out, 0, 2).reshape(k, ngroup, nblocks * block)
    return whole[..., : part.observation.npix]
