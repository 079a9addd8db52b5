"""Where the maps of a rank come from, one part after another.

A part is a run of whole blocks that is in memory at once: all pixels of the rank, or
one run of chunks of a store that is read again at every pass.
"""

from typing import Any

import numpy as np

from distsep.data.blocks import Grid
from distsep.data.observation import Observation
from distsep.data.stored_observation import StoredObservation
from distsep.data.zarr_header import damaged

# Maps of a rank up to this size stay in memory, packed, between passes [bytes].
RESIDENT = 2**29
# A part of a streamed store has about this size [bytes]: Python's share is small then.
# One chunk of a large store has it: a file that need not be copied.
PART = 2**23


def _has_nan(observation: Observation) -> bool:
    """Whether a sample is NaN: a sum is the quickest look, for none is infinite."""
    return bool(np.isnan(np.sum(observation.d)))


class ArraySource:
    """Pixels that are in memory: one part.

    Attributes:
        header: The observation; its instrument, stokes, ... are those of all parts.
        resident: Whether packed samples may stay in memory.
        complete: Whether every band is known to have observed every pixel.
        number: Number of parts.
    """

    def __init__(self, observation: Observation):
        self.complete = not _has_nan(observation)
        self.header, self.resident, self.number = observation, True, 1

    def load(self, part: int) -> Observation:  # noqa: ARG002
        """Return the maps of a part."""
        return self.header

    pixels = load

    def used(self, cell_ids: np.ndarray) -> np.ndarray:
        """Return True for each of these pixels that is used."""
        return np.ones(len(cell_ids), bool)

    def of(self, stored: Any) -> "ArraySource":
        """Return all pixels of a store, for maps of some of them."""
        return ArraySource(stored.read())

    def npix(self, part: int) -> int:  # noqa: ARG002
        """Return the number of pixels of a part."""
        return self.header.npix


class StoreSource:
    """The chunks of a store that one rank owns: one part, or many that are streamed.

    Args:
        stored: A `StoredObservation`.
        first, last: Chunks [first, last) of this rank.
        used: True for each NEST pixel of the sphere to use, or None for all.
        ranks: Number of ranks that share the store.
    """

    def __init__(self, stored: Any, first: int, last: int, used=None, ranks: int = 1):
        self.header, self._used = stored, used
        self._owned = first, last
        self.complete = used is None and stored.complete
        self._checked: set[int] = set()
        nf, ns, grid = len(stored.bands), len(stored.stokes), stored.grid
        chunk_bytes = nf * ns * grid.chunk * stored.dtype.itemsize
        # By the share of the rank that has most: all decide alike.
        self.resident = chunk_bytes * -(-grid.nchunks // ranks) <= RESIDENT
        step = max(last - first, 1) if self.resident else max(PART // chunk_bytes, 1)
        cuts = range(first, max(last, first + 1), step)
        self._runs = [(a, min(a + step, last)) for a in cuts]

    @property
    def number(self) -> int:
        """Number of parts."""
        return len(self._runs)

    def load(self, part: int) -> Observation:
        """Read the maps of a part; masked pixels are NaN in every band."""
        run = self._runs[part]
        if self._used is None:
            obs = self.header.read(*run, passing=not self.resident)
            self._check(obs, part)
            return obs
        obs = self.header.read(*run)
        obs.d[..., ~self.used(obs.cell_ids)] = np.nan  # read for this pass alone
        return obs

    def _check(self, obs: Observation, part: int) -> None:
        """Refuse a NaN, once, where the store says that there is none."""
        if not self.complete or part in self._checked:
            return
        if _has_nan(obs):
            what = "complete_bands is true, and the maps hold NaN"
            raise ValueError(damaged(self.header.path, what))
        self._checked.add(part)

    def used(self, cell_ids: np.ndarray) -> np.ndarray:
        """Return True for each of these pixels that is used."""
        if self._used is None:
            return np.ones(len(cell_ids), bool)
        return self._used[cell_ids]

    def of(self, stored: Any) -> "StoreSource":
        """Return the same chunks of another store, whose grid must be the same."""
        if stored.grid != self.header.grid:
            raise ValueError(
                "`apply(observation)`: the store has other pixels than the one fitted."
            )
        other = StoreSource(stored, *self._owned, self._used)
        # In parts of the same pixels, whatever the type of its numbers.
        other.resident, other._runs = self.resident, self._runs
        return other

    def npix(self, part: int) -> int:
        """Return the number of pixels of a part."""
        ends = (self.header.grid.chunk_range(c)[0] for c in self._runs[part])
        first, last = (min(pixel, self.header.npix) for pixel in ends)
        return last - first

    def pixels(self, part: int) -> Observation:
        """Read the pixel numbers of a part only; `d` has no bands."""
        return self.header.read_pixels(*self._runs[part])


class _OfSamePixels:
    """Other maps of the samples of a source, with its noise."""

    def __init__(self, first: Any):
        self.header, self.resident = first.header, first.resident
        self.complete, self.number = first.complete, first.number
        self._first = first

    def pixels(self, part: int) -> Observation:
        """Return the pixel numbers of a part."""
        return self._first.pixels(part)

    def npix(self, part: int) -> int:
        """Return the number of pixels of a part."""
        return self._first.npix(part)


class PairSource(_OfSamePixels):
    """Other maps of the same samples, with the noise of the first.

    Args:
        first: The source that was fitted.
        observation: Maps of the same pixels and bands: in memory, or a store's.

    Raises:
        TypeError: what is given is no observation.
        ValueError: other pixels, bands or Stokes parameters.
    """

    def __init__(self, first: Any, observation: Any):
        if not isinstance(observation, Observation | StoredObservation):
            raise TypeError(
                "`apply(observation)`: expected `distsep.Observation(maps, ...)` or "
                "`distsep.open_observation(path)`, got "
                f"{type(observation).__name__}."
            )
        super().__init__(first)
        one, other = first.header, observation
        for what in ("nside", "stokes", "coordsys"):
            if getattr(one, what) != getattr(other, what):
                raise ValueError(
                    f"`apply(observation)`: expected {what} {getattr(one, what)!r}, "
                    f"that of the fit; got {getattr(other, what)!r}."
                )
        fitted, given = one.instrument.spectral, other.instrument.spectral
        if given["bands"] != fitted["bands"]:
            raise ValueError(
                f"`apply(observation)`: expected the bands {', '.join(fitted['bands'])}"
                f"; got {', '.join(given['bands'])}."
            )
        for what, value in fitted.items():
            if given[what] != value:
                raise ValueError(
                    f"`apply(observation)`: its bands have another `{what}` than those "
                    "of the fit, and the weights are of those. Give these maps the "
                    "instrument they were fitted with, or fit them again."
                )
        if isinstance(other, Observation):
            self._other = ArraySource(other)
        else:
            self._other = first.of(other)

    def load(self, part: int) -> Observation:
        """Return the other maps where the first were observed, NaN elsewhere."""
        one, other = self._first.load(part), self._other.load(part)
        if not np.isin(one.cell_ids, other.cell_ids).all():
            raise ValueError(
                "`apply(observation)`: the maps lack pixels that were fitted. Pixels "
                "that are zero in every map are not observed, unless "
                "`Observation(observed=...)` says that they are."
            )
        place = np.searchsorted(other.cell_ids, one.cell_ids)
        d = np.where(np.isnan(one.d), np.nan, other.d[..., place])
        lacking = (np.isnan(d) & ~np.isnan(one.d)).sum((1, 2))
        if lacking.any():
            band = int(np.argmax(lacking))
            raise ValueError(
                f"`apply(observation)`: band {one.instrument.bands[band]} lacks "
                f"{lacking[band]} samples that were fitted: the weights need them all. "
                "Fit again with these samples missing (NaN)."
            )
        return one.replace(d=d)


class OnesSource(_OfSamePixels):
    """Maps that are 1 in one band, and 0 in the others that observed a sample.

    Args:
        first: The source that was fitted.
        band: Number of the band.
    """

    def __init__(self, first: Any, band: int):
        super().__init__(first)
        self._band = band

    def load(self, part: int) -> Observation:
        """Return them where the first were observed, NaN elsewhere."""
        one = self._first.load(part)
        ones = np.zeros(one.d.shape)
        ones[self._band] = 1.0
        return one.replace(d=np.where(np.isnan(one.d), np.nan, ones))


def placed(obs: Observation, rank: int, npix: list[int]) -> Observation:
    """Give the arrays of several ranks their place in one data set."""
    if len(npix) == 1 or (obs.npix and obs.grid.npix != obs.npix):
        return obs
    return obs.replace(grid=Grid.of(sum(npix)), start=sum(npix[:rank]))
