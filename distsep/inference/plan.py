"""The plan of a run: which samples are used, their pools, and how they are laid out.

Everything that does not change while a fit runs. The maps are looked at once, for the
bands each sample lacks, or not at all where none is known to be lacking; pools and
layout need pixel numbers only. The ranks come in as the function `allgather`.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distsep.data.informed import Informed, informed
from distsep.data.layout import (
    Keys,
    Layout,
    Pieces,
    Pools,
    block_runs,
    choose_tile,
    lay_out,
    lay_out_plainly,
    make_pools,
    plain_runs,
    tile_costs,
    tile_pools,
)
from distsep.data.samples import patterns, rows
from distsep.data.together import ahead
from distsep.inference.model import in_batches
from distsep.inference.packing import Whitening
from distsep.inference.passes import Part

# The pool of every sample of a rank is kept up to this size, else found again [bytes].
_KEPT = 2**28


class Plan:
    """Pools and layout of all samples of a rank.

    Args:
        source: Parts of the maps, see `data/source.py`.
        npatch: Patches of each kind.
        patches: Of each kind a function `observation -> (group, pix) patch`, -1 = not
            used; None: one patch.
        templates: `observation -> (template, group, pix)` maps of the global terms.
        A: `(row, column)` mixing matrix of the amplitudes of a sample; one whose bands
            do not tell them apart is not used.
        joint: Whether Stokes parameters are fitted jointly.
        rank: Of this process.
        allgather: `x -> [x of every rank]`.

    Attributes:
        classes: Noise classes.
        pools: Pools.
        pieces: The sum over blocks and ranks.
        own: Pools that this rank needs tables of, ascending: those of its samples, or
            all where they are few.
        few: Samples of this rank whose bands do not tell their amplitudes.
        count: Bands of all used samples of this rank, and used samples.

    Communication: a few allgathers of patterns, pools and tile sizes; none of pixels.
    """

    def __init__(
        self,
        source: Any,
        *,
        npatch: Sequence[int],
        patches: Sequence[Callable | None],
        templates: Callable,
        A: np.ndarray,
        joint: bool,
        rank: int,
        allgather: Callable,
    ):
        self.source, self.joint = source, joint
        self._patches, self._templates = patches, templates
        header = source.header
        self.ngroup = 1 if joint else len(header.stokes)
        self._see(A, allgather)
        nclass = 1 if self.classes.white is None else len(self.classes.white)
        # Then nothing depends on the pixel: on no rank, or the tiles would differ.
        one = source.complete and nclass == 1 and bool(self._enough.all())
        one = one and all(known.as_seen for known in self._informed)
        self._plain = all(allgather(one and all(f is None for f in patches)))
        self._number_pools(Keys([*npatch, nclass]), allgather)
        self._cut(rank, allgather)

    def _see(self, A: np.ndarray, allgather) -> None:
        """See which bands every sample has: the one look at the maps."""
        source, nrow, noise = self.source, len(A), self.source.header.noise
        found = patterns(noise, self.joint, self.ngroup)
        self._pattern, self._informed = [], [Informed()] * source.number
        if source.complete:
            whole = found.add(np.ones((nrow, self.ngroup, 1), bool))
            self._pattern = [whole] * source.number
        own = noise.kind.endswith("pixel")
        looks = range(0 if source.complete and not own else source.number)
        for i, obs in enumerate(ahead(source.load, looks)):
            seen = rows(~np.isnan(obs.d), self.joint)
            if not source.complete:
                self._pattern.append(found.add(seen))
            if own:
                self._informed[i] = informed(obs.noise, seen, A, self.joint)
        self.classes = found.classes(noise, self.joint, nrow, allgather)
        self._bands, self._enough = found.usable(A, self.classes)
        self._enough &= self._bands > 0
        self.few = sum(
            int(((self._bands > 0)[pattern] & ~self._usable(i)).sum())
            for i, pattern in enumerate(self._pattern)
        )

    def _usable(self, i: int) -> np.ndarray:
        """Whether each sample of a part is used, `(group, pix)` or one for all."""
        enough, tells = self._enough[self._pattern[i]], self._informed[i].tells
        return enough if tells is None else enough & tells

    def _known(self, i: int) -> np.ndarray:
        """How many numbers each sample of a part has, `(group, pix)` or one for all."""
        number = self._informed[i].number
        return self._bands[self._pattern[i]] if number is None else number

    def _number_pools(self, keys: Keys, allgather) -> None:
        """Find the pools of all ranks; keep those of the samples, if they are few."""
        source, ngroup = self.source, self.ngroup
        self._keys = keys
        self._local: list[tuple[np.ndarray, np.ndarray]] = []
        parts = range(source.number)
        npix = [source.npix(i) for i in parts]
        if self._plain:
            found = [(np.zeros(1, np.int64), np.array([ngroup * n])) for n in npix if n]
        elif 4 * ngroup * sum(npix) <= _KEPT:
            self._local = [self._numbered(i) for i in parts]
            found = [self._counted(*local) for local in self._local]
        else:
            found = [self._counted(*self._numbered(i)) for i in parts]
        self.pools: Pools = make_pools(keys, found, allgather)

    def _cut(self, rank: int, allgather) -> None:
        """Choose the tiles; place the sums of this rank among all."""
        source, block = self.source, self.source.header.grid.block
        runs, bands, samples = [], 0, 0
        for i in range(source.number):
            if self._plain:
                npix = source.npix(i)
                runs.append(plain_runs(npix, self.ngroup, block))
                bands += npix * int(self._bands[self._pattern[i]].sum())
                samples += npix * self.ngroup
                continue
            sample = self.sample(i)
            runs.append(block_runs(sample, block))
            used = sample >= 0
            number = np.broadcast_to(self._known(i), sample.shape)
            bands += int(number[used].sum(dtype=int))
            samples += int(used.sum())
        self.count = bands, samples
        self._tile, self._ntile = choose_tile(
            allgather(tile_costs([run for part in runs for run in part]))
        )
        if self._plain:
            cut = [self._layout(i) for i in range(source.number)]
            pairs = [(layout.pool, layout.empty) for layout in cut]
        else:
            pairs = [tile_pools(part, self._tile, self._ntile) for part in runs]
        pool, empty = (np.concatenate(each) for each in zip(*pairs, strict=True))
        self.pieces = Pieces(pool, empty, self.pools.number, rank, allgather)
        self.own = np.arange(self.pools.number)
        if in_batches(self.pools.number):
            # A rank without any has tables of one: there is no table of nothing.
            self.own = np.unique(pool[~empty]) if (~empty).any() else self.own[:1]
        self._number = np.zeros(self.pools.number, np.int32)
        self._number[self.own] = np.arange(len(self.own))
        nblocks = allgather(len(pool))
        self._all_blocks, self._first_block = sum(nblocks), sum(nblocks[:rank])

    def _counted(self, keys: np.ndarray, at: np.ndarray):
        """Keys, and how many samples of all groups have each."""
        count = np.bincount(at[at >= 0], minlength=len(keys))
        return keys, count * (self.ngroup // len(at))

    def _numbered(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Distinct keys of a part, and the place of every sample's among them, or -1.

        `(group, pix)`, or `(1, pix)` where all groups have the same.
        """
        obs, pattern, used = self.source.pixels(i), self._pattern[i], self._usable(i)
        columns = [
            np.zeros((1, 1), np.int64) if f is None else f(obs) for f in self._patches
        ]
        alike = (pattern == pattern[:1]).all() and (used == used[:1]).all()
        if all(len(c) == 1 for c in columns) and alike:
            pattern, used = pattern[:1], used[:1]
        shape = len(pattern), obs.npix
        columns.append(self.classes.number[pattern])
        used = np.broadcast_to(used, shape)
        return self._keys.number([np.broadcast_to(c, shape) for c in columns], used)

    def sample(self, i: int) -> np.ndarray:
        """Pool of every sample of part i, `(group, pix)`, -1 = not used.

        Found without the maps of the part.
        """
        keys, at = self._local[i] if self._local else self._numbered(i)
        # The last stands for those that are not used: they are at -1.
        pool = np.append(self.pools.of(keys), -1)[at]
        return np.broadcast_to(pool, (self.ngroup, pool.shape[1]))

    def _layout(self, i: int) -> Layout:
        block = self.source.header.grid.block
        if self._plain:
            return lay_out_plainly(self.source.npix(i), self.ngroup, block, self._tile)
        return lay_out(self.sample(i), block, self._tile, self._ntile)

    @property
    def whitening(self) -> Whitening:
        """What whitens the samples."""
        return Whitening(self.classes.white, self.classes.scale)

    def block_sum(self, values: np.ndarray, total: Callable) -> np.ndarray:
        """Add `(..., block)` of this rank over all blocks, in their order.

        Communication: one allreduce of these numbers for every block.
        """
        table = np.zeros((*values.shape[:-1], self._all_blocks))
        mine = slice(self._first_block, self._first_block + values.shape[-1])
        table[..., mine] += values
        return np.asarray(np.add.reduce(total(table), axis=-1))

    def part(self, i: int) -> Part:
        """Load one part of the maps and lay it out; its pools are places in `own`."""
        obs = self.source.load(i)
        layout = self._layout(i)
        noise_class = self.pools.noise_class[layout.pool] if self.pools.number else 0
        noise_class = np.broadcast_to(noise_class, layout.pool.shape)
        if len(self.own) < self.pools.number:
            layout = replace(layout, pool=self._number[layout.pool])
        return Part(obs, self._templates(obs), layout, noise_class)

    def sample_pool(self, part: Part) -> np.ndarray:
        """Place in `own` of the pool of every sample, `(group, pix)`, -1 = not used."""
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
