"""Passes over the samples of a rank: from maps to sums over pools.

`Survey` holds what a pass needs: the maps (in memory, or read again part by part), the
layout of their samples, and the sum over ranks. The devices and the sum come in as
arguments; nothing here knows of MPI or of files.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from distsep.data.layout import Layout, Pieces
from distsep.data.observation import Observation
from distsep.data.samples import marginalise_missing, rows
from distsep.inference.likelihood import Block
from distsep.inference.packing import RawBlock, pack


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
        if x.shape[-1] == padded * block:
            return np.moveaxis(x.reshape(*x.shape[:-1], padded, block), -2, 0)
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
        index=None if part.layout.index is None else pad(part.layout.index, -1),
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
        self._kept = list(self._packed()) if resident else None

    def _packed(self) -> Iterator[tuple[Part, Block]]:
        for part in self._parts():
            padded = self._devices.padded(part.layout.pool.shape[0])
            raw = raw_blocks(part, self._joint, padded)
            yield part, self._pack(self._whitening, self._devices.spread(raw))

    def outputs(self, kernel: Callable, tables) -> Iterator[tuple[Part, np.ndarray]]:
        """Run a kernel over every block of this rank, part by part.

        Yields:
            The part, and what the kernel gave, `(block, ...)`.

        Communication: none.
        """
        program = self._devices.over_blocks(_with(kernel, self.template))
        tables = self._devices.replicate(tables)
        for part, blocks in self._packed() if self._kept is None else self._kept:
            nblocks = part.layout.pool.shape[0]
            yield part, np.asarray(program(tables, blocks))[:nblocks]


@lru_cache(maxsize=64)
def _with(kernel: Callable, template: tuple) -> Callable:
    """Return the kernel for some global terms: the same function at each call."""
    return lambda tables, block: kernel(tables, block, template)


class PoolSums:
    """`(kernel, tables) -> (pool, k)`: one pass, summed over blocks and ranks.

    Args:
        survey: The samples of this rank.
        pieces: How tiles add up to pools.
        total: Sum of an array over the ranks.

    Communication: each call is one allreduce of the table of pieces.
    """

    def __init__(self, survey: Survey, pieces: Pieces, total: Callable):
        self._survey, self._pieces, self._total = survey, pieces, total

    def __call__(self, kernel: Callable, tables, merge=np.add.reduceat) -> np.ndarray:
        """One pass. Communication: one allreduce of the table of pieces."""
        rows = np.concatenate([x for _, x in self._survey.outputs(kernel, tables)])
        table = np.asarray(self._total(self._pieces.table(rows, merge)))
        return self._pieces.pool_sum(table, merge)
