"""A zarr group with pixels, read chunk by chunk once it is known to be whole.

Chunks are not compressed: the size of every chunk file is known, and a missing or
truncated one is found before it is read (zarr itself gives fill values for it).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from distsep.data import pages
from distsep.data.chunk_files import check_file, chunk_file, read_rows
from distsep.data.zarr_header import (
    CELLS,
    FORMAT,
    HEADERS,
    Header,
    checked,
    damaged,
    is_json,
    read_header,
)


class GroupReader:
    """Reads a complete store, a run of chunks at a time.

    Args:
        path: Directory of the store.

    Attributes:
        kind: "observation" or "result".
        header: What it says of itself.
        grid: How its pixels are cut.
        names: Its arrays.

    Raises:
        FileNotFoundError: if there is no distsep store.
        ValueError: if it was not finished, is of a later format, or contradicts itself.

    Communication: none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        found = read_header(self.path)
        if found is None:
            file = self.path / "zarr.json"
            if file.is_file() and not is_json(file):
                raise ValueError(damaged(self.path, "it cannot be read"))
            if not self.path.exists():
                raise FileNotFoundError(f"there is no {self.path}.")
            words = "is not a distsep store: `distsep import` makes one of FITS maps."
            raise FileNotFoundError(f"{self.path} {words}")
        marks = found["distsep"] if isinstance(found["distsep"], dict) else {}
        self.kind, written = marks.get("kind"), marks.get("format")
        if self.kind not in tuple(HEADERS) or type(written) is not int:
            raise ValueError(damaged(self.path, f"distsep = {found['distsep']!r}"))
        if written > FORMAT:
            raise ValueError(
                f"{self.path} was written by a later version of distsep (format "
                f"{written}, expected {FORMAT}): update distsep."
            )
        if found.get("complete") is not True:
            raise ValueError(
                f"{self.path} was not finished: the run that wrote it was stopped or "
                "is still writing. Run it again with `--overwrite`."
            )
        self.header: Header = checked(self.path, HEADERS[self.kind], found)
        self.grid = self.header.grid
        # Opened once: a pass over many chunks asks for each of them again.
        self._arrays: dict[str, Any] = {}
        self._small: dict[str, np.ndarray] = {}
        for file in sorted(self.path.glob("*/zarr.json")):
            name = file.parent.name
            try:
                self._arrays[name] = zarr.open_array(file.parent, mode="r")
            except Exception as error:
                raise ValueError(damaged(self.path, error, name)) from None
        self.names: tuple[str, ...] = tuple(self._arrays)
        for name, axes in self.header.axes.items():
            self.require_axes(name, axes)
        self._check_arrays()

    def require_axes(self, name: str, *known: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the axes of an array, which are one of those known."""
        self._array(name)
        if (axes := self.dims(name)) not in known:
            what = f"axes {axes}, expected {' or '.join(map(str, known))}"
            raise ValueError(damaged(self.path, what, name))
        return axes

    def _check_arrays(self) -> None:
        """Refuse arrays that are not as long, or not cut, as the header says."""
        lengths = dict(self.header.lengths)
        for name, array in self._arrays.items():
            axes, found = self.dims(name), array.shape
            if len(axes) != len(found):
                continue  # none of ours
            # An axis that the header does not know is as long in all arrays.
            expected = tuple(map(lengths.setdefault, axes, found))
            if found != expected:
                what = f"shape {found}, expected {expected} by the header of the store"
                raise ValueError(damaged(self.path, what, name))
            if axes[-1:] == (CELLS,) and (cut := array.chunks[-1]) != self.grid.chunk:
                what = f"chunks of {cut} pixels, expected {self.grid.chunk}"
                raise ValueError(damaged(self.path, what, name))

    def dims(self, name: str) -> tuple[str, ...]:
        """Return the names of the axes of an array."""
        return tuple(self._array(name).metadata.dimension_names or ())

    def attributes_of(self, name: str) -> dict[str, Any]:
        """Return the attributes of one array."""
        return dict(self._array(name).attrs)

    def dtype(self, name: str) -> np.dtype:
        """Return the type of the numbers of an array."""
        return self._array(name).dtype

    def read(
        self, name: str, first: int = 0, last: int | None = None, *, passing=False
    ) -> np.ndarray:
        """Read the chunks [first, last) of an array, or an array without pixels.

        Args:
            name: Of the array.
            first: First chunk.
            last: The chunk after the last; None: all.
            passing: Wanted for a moment: one chunk need not be copied from the memory
                of the system.

        Raises:
            OSError: if a chunk file is missing or truncated; it is named.
        """
        array = self._array(name)
        if self.dims(name)[-1:] != (CELLS,):
            if name not in self._small:
                if array.size:
                    self._file(name, array, 0)
                self._small[name] = np.asarray(array[...])
            return self._small[name].copy()
        last = self.grid.nchunks if last is None else last
        start = self.grid.chunk_range(first)[0] if last > first else 0
        stop = self.grid.chunk_range(last - 1)[1] if last > first else 0
        # Plain numbers, little-endian, and signed: as healpy takes numbers of pixels.
        plain = np.dtype(array.dtype.newbyteorder("<").str.replace("u", "i"))
        shape = *array.shape[:-1], stop - start
        if passing and last - first == 1 and stop - start == array.chunks[-1]:
            held = pages.in_memory(self._file(name, array, first), plain)
            if held is not None:
                return held.reshape(shape)
        out = pages.empty(shape, plain)
        rows = out.reshape(math.prod(array.shape[:-1]), stop - start)
        for chunk in range(first, last):
            file = self._file(name, array, chunk)
            a, b = (pixel - start for pixel in self.grid.chunk_range(chunk))
            if b - a < array.chunks[-1]:  # the last one is filled up
                whole = np.fromfile(file, plain).reshape(len(rows), -1)
                rows[:, a:b] = whole[:, : b - a]
            else:
                read_rows(file, [row[a:b] for row in rows])
        return out

    def _file(self, name: str, array: Any, chunk: int) -> Path:
        """Return the file of a chunk; an error if it is missing or truncated."""
        file = chunk_file(self.path, name, array, chunk)
        check_file(file, array)
        return file

    def _array(self, name: str) -> Any:
        if name not in self.names:
            what = f"there is no such array, only {', '.join(self.names)}"
            raise ValueError(damaged(self.path, what, name))
        return self._arrays[name]
