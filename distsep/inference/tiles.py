"""Run a function of one tile over the tiles of one block.

Pure jax functions of a block and of the tables of the pools, whatever they hold: a
block is a named tuple with `pool` (`tile`) and arrays whose last axis is the lanes.
"""

import jax
import jax.numpy as jnp

# Lanes that are worked on together. On a processor what they need (15 bands, data,
# weights and as much again for what is computed: 0.5 MB) stays in the second-level
# cache, from where the products of small matrices run at full speed.
TOGETHER = 1024


def over_tiles(tile_function, tables, block):
    """Run a function of one tile over all tiles at once: `(tile, ...)`.

    Communication: none.
    """
    ntile = block.pool.shape[0]

    def split(x):
        lanes = x.shape[-1] // ntile
        return jnp.moveaxis(x.reshape(*x.shape[:-1], ntile, lanes), -2, 0)

    parts = jax.tree.map(split, block._replace(pool=None))
    rows = jax.tree.map(lambda table: table[block.pool], tables)
    return jax.vmap(tile_function)(rows, parts)


def sums_over_tiles(tile_function, tables, block):
    """Run a function that sums over its lanes over all tiles: `(tile, k)`.

    On a processor, a few tiles at a time, or a part of a large one.

    Communication: none.
    """
    pool, lanes = block.pool, block.d.shape[-1]
    ntile = len(pool)
    tile = lanes // ntile
    cuts = max(tile // TOGETHER, 1) if tile % TOGETHER == 0 else 1
    tile, npart = tile // cuts, ntile * cuts
    step = min(max(TOGETHER // max(tile, 1), 1), npart)
    if step == npart or jax.default_backend() != "cpu":
        return over_tiles(tile_function, tables, block)
    pool = jnp.repeat(pool, cuts)

    def some(start):
        cut = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, start * tile, step * tile, -1),
            block._replace(pool=None),
        )
        if step == 1:  # plain products are faster than a batch of one
            own = jax.tree.map(lambda table: table[pool[start]], tables)
            return tile_function(own, cut)[None]
        pools = jax.lax.dynamic_slice_in_dim(pool, start, step)
        return over_tiles(tile_function, tables, cut._replace(pool=pools))

    # The last step starts early enough to be as long as the others.
    nstep = -(-npart // step)
    sums = jax.lax.map(some, jnp.minimum(jnp.arange(nstep) * step, npart - step))
    again = nstep * step - npart
    rows = jnp.concatenate([sums[:-1].reshape(-1, sums.shape[-1]), sums[-1][again:]])
    return rows.reshape(ntile, cuts, -1).sum(1)
