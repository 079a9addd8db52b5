"""How the samples of a rank are laid out for the likelihood: pools, lanes, tiles.

A *sample* is one (pixel, Stokes parameter), or one pixel where Stokes parameters are
fitted jointly. A *pool* is the set of samples that share every parameter of the mixing
matrix and the shape of their noise: one matrix A each. Inside a block the samples
are sorted by pool into *lanes*, and lanes into *tiles* of one size that hold one pool
only, the rest of a tile being empty. Pure numpy; no sums over samples are taken here.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

TILES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
TILE_COST = 12  # of a tile beside its lanes, in lanes
_LARGEST = 2**62  # of a key that is one integer of 64 bits
_TABLE = 2**20  # of what occurs

Found = tuple[np.ndarray, np.ndarray]


class Keys:
    """One number for each combination of patches and noise class.

    Where there are too many combinations for an integer of 64 bits, keys are Python's
    integers, which have no end, in arrays of objects.

    Args:
        radix: Number of patches of each kind, and of noise classes last.
    """

    def __init__(self, radix: Sequence[int]):
        self._radix = [max(int(r), 1) for r in radix]
        whole = math.prod(self._radix) <= _LARGEST
        self.dtype = np.dtype(np.int64 if whole else object)

    def number(self, columns: Sequence[np.ndarray], used: np.ndarray) -> Found:
        """Distinct keys of samples, ascending, and the place of each sample's.

        Args:
            columns: Patch of each kind and noise class of every sample, of one shape.
            used: True for samples that are used.

        Returns:
            The keys, and the place of every sample's among them, or -1 where it is not
            used or any patch is -1.
        """
        good = used.copy()
        for column in columns:
            good &= column >= 0
        place = np.zeros(np.count_nonzero(good), np.int64)
        keys = np.zeros(min(len(place), 1), self.dtype)
        for column, radix in zip(columns, self._radix, strict=True):
            if radix == 1:
                continue
            at, names = column[good], None
            if len(keys) * radix > _LARGEST:
                names, at = np.unique(at, return_inverse=True)
            end = radix if names is None else len(names)
            both, place = _distinct(place * end + at, len(keys) * end)
            before, now = np.divmod(both, end)
            now = now if names is None else names[now]
            keys = keys[before] * radix + now.astype(self.dtype)
        out = np.full(used.shape, -1, np.int32)
        out[good] = place
        return keys, out

    def decode(self, keys: np.ndarray) -> np.ndarray:
        """Columns of each key: `(key, kind + 1)`."""
        out = np.empty((len(keys), len(self._radix)), np.int64)
        for k in range(len(self._radix) - 1, -1, -1):
            radix = self._radix[k]
            keys, out[:, k] = keys // radix, (keys % radix).astype(np.int64)
        return out


def _distinct(values: np.ndarray, end: int) -> Found:
    """Distinct values in [0, end), ascending, and the place of each: without sorting.

    A table of what occurs takes a tenth of the time, unless it is far longer.
    """
    if end > max(_TABLE, 2 * len(values)):
        return np.unique(values, return_inverse=True)
    occurs = np.zeros(end, bool)
    occurs[values] = True
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[values]


@dataclass(frozen=True)
class Pools:
    """The pools of a data set, numbered alike on every rank.

    Attributes:
        keys: Their keys, ascending.
        patch: `(pool, kind)` patch of each kind of parameter in each pool.
        noise_class: `(pool,)` row of the table of noise shapes.
        count: Samples in each pool, all ranks.
    """

    keys: np.ndarray
    patch: np.ndarray
    noise_class: np.ndarray
    count: np.ndarray

    @property
    def number(self) -> int:
        """Number of pools, all ranks."""
        return len(self.keys)

    def of(self, keys: np.ndarray) -> np.ndarray:
        """Pool of each key."""
        return np.searchsorted(self.keys, keys)


def make_pools(keys: Keys, found: Sequence[Found], allgather: Callable) -> Pools:
    """Number the keys that any rank has.

    Args:
        keys: How keys are made.
        found: Distinct keys of the samples of this rank and how often each, by part.
        allgather: `x -> [x of every rank]`.

    Communication: one allgather of the distinct keys of every rank.
    """
    types = keys.dtype, np.int64
    own = [
        np.concatenate([f[i] for f in found] or [[]]).astype(types[i]) for i in (0, 1)
    ]
    every = allgather(own)
    all_keys = np.concatenate([k for k, _ in every])
    number, place = np.unique(all_keys, return_inverse=True)
    count = np.zeros(len(number), np.int64)
    np.add.at(count, place, np.concatenate([n for _, n in every]))
    decoded = keys.decode(number)
    return Pools(number, decoded[:, :-1], decoded[:, -1], count)


@dataclass(frozen=True)
class Layout:
    """Where every lane of a run of blocks comes from.

    Attributes:
        tile: Lanes per tile.
        block: Pixels per block.
        index: `(block, lane)` position of the sample in its block, counted over
            `(group, pixel of the block)`; -1 = an empty lane. None: lane by lane.
        pool: `(block, tile)` pool of each tile, ascending; 0 for a tile that is empty.
        empty: `(block, tile)` True where a tile holds no sample.
    """

    tile: int
    block: int
    index: np.ndarray | None
    pool: np.ndarray
    empty: np.ndarray


def by_block(sample_pool: np.ndarray, block: int) -> np.ndarray:
    """`(group, pix)` -> `(block, group * pixel)`, -1 beyond the last pixel."""
    ngroup, npix = sample_pool.shape
    nblocks = -(-npix // block)
    padded = np.full((ngroup, nblocks * block), -1, np.int64)
    padded[:, :npix] = sample_pool
    cut = padded.reshape(ngroup, nblocks, block).swapaxes(0, 1)
    return cut.reshape(nblocks, ngroup * block)


def _runs(samples: np.ndarray) -> Found:
    """Pools of one block, ascending, and how many samples each has."""
    used = samples[samples >= 0]
    first = used.min(initial=np.iinfo(used.dtype).max)
    extent = used.max(initial=-1) - first
    if not 0 <= extent < 2 * len(samples):
        return np.unique(used, return_counts=True)
    # Numbers that lie close together are counted without being sorted.
    counts = np.bincount(used - first)
    pools = np.flatnonzero(counts)
    return pools + first, counts[pools]


def block_runs(sample_pool: np.ndarray, block: int) -> list[Found]:
    """For each block its pools, ascending, and how many samples each has.

    Args:
        sample_pool: `(group, pix)`, -1 = not used.
        block: Pixels per block.
    """
    return [_runs(b) for b in by_block(sample_pool, block)]


def plain_runs(npix: int, ngroup: int, block: int) -> list[Found]:
    """Return `block_runs` where all samples are of one pool."""
    sizes = [min(block, npix - start) for start in range(0, npix, block)]
    return [(np.zeros(1, int), np.array([ngroup * n])) for n in sizes]


def tile_costs(runs: Sequence[Found]) -> np.ndarray:
    """For each size in `TILES`: most tiles of any block, and tiles in all."""
    if not runs:
        return np.zeros((len(TILES), 2), int)
    counts = np.concatenate([n for _, n in runs])
    block = np.repeat(np.arange(len(runs)), [len(n) for _, n in runs])
    tiles = [np.bincount(block, -(-counts // t), len(runs)) for t in TILES]
    return np.array([[t.max(), t.sum()] for t in tiles]).astype(int)


def tile_pools(runs: Sequence[Found], tile: int, ntile: int) -> Found:
    """Pool of each tile of each block, and True where a tile is empty."""
    pool = np.zeros((len(runs), ntile), np.int32)
    empty = np.ones((len(runs), ntile), bool)
    for b, (pools, counts) in enumerate(runs):
        tiles = -(-counts // tile)
        pool[b, : tiles.sum()] = np.repeat(pools, tiles)
        empty[b, : tiles.sum()] = False
    return pool, empty


def choose_tile(costs: Sequence[np.ndarray]) -> tuple[int, int]:
    """Lanes per tile and tiles per block that waste the least, from all costs."""
    stacked = np.array(costs)
    most, total = stacked[:, :, 0].max(0), stacked[:, :, 1].sum(0)
    best = int(np.argmin(total * (np.array(TILES) + TILE_COST)))
    return TILES[best], max(int(most[best]), 1)


def lay_out_plainly(npix: int, ngroup: int, block: int, tile: int) -> Layout:
    """Leave the samples of one pool where they are: every lane is its own sample."""
    nblocks, ntile = -(-npix // block), ngroup * block // tile
    pool = np.zeros((nblocks, ntile), np.int32)
    empty = np.zeros((nblocks, ntile), bool)
    if nblocks:
        # Of the last block, the tiles beyond the last pixel.
        first = (np.arange(ntile) * tile) % block
        empty[-1] = first >= npix - (nblocks - 1) * block
    return Layout(tile, block, None, pool, empty)


def lay_out(sample_pool: np.ndarray, block: int, tile: int, ntile: int) -> Layout:
    """Sort the samples of each block by pool and cut them into tiles.

    Args:
        sample_pool: `(group, pix)`, -1 = not used.
        block: Pixels per block.
        tile: Lanes per tile.
        ntile: Tiles per block, the same for all: every block runs the same program.
    """
    blocks = by_block(sample_pool, block)
    runs = [_runs(samples) for samples in blocks]
    index = np.full((len(blocks), ntile * tile), -1, np.int32)
    for b, (samples, (pools, counts)) in enumerate(zip(blocks, runs, strict=True)):
        live = np.flatnonzero(samples >= 0)
        if len(pools) > 1:
            number = samples[live] - pools[0]
            # Short integers are sorted in one sweep.
            short = np.uint16 if pools[-1] - pools[0] < 2**16 else np.int64
            live = live[np.argsort(number.astype(short), kind="stable")]
        tiles = -(-counts // tile)
        first = (np.cumsum(tiles) - tiles) * tile
        within = np.arange(len(live)) - np.repeat(np.cumsum(counts) - counts, counts)
        index[b, np.repeat(first, counts) + within] = live
    return Layout(tile, block, index, *tile_pools(runs, tile, ntile))


class Pieces:
    """Sums over pools that do not depend on how the blocks are spread over ranks.

    A *piece* is what one block holds of one pool. Every piece has its row in one table
    for all ranks; a rank fills its rows, the sum over ranks fills the table exactly
    (x + 0 = x), and every rank adds the rows of a pool in the same order.

    Args:
        pool, empty: `(block, tile)` of all blocks of this rank, see `Layout`.
        npool: Number of pools.
        rank: Of this process.
        allgather: `x -> [x of every rank]`.

    Communication: one allgather of the pools of every piece.
    """

    def __init__(self, pool, empty, npool: int, rank: int, allgather: Callable):
        # An empty tile may stand between others: see `lay_out_plainly`.
        self._tiles = np.flatnonzero(~empty)
        pools = pool.ravel()[self._tiles]
        block = self._tiles // pool.shape[1] if len(pool) else self._tiles
        new = np.diff(pools, prepend=-1) != 0
        # Of all blocks in a row: the tiles that hold samples, and where pieces start.
        self._starts_here = np.flatnonzero(new | (np.diff(block, prepend=-1) != 0))
        mine = pools[self._starts_here].astype(np.int64)
        every = allgather(mine)
        self._at = sum(len(e) for e in every[:rank])
        pools = np.concatenate(every)
        self._order = np.argsort(pools, kind="stable")
        pools = pools[self._order]
        # What is in its place already is not moved.
        self._live, self._sorted = (
            len(x) == size and bool((np.diff(x) == 1).all())
            for x, size in ((self._tiles, pool.size), (self._order, len(pools)))
        )
        self._starts = np.flatnonzero(np.diff(pools, prepend=-1))
        self._pools = pools[self._starts]
        self.npool, self.number = npool, len(pools)

    def table(self, rows: np.ndarray, merge=np.add.reduceat) -> np.ndarray:
        """Fill this rank's rows of the table from `(block, tile, k)` tile sums."""
        live = rows.reshape(-1, rows.shape[-1])
        live = live if self._live else live.take(self._tiles, 0)
        mine = _merged(live, self._starts_here, merge)
        at = slice(self._at, self._at + len(mine))
        return _spread(mine, at, self.number)

    def pool_sum(self, table: np.ndarray, merge=np.add.reduceat) -> np.ndarray:
        """Add the rows of each pool, in the order of the blocks: `(pool, k)`."""
        runs = table if self._sorted else table.take(self._order, 0)
        return _spread(_merged(runs, self._starts, merge), self._pools, self.npool)


def _spread(rows: np.ndarray, at, number: int) -> np.ndarray:
    """Put rows in their places in a table of zeros."""
    # Starts at +0.0: adding the zeros of other ranks then changes no bit.
    if len(rows) == number:
        return rows + 0.0
    out = np.zeros((number, rows.shape[-1]))
    out[at] += rows
    return out


def _merged(rows: np.ndarray, starts: np.ndarray, merge: Callable) -> np.ndarray:
    """Merge runs of rows; where each is one row there is nothing to merge."""
    return rows if len(rows) == len(starts) else merge(rows, starts)
