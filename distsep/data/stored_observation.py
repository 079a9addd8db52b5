"""An observation in a store: its header at once, its pixels when asked for."""

from pathlib import Path
from typing import Any

import numpy as np

from distsep.data.healpix import COORDSYS
from distsep.data.noise import Noise, in_words
from distsep.data.observation import STOKES, Observation
from distsep.data.store_header import NOISE_DIMS, Truth
from distsep.data.zarr_group import GroupReader
from distsep.data.zarr_header import damaged
from distsep.model.instrument import Instrument


class StoredObservation:
    """An observation on disk: its header is read, its pixels when asked for.

    Attributes are those of `Observation`, without pixels; `path` and `truth` (None if
    the sky is not simulated) besides.

    Args:
        path: Directory of the store.

    Raises:
        FileNotFoundError, ValueError: if it is no complete observation.

    Communication: none.
    """

    def __init__(self, path: str | Path) -> None:
        self._reader = GroupReader(path)
        if self._reader.kind != "observation":
            raise ValueError(f"{path} holds a {self._reader.kind}, not an observation.")
        try:
            self._read_header()
        except (KeyError, TypeError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(damaged(self._reader.path, what)) from None
        self._check()

    def __repr__(self) -> str:
        return (
            f"StoredObservation({str(self.path)!r}: {len(self.bands)} bands, "
            f"{self.stokes}, {self.grid.npix} pixels of nside {self.nside}, "
            f"noise: {in_words(self.noise_kind, 'weight' in self._reader.names)})"
        )

    def _read_header(self) -> None:
        head = self._reader.attributes
        self.path, self.grid = self._reader.path, self._reader.grid
        self.instrument = Instrument.from_dict(head["instrument"])
        self.bands = self.instrument.bands
        self.stokes: str = head["stokes"]
        self.nside: int = 2 ** head["dggs"]["refinement_level"]
        self.coordsys: str = head["coordsys"]
        self.polcconv: str = head["polcconv"]
        self.resolution: float | None = head["resolution"]
        self.provenance: dict[str, Any] = head["provenance"]
        self.warnings: tuple[str, ...] = tuple(head["warnings"])
        self._said = {"bands": tuple(head["bands"]), **head["dggs"]}
        dims = self._reader.dims("inverse_noise")
        kinds = {dims: kind for kind, dims in NOISE_DIMS.items()}
        self.noise_kind: str = kinds[dims]
        self.dtype = self._reader.dtype("maps")
        # Known when it was written: a run need not look for missing bands.
        self.complete: bool = head.get("complete_bands", False)
        truth = head.get("truth")
        self.truth = truth and Truth(
            tuple(truth["components"]), tuple(truth["units"]), truth["parameters"]
        )

    def _check(self) -> None:
        """Refuse a header that the arrays, or its own words, contradict."""
        path, level = self._reader.path, self._said["refinement_level"]
        words = {
            "stokes": (self.stokes, STOKES),
            "coordsys": (self.coordsys, COORDSYS),
            "polcconv": (self.polcconv, ("COSMO",)),
            "indexing_scheme": (self._said.get("indexing_scheme"), ("nested",)),
            "bands": (self._said["bands"], (self.bands,)),
            "refinement_level": (level, range(30)),
        }
        for name, (value, known) in words.items():
            if value not in known:
                raise ValueError(damaged(path, f"{name} = {value!r}"))
        if self.npix > 12 * self.nside**2:
            what = f"{self.npix} pixels, more than the sphere of nside {self.nside}"
            raise ValueError(damaged(path, what))
        n, ns = len(self.bands), len(self.stokes)
        length = {"freq": n, "freq_2": n, "stokes": ns, "cells": self.npix}
        dims = {
            "maps": ("freq", "stokes", "cells"),
            "cell_ids": ("cells",),
            "inverse_noise": NOISE_DIMS[self.noise_kind],
        }
        if "weight" in self._reader.names:
            dims["weight"] = ("cells",)
        for name, axes in dims.items():
            expected = tuple(length[axis] for axis in axes)
            found = self._reader.shape(name)
            if found != expected:
                what = f"shape {found}, expected {expected} by the header of the store"
                raise ValueError(damaged(path, what, name))

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
