"""A zarr group with pixels: written by many ranks, complete only when it says so.

Chunks are cut along the pixels alone and are not compressed: the size of every chunk
file is known, and a missing or truncated one is found before it is read (zarr itself
gives fill values for a missing chunk). What the arrays mean is not known here.
"""

import errno
import math
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from zarr.errors import BaseZarrError

from distsep.data import pages
from distsep.data.blocks import Grid
from distsep.data.chunk_files import check_file, chunk_file, read_rows, write_rows
from distsep.data.place import require_place
from distsep.data.plain import plain
from distsep.data.zarr_header import Header, damaged, is_json, read_header
from distsep.parallel import Comm, serial

FORMAT = 1
# A chunk that happens to hold only fill values is a file like any other.
_EVERY_CHUNK = {"array.write_empty_chunks": True}
CELLS = "cells"
# Chunks that wait to be written, of all arrays together.
_MOST_WAITING = 8
# Files that are written at once: a system may take its time to find memory for them.
_WRITERS = 2


@dataclass(frozen=True)
class PixelArray:
    """An array to be written chunk by chunk; its last axis is the pixels.

    Attributes:
        dims: Names of the axes; the last is "cells".
        leading: Lengths of the axes before the pixels.
        dtype: Type of the numbers.
        unit: Unit, or "".
        attributes: What else is said of it.
    """

    dims: tuple[str, ...]
    leading: tuple[int, ...]
    dtype: Any
    unit: str = ""
    attributes: Mapping[str, Any] | None = None


class GroupWriter:
    """Writes one store from all ranks, each its own chunks.

    Args:
        path: Directory of the store.
        kind: "observation" or "result".
        grid: The block grid; one chunk of every array per chunk of the grid.
        arrays: The arrays with pixels, by name.
        attributes: Attributes of the group that are known at the start.
        comm: The ranks; None: this process alone.
        overwrite: Replace a store of the same kind. Anything else is never replaced.

    Raises:
        FileExistsError: if the path exists and may not be replaced. On all ranks.
        OSError: if it cannot be made. On all ranks.

    Communication: collective (three broadcasts). `write` is local, `finish` collective.
    """

    def __init__(
        self,
        path: str | Path,
        kind: str,
        grid: Grid,
        arrays: Mapping[str, PixelArray],
        attributes: Mapping[str, Any] | None = None,
        *,
        comm: Comm | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self.grid = Path(path), grid
        self._final, self._comm = self.path, comm or serial()
        require_place(path, kind, overwrite=overwrite, comm=self._comm)
        head = read_header(self.path) if self._comm.rank == 0 else None
        # A good store is there until the new one is whole.
        if self._comm.bcast(bool(head and head.get("complete"))):
            self.path = _beside(self.path, "new")
        failure = None
        if self._comm.rank == 0:
            try:
                self._claim(overwrite)
                self._create(kind, arrays, attributes or {})
            except OSError as error:
                failure = error
            except BaseZarrError:  # what another process has just made
                failure = _in_use(self.path)
        failure = self._comm.bcast(failure)
        if failure is not None:
            raise failure
        with zarr.config.set(_EVERY_CHUNK):
            self._group = zarr.open_group(self.path, mode="r+", use_consolidated=False)
            self._arrays: dict[str, Any] = {n: self._group[n] for n in arrays}
        self._threads = ThreadPoolExecutor(_WRITERS)
        self._waiting: deque[Future[None]] = deque()

    def _claim(self, overwrite: bool) -> None:
        """Make the directory, which no other process may be making as well."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if overwrite:
            shutil.rmtree(self.path, ignore_errors=True)
        try:
            if self.path.is_dir():
                self.path.rmdir()  # an empty one
            self.path.mkdir()
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            raise _in_use(self.path) from None

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the store incomplete if something failed; `finish` completes it."""
        self._threads.shutdown(cancel_futures=error is not None)

    def write(self, name: str, chunk: int, values: np.ndarray) -> None:
        """Write the pixels of one chunk of one array, in another thread.

        An error of the disk is raised by a later call, or by `finish`.

        Args:
            name: One of the arrays given at the start.
            chunk: Number of the chunk; no two ranks may write the same.
            values: Its values, pixels last; not to be changed afterwards.
        """
        array = self._arrays[name]
        start, stop = self.grid.chunk_range(chunk)
        expected = (*array.shape[:-1], stop - start)
        if np.shape(values) != expected:
            raise ValueError(
                f"`write({name!r}, chunk={chunk})` expected shape {expected}, got "
                f"{np.shape(values)}."
            )
        self._wait(_MOST_WAITING)
        self._waiting.append(self._threads.submit(self._put, name, chunk, values))

    def _put(self, name: str, chunk: int, values: np.ndarray) -> None:
        """Write a chunk file: plain numbers, little-endian, the last one filled up."""
        array = self._arrays[name]
        dtype, length = array.dtype.newbyteorder("<"), array.chunks[-1]
        values = np.asarray(values, dtype)
        if values.shape[-1] < length or values.strides[-1] != dtype.itemsize:
            whole = np.full((*values.shape[:-1], length), array.fill_value, dtype)
            whole[..., : values.shape[-1]] = values
            values = whole
        file = chunk_file(self.path, name, array, chunk)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Row by row from where they are: no copy but the system's own.
        write_rows(file, [values[at] for at in np.ndindex(values.shape[:-1])])

    def _wait(self, most: int) -> None:
        """Wait until so many chunks, at most, are not yet written."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def finish(
        self,
        attributes: Mapping[str, Any] | None = None,
        small: Mapping[str, tuple[Sequence[str], np.ndarray, str]] | None = None,
    ) -> None:
        """Write what has no pixels, and at the very end the mark of completeness.

        Args:
            attributes: More attributes of the group.
            small: By name, axes, values and unit of arrays without pixels.

        Communication: barriers before and after rank 0 writes.
        """
        self._wait(0)
        self._threads.shutdown()
        self._comm.barrier()
        if self._comm.rank == 0:
            with zarr.config.set(_EVERY_CHUNK):
                for name, (dims, values, unit) in (small or {}).items():
                    self._write_small(name, dims, np.asarray(values), unit)
            # In two steps: what is marked complete has all its attributes.
            self._group.update_attributes(plain(attributes or {}))
            self._group.update_attributes({"complete": True})
            if self.path != self._final:
                self._replace()
        self._comm.barrier()

    def _replace(self) -> None:
        """Put the new store, which is whole, in the place of the old one."""
        old = _beside(self._final, "old")
        shutil.rmtree(old, ignore_errors=True)
        self._final.rename(old)
        self.path.rename(self._final)
        self.path = self._final
        shutil.rmtree(old)

    def _write_small(self, name, dims, values, unit) -> None:
        """Write an array without pixels, as one chunk."""
        self._group.create_array(
            name,
            data=values,
            chunks=tuple(max(n, 1) for n in values.shape) or "auto",
            compressors=None,
            dimension_names=list(dims),
            attributes={"units": unit} if unit else {},
        )

    def _create(self, kind, arrays, attributes) -> None:
        """Write the metadata: the group and its arrays, without a single chunk."""
        marks = {"distsep": {"kind": kind, "format": FORMAT}, "complete": False}
        marks = {**marks, "grid": asdict(self.grid), **plain(attributes)}
        group = zarr.create_group(self.path, attributes=marks)
        for name, spec in arrays.items():
            assert spec.dims[-1] == CELLS
            dtype = np.dtype(spec.dtype)
            group.create_array(
                name,
                shape=(*spec.leading, self.grid.npix),
                chunks=(*(max(n, 1) for n in spec.leading), self.grid.chunk),
                dtype=dtype,
                compressors=None,
                fill_value=np.nan if dtype.kind == "f" else 0,
                dimension_names=list(spec.dims),
                attributes={
                    **({} if name == "cell_ids" else {"coordinates": "cell_ids"}),
                    **({"units": spec.unit} if spec.unit else {}),
                    **plain(spec.attributes or {}),
                },
            )


class GroupReader:
    """Reads a complete store, a run of chunks at a time.

    Args:
        path: Directory of the store.

    Raises:
        FileNotFoundError: if there is no distsep store.
        ValueError: if it was not finished, or is of a later format.

    Communication: none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        header = read_header(self.path)
        if header is None:
            file = self.path / "zarr.json"
            if file.is_file() and not is_json(file):
                raise ValueError(damaged(self.path, "it cannot be read"))
            if not self.path.exists():
                raise FileNotFoundError(f"there is no {self.path}.")
            words = "is not a distsep store: `distsep import` makes one of FITS maps."
            raise FileNotFoundError(f"{self.path} {words}")
        marks = header["distsep"] if isinstance(header["distsep"], dict) else {}
        self.kind, written = marks.get("kind"), marks.get("format")
        if self.kind not in ("observation", "result") or type(written) is not int:
            raise ValueError(damaged(self.path, f"distsep = {header['distsep']!r}"))
        if written > FORMAT:
            raise ValueError(
                f"{self.path} was written by a later version of distsep (format "
                f"{written}, expected {FORMAT}): update distsep."
            )
        if not header.get("complete"):
            raise ValueError(
                f"{self.path} was not finished: the run that wrote it was stopped or "
                "is still writing. Run it again with `--overwrite`."
            )
        self.attributes: dict[str, Any] = Header(self.path, header)
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
        try:
            self.grid = Grid(**self.attributes["grid"])
            self._check_cells()
        except TypeError as error:
            raise ValueError(damaged(self.path, error)) from None

    def _check_cells(self) -> None:
        """Refuse arrays that are not cut as the header says."""
        expected = self.grid.npix, self.grid.chunk
        for name, array in self._arrays.items():
            if self.dims(name)[-1:] == (CELLS,):
                found = array.shape[-1], array.chunks[-1]
                if found != expected:
                    what = f"(pixels, chunk) = {found}, expected {expected}"
                    raise ValueError(damaged(self.path, what, name))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return tuple(self._array(name).shape)

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
        # Plain numbers, little-endian.
        plain = array.dtype.newbyteorder("<")
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


def _in_use(path: Path) -> FileExistsError:
    return FileExistsError(
        f"{path} is being written by another process. The ranks of one run write one "
        "store if each is given the ranks (`comm=distsep.parallel.world()`); else "
        "choose another name."
    )


def _beside(path: Path, what: str) -> Path:
    """Return the name of another version of a store, in the same folder."""
    return path.with_name(f".{path.name}.{what}")
