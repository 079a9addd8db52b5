"""The second pass: amplitudes and chi2 of every pixel at the best parameters."""

from collections.abc import Sequence

import numpy as np

from distsep.data.samples import groups
from distsep.inference.likelihood import block_amplitudes
from distsep.inference.passes import Part, Survey


def unpack(lanes: np.ndarray, part: Part, ngroup: int) -> np.ndarray:
    """`(block, k, lane)` -> `(k, group, pix)`, NaN where a sample is not used."""
    nblocks, k, _ = lanes.shape
    block = part.layout.block
    out = np.full((nblocks, k, ngroup * block), np.nan)
    for b, index in enumerate(part.layout.index):
        live = index >= 0
        out[b][:, index[live]] = lanes[b][:, live]
    out = out.reshape(nblocks, k, ngroup, block)
    whole = np.moveaxis(out, 0, 2).reshape(k, ngroup, nblocks * block)
    return whole[..., : part.observation.npix]


def amplitude_maps(
    survey: Survey, tables, parts: Sequence[Part], nstokes: int, joint: bool, scale
) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes `(comp, stokes, pix)` [uK_CMB] and chi2 `(stokes, pix)`.

    Fitted jointly, a pixel has one chi2 for all Stokes parameters: it is given in each.

    Communication: none.
    """
    ngroup = 1 if joint else nstokes
    found = []
    for rows, part in zip(survey.rows(block_amplitudes, tables), parts, strict=True):
        maps = unpack(rows, part, ngroup)
        ncolumn = tables.A.shape[-1]
        weight = part.observation.noise.weight
        root = np.sqrt(scale)[:, None] * np.sqrt(1.0 if weight is None else weight)
        # Lanes are whitened by the root of their weight: the amplitudes too.
        s = groups(maps[:ncolumn] / root, nstokes, joint)
        chi2 = np.broadcast_to(maps[ncolumn], (nstokes, maps.shape[-1]))
        found.append((s, chi2))
    s, chi2 = zip(*found, strict=True)
    return np.concatenate(s, -1), np.concatenate(chi2, -1)
