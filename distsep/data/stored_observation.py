"""An observation in a store: its header at once, its pixels when asked for."""

from pathlib import Path

import numpy as np

from distsep.data.noise import Noise, in_words
from distsep.data.observation import Observation
from distsep.data.store_header import NOISE_DIMS, PER_UNIT, UNIT
from distsep.data.zarr_header import ObservationHeader, damaged
from distsep.data.zarr_reader import GroupReader


class StoredObservation:
    """An observation on disk: its header is read, its pixels when asked for.

    Attributes are those of `Observation`, without pixels; `path` and `truth` (None if
    the sky is not simulated) besides.

    Args:
        path: Directory of the store, or its reader where that is open already.

    Raises:
        FileNotFoundError, ValueError: if it is no complete observation.

    Communication: none.
    """

    def __init__(self, path: str | Path | GroupReader) -> None:
        reader = path if isinstance(path, GroupReader) else GroupReader(path)
        self._reader, head = reader, reader.header
        if not isinstance(head, ObservationHeader):
            raise ValueError(
                f"{reader.path} holds a {reader.kind}, not an observation."
            )
        kinds = {axes: kind for kind, axes in NOISE_DIMS.items()}
        self.noise_kind: str = kinds[reader.require_axes("inverse_noise", *kinds)]
        for name, unit in (("maps", UNIT), ("inverse_noise", PER_UNIT)):
            if (found := reader.attributes_of(name).get("units")) != unit:
                what = f"units = {found!r}, expected {unit!r}"
                raise ValueError(damaged(reader.path, what, name))
        self.path, self.grid = reader.path, reader.grid
        self.dtype = reader.dtype("maps")
        self.instrument, self.bands = head.instrument, head.bands
        self.stokes, self.nside = head.stokes, head.nside
        self.coordsys, self.polcconv = head.coordsys, head.polcconv
        self.resolution, self.provenance = head.resolution, head.provenance
        self.warnings, self.truth = head.warnings, head.truth
        # Known when it was written: a run need not look for missing bands.
        self.complete = head.complete_bands

    def __repr__(self) -> str:
        return (
            f"StoredObservation({str(self.path)!r}: {len(self.bands)} bands, "
            f"{self.stokes}, {self.grid.npix} pixels of nside {self.nside}, "
            f"noise: {self.noise_in_words})"
        )

    @property
    def noise_in_words(self) -> str:
        """How the noise was given."""
        return in_words(self.noise_kind, "weight" in self._reader.names)

    @property
    def noise(self) -> Noise:
        """The noise, without pixels."""
        empty = self._reader.read("inverse_noise", 0, 0)
        return Noise(empty, self.noise_kind)

    @property
    def npix(self) -> int:
        """Observed pixels of the whole data set."""
        return self.grid.npix

    def read(
        self, first: int = 0, last: int | None = None, *, passing: bool = False
    ) -> Observation:
        """Read the chunks [first, last); by default all of them.

        Args:
            first: First chunk.
            last: The chunk after the last.
            passing: Wanted for a moment, while the store is not changed: see
                `GroupReader.read`.

        Raises:
            OSError: if a chunk is missing or truncated; the file is named.
        """
        last = self.grid.nchunks if last is None else last
        reader = self._reader
        weighted = "weight" in reader.names
        weight = reader.read("weight", first, last) if weighted else None
        return Observation.from_canonical(
            d=reader.read("maps", first, last, passing=passing),
            noise=Noise(
                reader.read("inverse_noise", first, last, passing=passing),
                self.noise_kind,
                weight,
            ),
            cell_ids=reader.read("cell_ids", first, last),
            grid=self.grid,
            start=min(first * self.grid.chunk, self.grid.npix),
            instrument=self.instrument,
            stokes=self.stokes,
            nside=self.nside,
            coordsys=self.coordsys,
            polcconv=self.polcconv,
            resolution=self.resolution,
            provenance=self.provenance,
            warnings=self.warnings,
        )

    def read_pixels(self, first: int = 0, last: int | None = None) -> Observation:
        """Read the pixel numbers of chunks [first, last) only: no band, no noise."""
        ids = self._reader.read("cell_ids", first, last)
        return Observation.from_canonical(
            d=np.zeros((0, len(self.stokes), len(ids))),
            noise=self.noise,
            cell_ids=ids,
            grid=self.grid,
            start=min(first * self.grid.chunk, self.grid.npix),
            instrument=self.instrument,
            stokes=self.stokes,
            nside=self.nside,
        )

    def read_truth(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Read the true amplitudes `(comp, stokes, pix)` of chunks [first, last)."""
        return self._reader.read("truth", first, last)
