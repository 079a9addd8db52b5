"""Passes over the samples of a rank: from maps to sums over pools.

`Survey` holds what a pass needs: the maps (in memory, or read again part by part), the
layout of their samples, and the sum over ranks. The devices and the sum come in as
arguments; nothing here knows of MPI or of files.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from distsep.data import pages
from distsep.data.informed import dense_rows
from distsep.data.layout import Layout, Pieces
from distsep.data.observation import Observation
from distsep.data.samples import rows
from distsep.data.together import ahead
from distsep.inference.likelihood import Block, Tables
from distsep.inference.model import Model
from distsep.inference.native_sums import native_kernel
from distsep.inference.packing import Lanes, RawMaps, chunked, in_chunks, joined, pack
from distsep.inference.reduce import block_root
from distsep.native import kernels as native

# Parts that are read or worked on at once.
_WORKERS = 2


class Devices(NamedTuple):
    """The devices of this rank, as functions (see `parallel.mesh`).

    Attributes:
        number: How many.
        together: Blocks that one of them works on at once.
        over_blocks: `f(shared, maps, block)` -> jitted function of them all.
        over_shares: The same of a function of all blocks of a device at once.
        spread: Puts arrays on the devices, the leading axis shared out.
        spread_maps: Puts maps on the devices, the pixels shared out.
        replicate: Puts arrays on every device.
        single: Puts arrays on the first device.
    """

    number: int
    together: int
    over_blocks: Callable
    over_shares: Callable
    spread: Callable
    spread_maps: Callable
    replicate: Callable
    single: Callable

    def padded(self, nblocks: int) -> int:
        """Blocks that make equal shares, of two steps or more on each device.

        A loop of one step is compiled differently and does not keep its bits.
        """
        step = self.number * self.together
        return step * max(2, -(-nblocks // step))


class Part(NamedTuple):
    """A run of blocks that is in memory at once."""

    observation: Observation
    templates: np.ndarray
    layout: Layout
    noise_class: np.ndarray


def raw_maps(part: Part, joint: bool, padded: int) -> RawMaps:
    """Return the maps of a part, padded to so many blocks: host arrays."""
    obs, npix = part.observation, padded * part.layout.block

    def flat(x, fill):
        x = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        if x.shape[1] == npix:
            return x
        full = np.full((len(x), npix), fill, x.dtype)
        full[:, : x.shape[1]] = x
        return full

    noise, invN, weight = obs.noise, None, None
    if noise.kind == "pixel":
        invN = flat(noise.shape, 0.0)
    elif noise.kind == "dense_pixel":
        invN = flat(dense_rows(noise, rows(~np.isnan(obs.d), joint), joint), 0.0)
    elif noise.weight is not None:
        weight = flat(noise.weight, 0.0)
    return RawMaps(flat(obs.d, np.nan), flat(part.templates, 0.0), weight, invN)


def lanes_of(part: Part, padded: int) -> Lanes:
    """Return the lanes of a part, padded with empty blocks: host arrays."""
    layout = part.layout

    def pad(x, fill):
        full = np.full((padded, *x.shape[1:]), fill, x.dtype)
        full[: len(x)] = x
        return full

    return Lanes(
        None if layout.index is None else pad(layout.index, -1),
        pad(layout.pool, 0),
        pad(part.noise_class, 0),
    )


class Survey:
    """All samples of this rank, ready for passes.

    Args:
        load: Part of a number, from 0; the parts are in the order of the blocks.
        number: How many parts.
        resident: Keep the maps on the devices between passes.
        often: There will be many passes: samples are packed, and stay so if resident.
            Else they are packed as they are used, a block at a time, in cache.
        joint: Whether Stokes parameters are fitted jointly.
        whitening: Of the noise classes.
        devices: Devices of this rank.
        template: For each global term its row of the templates.
    """

    def __init__(
        self, load, number, *, resident, often, joint, whitening, devices, template=()
    ):
        self._load: Callable[[int], Part] = load
        self._parts = range(number)
        self._joint, self._devices = joint, devices
        self._whitened = whitening.white is not None
        self._whitening = devices.replicate(whitening)
        self.template = tuple(template)
        self._packed, self._resident = often, resident
        self._kept: list[tuple[Part, Any, Any]] | None = None
        if resident:
            self._kept = [*map(self._arrays, self._parts)]
            _enlarge([blocks for *_, blocks in self._kept] if often else [])

    def _arrays(self, i: int) -> tuple[Part, Any, Any]:
        """A part, its maps and its lanes; or, packed, its samples."""
        return self._pack(i) if self._packed else self._raw(i)

    def _raw(self, i: int) -> tuple[Part, RawMaps, Lanes]:
        part = self._load(i)
        padded = self._devices.padded(part.layout.pool.shape[0])
        maps, lanes = raw_maps(part, self._joint, padded), lanes_of(part, padded)
        if not self._resident:  # a program takes them over: quicker, if used once
            return part, maps, lanes
        return part, self._devices.spread_maps(maps), self._devices.spread(lanes)

    def _pack(self, i: int) -> tuple[Part, tuple, Block]:
        part, maps, lanes = self._raw(i)
        packing = _pack_chunks if self._has_chunks(maps) else pack
        program = self._devices.over_blocks(packing)
        return part, (), program(self._whitening, maps, lanes)

    def _has_chunks(self, maps: RawMaps) -> bool:
        """Whether samples are whitened, or have variances of their own."""
        own = maps.invN is not None and len(maps.invN) == len(maps.d)
        return (own or self._whitened) and native.usable()

    def blocks(self) -> Iterator[tuple[Part, Block]]:
        """Yield the parts with their samples packed, on the devices."""
        kept = self._kept if self._packed else None
        for part, _, block in map(self._pack, self._parts) if kept is None else kept:
            join = self._devices.over_blocks(_join)
            yield part, join((), (), block) if in_chunks(block) else block

    def outputs(self, kernel: Callable, tables) -> Iterator[tuple[Part, np.ndarray]]:
        """Run a kernel over every block of this rank, part by part.

        The devices work on a part while the caller has the one before.

        Yields:
            The part, and what the kernel gave, `(block, ...)`.

        Communication: none.
        """
        shared = self._shared(tables)

        def start(maps, blocks):
            return self._program(kernel, tables, maps, blocks)(shared, maps, blocks)

        for part, out in self._run(start):
            yield part, _fetch(part, out)

    def _shared(self, tables) -> tuple[Any, Any]:
        """Put what all blocks share on the devices, ahead of many parts.

        One part takes tables along as they are: small arrays are faster that way.
        """
        many = len(self._parts) > 1
        return self._devices.replicate(tables) if many else tables, self._whitening

    def amplitudes(
        self, tables: Tables
    ) -> Iterator[tuple[Part, np.ndarray, np.ndarray]] | None:
        """Amplitudes and chi2 on the sky, where there is a compiled kernel for them.

        Yields:
            The part, `(comp + 1, group, pix)` s [uK_CMB] and chi2, `(block,)` chi2.

        Communication: none.
        """
        usable = self._whitened and native.few_components(tables) and native.usable()
        return self._amplitudes(tables) if usable and not self._packed else None

    def _amplitudes(self, tables):
        shared = self._shared(tables)
        program = self._devices.over_shares(_native_amplitudes(self.template), (2, 0))
        for part, (maps, chi2) in self._run(lambda m, b: program(shared, m, b)):
            maps = np.asarray(maps)[..., : part.observation.npix]
            yield part, maps, _fetch(part, chi2)

    def _run(self, start: Callable) -> Iterator[tuple[Part, Any]]:
        """What `start` makes of every part, in their order.

        Of parts that are streamed some are read while others are worked on, and a
        part is worked on where it was read: it may still be in cache.
        """

        def one(i: int) -> tuple[Part, Any]:
            part, maps, blocks = self._arrays(i)
            return part, jax.block_until_ready(start(maps, blocks))

        if self._kept is not None:
            yield from [(part, start(*arrays)) for part, *arrays in self._kept]
            return
        # The first by itself: it compiles.
        yield from map(one, self._parts[:1])
        yield from ahead(one, self._parts[1:], _WORKERS)

    def _program(self, kernel: Callable, tables, maps, blocks) -> Callable:
        """The compiled kernel, of these arrays if it has one; else that of XLA."""
        if self._packed:
            return packed_program(self._devices, kernel, tables, blocks, self.template)
        if kernel is block_root and self._whitened and native.usable():
            ngroup, white = self._whitening.scale.shape[0], self._whitening.white
            if white.shape[1] + len(maps.t) // ngroup <= native.MOST_ENTRIES:
                return self._devices.over_shares(_native_root)
        return self._devices.over_blocks(_of_raw(kernel, self.template))


def packed_program(
    devices: Devices, kernel: Callable, tables, blocks: Block, template: tuple = ()
) -> Callable:
    """The compiled kernel for packed samples, if there is one; else that of XLA.

    Returns:
        `((tables, whitening), (), blocks)` -> `(block, ...)`.

    Communication: none.
    """
    chunks = in_chunks(blocks)
    own = native_kernel(kernel, tables) if chunks else None
    if jax.default_backend() == "gpu":
        from distsep.inference.gpu_sums import gpu_kernel

        own = gpu_kernel(kernel, tables, blocks)
    if own is not None:
        return devices.over_shares(_own_sums(own, template))
    return devices.over_blocks((_of_chunks if chunks else _of_packed)(kernel, template))


def _fetch(part: Part, out) -> np.ndarray:
    """Wait for the devices; leave the blocks of padding out."""
    return np.asarray(out)[: part.layout.pool.shape[0]]


def _enlarge(blocks: list[Block]) -> None:
    """Put samples in the memory of a processor on large pages."""
    for x in jax.tree.leaves(jax.block_until_ready(blocks)):
        for shard in x.addressable_shards:
            if shard.device.platform == "cpu":
                pages.enlarge(shard.data.unsafe_buffer_pointer(), shard.data.nbytes)


def _pack_chunks(whitening, maps, lanes) -> Block:
    return chunked(pack(whitening, maps, lanes), native.LANES)


def _join(_shared, _maps, block: Block) -> Block:
    return joined(block)


# Kernels for some global terms: the same function at each call, to compile it once.
@lru_cache(maxsize=64)
def _of_packed(kernel: Callable, template: tuple) -> Callable:
    return lambda shared, _, block: kernel(shared[0], block, template)


@lru_cache(maxsize=64)
def _of_chunks(kernel: Callable, template: tuple) -> Callable:
    return lambda shared, _, block: kernel(shared[0], joined(block), template)


@lru_cache(maxsize=64)
def _of_raw(kernel: Callable, template: tuple) -> Callable:
    """Of maps that are packed on the way."""

    def function(shared, maps, lanes):
        tables, whitening = shared
        return kernel(tables, pack(whitening, maps, lanes), template)

    return function


@lru_cache(maxsize=64)
def _own_sums(kernel: Callable, template: tuple) -> Callable:
    return lambda shared, _, block: kernel(shared[0], block, template)


@lru_cache(maxsize=64)
def _native_amplitudes(template: tuple) -> Callable:
    return lambda shared, maps, lanes: native.amplitudes(*shared, maps, lanes, template)


def _native_root(shared, maps, lanes):
    return native.root(shared[1], maps, lanes)


class PoolSums:
    """`(kernel, x) -> (pool, k)`: one pass, summed over blocks and ranks.

    Args:
        survey: The samples of this rank.
        model: Tables of the pools of this rank.
        pieces: How tiles add up to pools.
        total: Sum of an array over the ranks.

    Communication: each call is one allreduce of the table of pieces.
    """

    def __init__(self, survey: Survey, model: Model, pieces: Pieces, total: Callable):
        self._survey, self._model = survey, model
        self._pieces, self._total = pieces, total

    def __call__(self, kernel: Callable, x, merge=np.add.reduceat) -> np.ndarray:
        """One pass, at parameters x, or at none for a kernel that needs no tables.

        Communication: one allreduce of the table of pieces.
        """
        tables = None if x is None else self._model.tables_for(kernel, x)
        first, *others = [x for _, x in self._survey.outputs(kernel, tables)]
        rows = np.concatenate([first, *others]) if others else first
        table = self._total(self._pieces.table(rows, merge))
        return self._pieces.pool_sum(table, merge)
