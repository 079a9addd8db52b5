"""The second pass: amplitudes and chi2 of every pixel at the best parameters."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from distsep.data.observation import Observation
from distsep.data.samples import groups
from distsep.inference.likelihood import block_amplitudes
from distsep.inference.passes import Part, Survey


class Maps(NamedTuple):
    """Maps of one part.

    Attributes:
        observation: Its pixels.
        s: Amplitudes `(comp, stokes, pix)` [uK_CMB]; NaN where not used.
        chi2: `(stokes, pix)`. Fitted jointly, a pixel has one for all Stokes
            parameters: it stands in the first, the others are NaN.
        covariance: Lower triangle of (A^T N^-1 A)^-1 `(k, stokes or 1, pix)`.
        block_chi2: `(block,)` sums.
    """

    observation: Observation
    s: np.ndarray
    chi2: np.ndarray
    covariance: np.ndarray
    block_chi2: np.ndarray


def amplitude_maps(
    survey: Survey, tables, nstokes: int, joint: bool, scale
) -> Iterator[Maps]:
    """Yield amplitudes and chi2, part by part.

    Args:
        survey: The samples of this rank.
        tables: At the best parameters.
        nstokes: Number of Stokes parameters.
        joint: Whether they are fitted jointly.
        scale: `(group,)` weight of each Stokes group, see `NoiseClasses`.

    Communication: none.
    """
    ngroup, ncolumn = 1 if joint else nstokes, tables.A.shape[-1]
    for part, lanes in survey.outputs(block_amplitudes, tables):
        maps = _unpack(lanes, part, ngroup)
        weight = part.observation.noise.weight
        root = np.sqrt(scale)[:, None] * np.sqrt(1.0 if weight is None else weight)
        root = np.where(root > 0, root, np.nan)
        chi2 = np.full((nstokes, maps.shape[-1]), np.nan)
        chi2[:ngroup] = maps[ncolumn]
        yield Maps(
            part.observation,
            # Lanes are whitened by the root of their weight: the amplitudes too.
            groups(maps[:ncolumn] / root, nstokes, joint),
            chi2,
            maps[ncolumn + 1 :] / root**2,
            # Empty lanes hold zeros.
            lanes[:, ncolumn].sum(axis=1),
        )


def _unpack(lanes: np.ndarray, part: Part, ngroup: int) -> np.ndarray:
    """`(block, k, lane)` -> `(k, group, pix)`, NaN where a sample is not used."""
    nblocks, k, _ = lanes.shape
    block = part.layout.block
    out = np.full((nblocks, k, ngroup * block), np.nan)
    for b, index in enumerate(part.layout.index):
        live = np.flatnonzero(index >= 0)
        out[b][:, index[live]] = lanes[b][:, live]
    out = out.reshape(nblocks, k, ngroup, block)
    whole = np.moveaxis(out, 0, 2).reshape(k, ngroup, nblocks * block)
    return whole[..., : part.observation.npix]
