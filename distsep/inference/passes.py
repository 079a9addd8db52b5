"""Passes over the samples of a rank: from maps to sums over pools.

`Survey` holds what a pass needs: the maps (in memory, or read again part by part), the
layout of their samples, and the sum over ranks. The devices and the sum come in as
arguments; nothing here knows of MPI or of files.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from distsep.data.layout import Layout, PieceSum
from distsep.data.observation import Observation
from distsep.data.samples import marginalise_missing, rows
from distsep.inference.likelihood import Block
from distsep.inference.packing import RawBlock, Whitening, pack


class Devices(NamedTuple):
    """The devices of this rank, as functions (see `parallel.mesh`).

    Attributes:
        number: How many.
        over_blocks: `f(shared, block)` -> jitted function of (shared, blocks).
        spread: Puts arrays on the devices, the leading axis shared out.
        replicate: Puts arrays on every device.
        single: Puts arrays on the first device.
    """

    number: int
    over_blocks: Callable
    spread: Callable
    replicate: Callable
    single: Callable

    def padded(self, nblocks: int) -> int:
        """Blocks that make equal shares, at least two on each device.

        A loop of one step is compiled differently and does not keep its bits.
        """
        return self.number * max(2, -(-nblocks // self.number))


class Part(NamedTuple):
    """A run of blocks that is in memory at once."""

    observation: Observation
    templates: np.ndarray
    layout: Layout
    noise_class: np.ndarray


def raw_blocks(part: Part, joint: bool, padded: int) -> RawBlock:
    """Cut the maps of a part into blocks, the last ones empty: host arrays."""
    block, obs = part.layout.block, part.observation
    nblocks, ntile = part.layout.pool.shape

    def cut(x, fill):
        full = np.full((*x.shape[:-1], padded * block), fill, x.dtype)
        full[..., : x.shape[-1]] = x
        return np.moveaxis(full.reshape(*x.shape[:-1], padded, block), -2, 0)

    def pad(x, fill):
        full = np.full((padded, *x.shape[1:]), fill, x.dtype)
        full[:nblocks] = x
        return full

    noise, invN, weight = obs.noise, None, None
    if noise.kind == "pixel":
        invN = cut(rows(noise.shape, joint), 0.0)
    elif noise.kind == "dense_pixel":
        invN = cut(_dense_rows(obs, joint), 0.0)
    elif noise.weight is not None:
        weight = cut(noise.weight, 0.0)
    return RawBlock(
        d=cut(rows(obs.d, joint), np.nan),
        t=cut(part.templates, 0.0),
        index=pad(part.layout.index, -1),
        pool=pad(part.layout.pool, 0),
        noise_class=pad(part.noise_class, 0),
        weight=weight,
        invN=invN,
    )


def _dense_rows(obs: Observation, joint: bool) -> np.ndarray:
    """Inverse covariances `(row, row, group, pix)`, missing bands marginalised."""
    shape = np.moveaxis(obs.noise.shape, 0, 2)
    nfreq, _, nstokes, npix = shape.shape
    seen = ~np.isnan(obs.d)
    if joint:
        whole = np.zeros((nfreq, nstokes, nfreq, nstokes, npix))
        for k in range(nstokes):
            whole[:, k, :, k] = shape[:, :, k]
        n = nfreq * nstokes
        return marginalise_missing(
            whole.reshape(n, n, npix), seen.reshape(n, npix)
        ).reshape(n, n, 1, npix)
    flat = marginalise_missing(shape.reshape(nfreq, nfreq, -1), seen.reshape(nfreq, -1))
    return flat.reshape(nfreq, nfreq, nstokes, npix)


class Survey:
    """All samples of this rank, ready for passes.

    Args:
        parts: Function that yields the parts, in the order of the blocks.
        resident: Keep the packed samples on the devices between passes.
        joint: Whether Stokes parameters are fitted jointly.
        whitening: Of the noise classes.
        devices: Devices of this rank.
        template: For each global term its row of the templates.
    """

    def __init__(self, parts, *, resident, joint, whitening, devices, template=()):
        self._parts: Callable[[], Iterator[Part]] = parts
        self._joint, self._devices = joint, devices
        self._whitening = devices.replicate(whitening)
        self.template = tuple(template)
        self._pack = devices.over_blocks(pack)
        self._programs: dict = {}
        self._blocks = list(self._packed()) if resident else None

    def _packed(self) -> Iterator[tuple[int, Block]]:
        for part in self._parts():
            nblocks = part.layout.pool.shape[0]
            raw = raw_blocks(part, self._joint, self._devices.padded(nblocks))
            yield nblocks, self._pack(self._whitening, self._devices.spread(raw))

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Yield (number of blocks, packed blocks) of each part."""
        yield from (self._packed() if self._blocks is None else self._blocks)

    def program(self, kernel: Callable) -> Callable:
        """Return the sharded program of a kernel, compiled once."""
        if kernel not in self._programs:
            template = self.template
            self._programs[kernel] = self._devices.over_blocks(
                lambda tables, block: kernel(tables, block, template)
            )
        return self._programs[kernel]

    def rows(self, kernel: Callable, tables) -> np.ndarray:
        """Run a kernel over every block: `(block, tile, k)` of this rank.

        Communication: none.
        """
        program, tables = self.program(kernel), self._devices.replicate(tables)
        started = [(n, program(tables, block)) for n, block in self.blocks()]
        return [np.asarray(out)[:n] for n, out in started]


class PoolSums:
    """`(kernel, tables) -> (pool, k)`: one pass, summed over blocks and ranks.

    Communication: each call is one allreduce of the table of pieces.
    """

    def __init__(self, survey: Survey, pieces: PieceSum, rank: int, total: Callable):
        self._survey, self._pieces, self._rank, self._total = (
            survey,
            pieces,
            rank,
            total,
        )

    def __call__(self, kernel: Callable, tables) -> np.ndarray:
        rows = self._survey.rows(kernel, tables)
        rows = np.concatenate(rows) if rows else None
        return self._pieces.pool_sum(
            np.asarray(self._total(self._pieces.table(rows, self._rank)))
        )
