"""How the samples of a rank are laid out for the likelihood: pools, lanes, tiles.

A *sample* is one (pixel, Stokes parameter), or one pixel where Stokes parameters are
fitted jointly. A *pool* is the set of samples that share every parameter of the mixing
matrix and the shape of their noise: one matrix A each. Inside a block the samples
are sorted by pool into *lanes*, and lanes into *tiles* of one size that hold one pool
only, the rest of a tile being empty. Pure numpy; no sums are taken here.
"""

from dataclasses import dataclass

import numpy as np

TILES = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
TILE_COST = 12  # of a tile beside its lanes, in lanes


@dataclass(frozen=True)
class Pools:
    """The pools of a data set, numbered alike on every rank.

    Attributes:
        patch: `(pool, kind)` patch of each kind of parameter in each pool.
        noise_class: `(pool,)` row of the table of noise shapes.
        sample: `(lane group, pix)` pool of every local sample, -1 = not used.
    """

    patch: np.ndarray
    noise_class: np.ndarray
    sample: np.ndarray

    @property
    def number(self) -> int:
        """Number of pools, all ranks."""
        return len(self.noise_class)


def make_pools(patches, noise_class, used, allgather) -> Pools:
    """Number the distinct combinations of patches and noise class.

    Args:
        patches: One integer array per kind, `(group, pix)` or broadcastable; -1 = the
            sample is not used.
        noise_class: `(group, pix)` integers.
        used: `(group, pix)` True where the sample enters the fit.
        allgather: `x -> [x of every rank]`.

    Communication: one allgather of the distinct combinations of every rank, and one
    of the largest numbers.
    """
    columns = [np.broadcast_to(p, used.shape) for p in patches] + [noise_class]
    good = used.copy()
    for c in columns:
        good &= c >= 0
    local = [int(c[good].max(initial=-1)) + 1 for c in columns]
    radix = np.max([local, *allgather(local)], axis=0).astype(np.int64)
    radix = np.maximum(radix, 1)
    if np.prod(radix.astype(float)) > 2.0**62:
        raise ValueError(
            "too many combinations of patches: use fewer or coarser patches."
        )
    key = np.zeros(used.shape, np.int64)
    for c, r in zip(columns, radix, strict=True):
        key = key * r + np.where(good, c, 0)
    keys = np.unique(np.concatenate(allgather(np.unique(key[good]))))
    sample = np.where(good, np.searchsorted(keys, key), -1)
    decoded, rest = [], keys
    for r in radix[::-1]:
        decoded.append(rest % r)
        rest = rest // r
    decoded = (
        np.stack(decoded[::-1], 1) if len(keys) else np.zeros((0, len(columns)), int)
    )
    return Pools(decoded[:, :-1].astype(int), decoded[:, -1].astype(int), sample)


@dataclass(frozen=True)
class Layout:
    """Where every lane of every local block comes from.

    Attributes:
        tile: Lanes per tile.
        index: `(block, lane)` position of the sample in its block, counted over
            `(group, pixel of the block)`; -1 = an empty lane.
        pool: `(block, tile)` pool of each tile; 0 for a tile that is empty.
        empty: `(block, tile)` True where a tile holds no sample.
        block: Pixels per block.
    """

    tile: int
    index: np.ndarray
    pool: np.ndarray
    empty: np.ndarray
    block: int


def make_layout(sample_pool, block: int, allgather) -> Layout:
    """Sort the samples of each block by pool and cut them into tiles.

    Args:
        sample_pool: `(group, pix)`, -1 = not used.
        block: Pixels per block.
        allgather: `x -> [x of every rank]`; the tile size and the number of lanes are
            those of the whole data set, so that every rank runs the same program.

    Communication: two small allgathers.
    """
    ngroup, npix = sample_pool.shape
    nblocks = -(-npix // block) if npix else 0
    padded = np.full((ngroup, nblocks * block), -1, np.int64)
    padded[:, :npix] = sample_pool
    by_block = padded.reshape(ngroup, nblocks, block).swapaxes(0, 1)
    by_block = by_block.reshape(nblocks, ngroup * block)
    runs = [np.unique(b[b >= 0], return_counts=True) for b in by_block]

    def cost(tile):
        tiles = [int((-(-n // tile)).sum()) for _, n in runs]
        return np.array([max(tiles, default=0), sum(tiles)])

    choices = [t for t in TILES if t <= block]
    costs = np.array(allgather(np.array([cost(t) for t in choices])))
    most = costs[:, :, 0].max(0)
    total = costs[:, :, 1].sum(0)
    best = int(np.argmin(total * (np.array(choices) + TILE_COST)))
    tile, ntile = choices[best], max(int(most[best]), 1)

    index = np.full((nblocks, ntile * tile), -1, np.int32)
    pool = np.zeros((nblocks, ntile), np.int32)
    empty = np.ones((nblocks, ntile), bool)
    for b, (pools, counts) in enumerate(runs):
        order = np.argsort(by_block[b], kind="stable")
        order = order[len(order) - counts.sum() :]
        tiles = -(-counts // tile)
        first = np.concatenate([[0], np.cumsum(tiles)[:-1]]) * tile
        within = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        index[b, np.repeat(first, counts) + within] = order
        pool[b, : tiles.sum()] = np.repeat(pools, tiles)
        empty[b, : tiles.sum()] = False
    return Layout(tile, index, pool, empty, block)


class PieceSum:
    """Sums over pools that do not depend on how the blocks are spread over ranks.

    A *piece* is what one block holds of one pool. Every piece has its row in one table
    for all ranks; a rank fills its rows, the sum over ranks fills the table exactly
    (x + 0 = x), and every rank adds the rows of a pool in the same order.
    """

    def __init__(self, layout: Layout, npool: int, allgather):
        key = [p[~e] for p, e in zip(layout.pool, layout.empty, strict=True)]
        first = [np.flatnonzero(np.diff(k, prepend=-1)) for k in key]
        self._tiles = [
            (int((~e).sum()), f) for e, f in zip(layout.empty, first, strict=True)
        ]
        mine = np.concatenate([k[f] for k, f in zip(key, first, strict=True)] or [[]])
        everyone = allgather(mine.astype(np.int64))
        sizes = [len(m) for m in everyone]
        self._pools = np.concatenate(everyone).astype(np.int64)
        self._order = np.argsort(self._pools, kind="stable")
        self._sorted = self._pools[self._order]
        self._starts = np.flatnonzero(np.diff(self._sorted, prepend=-1))
        self._npool, self._total = npool, len(self._pools)
        self._mine, self._sizes = len(mine), sizes

    def offset(self, rank: int) -> int:
        """Row of the first piece of a rank."""
        return sum(self._sizes[:rank])

    @property
    def pieces(self) -> int:
        """Rows of the table."""
        return self._total

    def table(self, rows: np.ndarray, rank: int) -> np.ndarray:
        """Fill this rank's rows of the table from `(block, tile, k)` tile sums."""
        # Starts at +0.0: adding the zeros of other ranks then changes no bit.
        out = np.zeros((self._total, rows.shape[-1]))
        at = self.offset(rank)
        for b, (ntile, first) in enumerate(self._tiles):
            if ntile:
                out[at : at + len(first)] += np.add.reduceat(
                    rows[b, :ntile], first, axis=0
                )
                at += len(first)
        return out

    def pool_sum(self, table: np.ndarray) -> np.ndarray:
        """Add the rows of each pool, in the order of the blocks: `(pool, k)`."""
        out = np.zeros((self._npool, table.shape[-1]))
        if self._total:
            out[self._sorted[self._starts]] += np.add.reduceat(
                table[self._order], self._starts, axis=0
            )
        return out
