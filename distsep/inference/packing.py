"""Packing a block of maps into the lanes the likelihood runs over.

Pure jax functions of one block, run on the devices: sorts the samples into lanes,
whitens them where their noise has one shape, and puts zeros where nothing was observed.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from distsep.inference.likelihood import Block


class RawMaps(NamedTuple):
    """Maps as they come from the store, pixels last; one block of them for `pack`.

    Attributes:
        d: Maps [uK_CMB]; NaN = not observed in that band. Rows of all groups.
        t: Templates of the global terms, a map for each and group.
        weight: `(1, pix)` weight of each pixel, where the noise has a shape.
        invN: Inverse variances like `d`, or covariances, rows by rows by groups.
    """

    d: Float[Array, "rowgroup pix"]
    t: Float[Array, "templategroup pix"]
    weight: Float[Array, "1 pix"] | None = None
    invN: Float[Array, "rows pix"] | None = None


class Lanes(NamedTuple):
    """Where the lanes of a block come from (leading axis: blocks).

    Attributes:
        index: Place of each lane's sample in `(group, pix)`, -1 = empty; None: as it
            is.
        pool: Pool of each tile.
        noise_class: Noise class of each tile.
    """

    index: Int[Array, "*block lane"] | None
    pool: Int[Array, "*block tile"]
    noise_class: Int[Array, "*block tile"]


class Whitening(NamedTuple):
    """Whitening of each noise class, and the scale of each Stokes group."""

    white: Array | None
    scale: Float[Array, " group"]


def pack(whitening: Whitening, maps: RawMaps, lanes: Lanes) -> Block:
    """Sort one block into lanes; whiten it where the noise has a shape.

    Args:
        whitening: From the noise classes of the data set.
        maps: Of one block.
        lanes: Of one block.

    Returns:
        The block of samples, float64, zeros where nothing was observed.

    Communication: none.
    """
    ngroup, npix = whitening.scale.shape[0], maps.d.shape[-1]

    def sort(x):
        flat = x.reshape(-1, ngroup * npix).astype(jnp.float64)
        if lanes.index is None:
            return flat
        empty = lanes.index < 0
        return jnp.where(empty, 0.0, flat[:, jnp.where(empty, 0, lanes.index)])

    d = sort(maps.d)
    seen = ~jnp.isnan(d)
    d = jnp.where(seen, d, 0.0)
    t = sort(maps.t)
    if whitening.white is None:
        w = sort(maps.invN)
        if len(w) == len(d):
            return Block(d, t, lanes.pool, w=jnp.where(seen, w, 0.0))
        return Block(d, t, lanes.pool, invN=w.reshape(len(d), len(d), -1))

    root = jnp.ones((1, npix)) if maps.weight is None else maps.weight
    root = sort(jnp.sqrt(whitening.scale)[:, None] * jnp.sqrt(root))
    ntile = lanes.pool.shape[0]
    white = whitening.white[lanes.noise_class]
    tiles = d.reshape(d.shape[0], ntile, d.shape[1] // ntile)
    if white.ndim == 2:
        tiles = white.T[:, :, None] * tiles
    elif white.ndim == 3:
        tiles = jnp.einsum("trs,stl->rtl", white, tiles)
    return Block(tiles.reshape(d.shape) * root, t * root, lanes.pool)


def chunked(block: Block, lanes: int) -> Block:
    """Cut the lanes into chunks, the rows of a chunk side by side in memory.

    `(row, lane)` -> `(chunk, row, lane)`: what one sweep of a processor wants.
    """

    def cut(x):
        nrow, nlane = x.shape
        width = math.gcd(lanes, nlane // block.pool.shape[0])
        return jnp.moveaxis(x.reshape(nrow, nlane // width, width), 1, 0)

    return jax.tree.map(cut, block._replace(pool=None))._replace(pool=block.pool)


def in_chunks(block: Block) -> bool:
    """Whether the samples of many blocks were cut into chunks."""
    return block.d.ndim == 4


def joined(block: Block) -> Block:
    """Undo `chunked`."""

    def join(x):
        nchunk, nrow, width = x.shape
        return jnp.moveaxis(x, 1, 0).reshape(nrow, nchunk * width)

    return jax.tree.map(join, block._replace(pool=None))._replace(pool=block.pool)
