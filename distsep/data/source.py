"""Where the maps of a rank come from, one part after another.

A part is a run of whole blocks that is in memory at once: all pixels of the rank, or
one run of chunks of a store that is read again at every pass.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from distsep.data.blocks import Grid
from distsep.data.observation import Observation

# Maps of a rank up to this size stay in memory, packed, between passes [bytes].
RESIDENT = 2**29
# A part of a streamed store has about this size [bytes].
PART = 2**26


class ArraySource:
    """Pixels that are in memory: one part.

    Attributes:
        header: The observation; its instrument, stokes, ... are those of all parts.
        resident: Whether packed samples may stay in memory.
        number: Number of parts.
    """

    def __init__(self, observation: Observation):
        self.header, self.resident, self.number = observation, True, 1

    def load(self, part: int) -> Observation:  # noqa: ARG002
        """Return the maps of a part."""
        return self.header

    pixels = load


class StoreSource:
    """The chunks of a store that one rank owns: one part, or many that are streamed.

    Args:
        stored: A `StoredObservation`.
        first, last: Chunks [first, last) of this rank.
        used: True for each NEST pixel of the sphere to use, or None for all.
        resident: Most bytes of maps to keep in memory.
    """

    def __init__(
        self, stored: Any, first: int, last: int, used=None, resident=RESIDENT
    ):
        self.header, self._used = stored, used
        nf, ns, grid = len(stored.bands), len(stored.stokes), stored.grid
        chunk_bytes = nf * ns * grid.chunk * stored.dtype.itemsize
        self.resident = chunk_bytes * (last - first) <= resident
        step = max(last - first, 1) if self.resident else max(PART // chunk_bytes, 1)
        cuts = range(first, max(last, first + 1), step)
        self._runs = [(a, min(a + step, last)) for a in cuts]
        self.number = len(self._runs)

    def load(self, part: int) -> Observation:
        """Read the maps of a part; masked pixels are NaN in every band."""
        obs = self.header.read(*self._runs[part])
        if self._used is None:
            return obs
        keep = self._used[obs.cell_ids.astype(np.int64)]
        return obs.replace(d=np.where(keep, obs.d, np.asarray(np.nan, obs.d.dtype)))

    def pixels(self, part: int) -> Observation:
        """Read the pixel numbers of a part only; `d` has no bands."""
        return self.header.read_pixels(*self._runs[part])


def ahead(function, items) -> Iterator:
    """Yield `function(item)` in order, the next one made in a thread meanwhile."""
    items = list(items)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(function, items[0]) if items else None
        for after in [*items[1:], None]:
            done = coming.result()
            coming = None if after is None else pool.submit(function, after)
            yield done


def placed(obs: Observation, rank: int, npix: list[int]) -> Observation:
    """Give the arrays of several ranks their place in one data set."""
    if len(npix) == 1 or obs.grid.npix != obs.npix:
        return obs
    return obs.replace(grid=Grid.of(sum(npix)), start=sum(npix[:rank]))
