"""The plan of a run: which samples are used, their pools, and how they are laid out.

Everything that does not change while a fit runs. The maps are looked at once, for the
bands each sample lacks; pools and layout need pixel numbers only. The ranks come in as
the function `allgather`.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from distsep.data.layout import (
    Keys,
    Layout,
    Pieces,
    choose_tile,
    lay_out,
    lay_out_plainly,
    make_pools,
    tile_costs,
)
from distsep.data.samples import patterns, rows
from distsep.data.source import ahead
from distsep.inference.packing import Whitening
from distsep.inference.passes import Part


class Plan:
    """Pools and layout of all samples of a rank.

    Args:
        source: Parts of the maps, see `data/source.py`.
        npatch: Patches of each kind.
        patch_ids: `observation -> [(group, pix) patch of each kind]`, -1 = not used.
        templates: `observation -> (template, group, pix)` maps of the global terms.
        ncolumn: Amplitudes per sample; a sample with fewer bands is not used.
        joint: Whether Stokes parameters are fitted jointly.
        rank: Of this process.
        allgather: `x -> [x of every rank]`.

    Attributes:
        classes: Noise classes.
        pools: Pools.
        pieces: The sum over blocks and ranks.
        few: Samples of this rank with too few bands.

    Communication: a few allgathers of patterns, pools and tile sizes; none of pixels.
    """

    def __init__(
        self,
        source: Any,
        *,
        npatch: Sequence[int],
        patch_ids: Callable,
        templates: Callable,
        ncolumn: int,
        joint: bool,
        rank: int,
        allgather: Callable,
    ):
        self.source, self.joint = source, joint
        self._patch_ids, self._templates = patch_ids, templates
        header = source.header
        self.ngroup = 1 if joint else len(header.stokes)
        self._look(max(ncolumn, 1), allgather)
        white = self.classes.white
        self._make_key = keys = Keys([*npatch, 1 if white is None else len(white)])
        self._kept: dict[int, np.ndarray] = {}
        parts = range(source.number)
        self.pools = make_pools(keys, (self._key(i) for i in parts), allgather)
        block = header.grid.block
        each = [tile_costs(self._sample(i), block) for i in parts]
        costs = np.sum(each, axis=0)
        costs[:, 0] = np.max(each, axis=0)[:, 0]
        self._tile, self._ntile = choose_tile(allgather(costs))
        self._plain = source.complete and self.pools.number == 1
        self._layouts: list[Layout] = []
        pool, empty = [], []
        for i in parts:
            layout = self._layout(i)
            pool.append(layout.pool)
            empty.append(layout.empty)
            if source.resident:
                self._layouts.append(layout)
        self.pieces = Pieces(
            np.concatenate(pool),
            np.concatenate(empty),
            self.pools.number,
            rank,
            allgather,
        )
        nblocks = allgather(sum(len(p) for p in pool))
        self._all_blocks, self._first_block = sum(nblocks), sum(nblocks[:rank])

    def _look(self, ncolumn: int, allgather) -> None:
        """See which bands every sample has: the one look at the maps."""
        header, joint = self.source.header, self.joint
        nrow = len(header.instrument.nu) * (len(header.stokes) if joint else 1)
        self.few = 0
        self._number: list[np.ndarray] = []
        self._pattern, self._used = [], []
        found: Any = None
        noise: Any = None
        whole = self.source.complete
        look = self.source.pixels if whole else self.source.load
        for obs in ahead(look, range(self.source.number)):
            noise = obs.noise
            found = found or patterns(noise, joint, self.ngroup)
            if whole:
                observed = np.ones((1, 1, 1), bool)
                observed = np.broadcast_to(observed, (nrow, self.ngroup, obs.npix))
            else:
                observed = rows(~np.isnan(obs.d), joint)
            number = observed.sum(0) if not whole else np.full(observed.shape[1:], nrow)
            enough = number >= ncolumn
            self._number.append(number.astype(np.uint16))
            self.few += int((~enough & (number > 0)).sum())
            self._pattern.append(found.add(observed))
            self._used.append(enough)
        self.classes = found.classes(noise, joint, nrow, allgather)

    def block_sum(self, values: np.ndarray, total: Callable) -> float:
        """Add one number per block of this rank over all blocks, in their order.

        Communication: one allreduce of a number per block.
        """
        table = np.zeros(self._all_blocks)
        table[self._first_block : self._first_block + len(values)] += values
        return float(np.add.reduce(np.asarray(total(table))))

    def count(self) -> tuple[int, int]:
        """Bands of all used samples of this rank, and used samples."""
        used = (self._sample(i) >= 0 for i in range(self.source.number))
        pairs = zip(self._number, used, strict=True)
        sums = [(int(n[u].sum(dtype=int)), int(u.sum())) for n, u in pairs]
        return sum(b for b, _ in sums), sum(n for _, n in sums)

    @property
    def whitening(self) -> Whitening:
        """What whitens the samples."""
        return Whitening(self.classes.white, self.classes.scale)

    def _key(self, i: int) -> np.ndarray:
        obs = self.source.pixels(i)
        used = self._used[i]
        classes = self.classes.number[self._pattern[i]]
        columns = [np.broadcast_to(p, used.shape) for p in self._patch_ids(obs)]
        return self._make_key([*columns, classes], used)

    def _sample(self, i: int) -> np.ndarray:
        if i in self._kept:
            return self._kept[i]
        sample = self.pools.of(self._key(i))
        if self.source.resident:
            self._kept[i] = sample
        return sample

    def _layout(self, i: int) -> Layout:
        block = self.source.header.grid.block
        if self._plain:
            npix = self._used[i].shape[1]
            return lay_out_plainly(npix, self.ngroup, block, self._tile)
        return lay_out(self._sample(i), block, self._tile, self._ntile)

    def part(self, i: int) -> Part:
        """Load one part of the maps and lay it out."""
        obs = self.source.load(i)
        layout = self._layouts[i] if self._layouts else self._layout(i)
        noise_class = self.pools.noise_class[layout.pool] if self.pools.number else 0
        noise_class = np.broadcast_to(noise_class, layout.pool.shape)
        return Part(obs, self._templates(obs), layout, noise_class)

    def sample_pool(self, part: Part) -> np.ndarray:
        """Pool of every sample of a part, `(group, pix)`, -1 = not used."""
        npix, layout = part.observation.npix, part.layout
        if layout.index is None:
            return np.zeros((self.ngroup, npix), np.int64)
        nblocks = len(layout.pool)
        out = np.full((nblocks, self.ngroup * layout.block), -1, np.int64)
        lane_pool = np.repeat(layout.pool, layout.tile, axis=1)
        for b, index in enumerate(layout.index):
            live = index >= 0
            out[b, index[live]] = lane_pool[b, live]
        whole = np.moveaxis(out.reshape(nblocks, self.ngroup, layout.block), 0, 1)
        return whole.reshape(self.ngroup, -1)[:, :npix]

    def on(self, source: Any) -> "Plan":
        """Return the same plan for other maps of the same samples."""
        other = copy.copy(self)
        other.source = source
        return other

    def parts(self) -> Iterator[Part]:
        """Yield all parts; the next is read while one is worked on."""
        numbers = range(self.source.number)
        yield from ahead(self.part, numbers)
