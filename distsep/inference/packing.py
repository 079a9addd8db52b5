"""Packing a block of maps into the lanes the likelihood runs over.

Pure jax functions of one block, run on the devices: sorts the samples into lanes,
whitens them where their noise has one shape, and puts zeros where nothing was observed.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from distsep.inference.likelihood import Block


class RawBlock(NamedTuple):
    """One block of maps as it comes from the store (leading axis: blocks).

    Attributes:
        d: Maps [uK_CMB]; NaN = not observed in that band.
        t: Templates of the global terms, one map per Stokes group.
        index: Place of each lane's sample in `(group, pix)`, -1 = empty; None: as it
            is.
        pool: Pool of each tile.
        noise_class: Noise class of each tile.
        weight: Weight of each pixel, where the noise has a shape.
        invN: Inverse variances, or inverse covariances over rows.
    """

    d: Float[Array, "*block row group pix"]
    t: Float[Array, "*block template group pix"]
    index: Int[Array, "*block lane"] | None
    pool: Int[Array, "*block tile"]
    noise_class: Int[Array, "*block tile"]
    weight: Float[Array, "*block pix"] | None = None
    invN: Array | None = None


class Whitening(NamedTuple):
    """Whitening of each noise class, and the scale of each Stokes group."""

    white: Array | None
    scale: Float[Array, " group"]


def pack(whitening: Whitening, raw: RawBlock) -> Block:
    """Sort one block into lanes; whiten it where the noise has a shape.

    Args:
        whitening: From the noise classes of the data set.
        raw: One block of maps.

    Returns:
        The block of samples, float64, zeros where nothing was observed.

    Communication: none.
    """

    def lanes(x):
        flat = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1]).astype(jnp.float64)
        if raw.index is None:
            return flat
        empty = raw.index < 0
        return jnp.where(empty, 0.0, flat[..., jnp.where(empty, 0, raw.index)])

    d = lanes(raw.d)
    seen = ~jnp.isnan(d)
    d = jnp.where(seen, d, 0.0)
    t = lanes(raw.t)
    if whitening.white is None:
        w = lanes(raw.invN)
        if w.ndim == 2:
            return Block(d, t, raw.pool, w=jnp.where(seen, w, 0.0))
        return Block(d, t, raw.pool, invN=w)

    npix, ngroup = raw.d.shape[-1], raw.d.shape[-2]
    root = jnp.sqrt(jnp.ones(npix) if raw.weight is None else raw.weight)
    root = jnp.sqrt(whitening.scale)[:, None] * root
    root = lanes(jnp.broadcast_to(root, (ngroup, npix)))
    ntile = raw.pool.shape[0]
    white = whitening.white[raw.noise_class]
    tiles = d.reshape(d.shape[0], ntile, d.shape[1] // ntile)
    if white.ndim == 2:
        tiles = white.T[:, :, None] * tiles
    elif white.ndim == 3:
        tiles = jnp.einsum("trs,stl->rtl", white, tiles)
    return Block(tiles.reshape(d.shape) * root, t * root, raw.pool)
