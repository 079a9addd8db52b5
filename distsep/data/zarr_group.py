"""A zarr group with pixels, written by many ranks, complete only when it says so.

Chunks are cut along the pixels alone and are not compressed: the size of every chunk
file is known, and a missing or truncated one is found before it is read (zarr itself
gives fill values for a missing chunk). What the arrays mean is not known here.
"""

import errno
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

from distsep.data.blocks import Grid
from distsep.data.chunk_files import chunk_file, write_rows
from distsep.data.place import require_place
from distsep.data.plain import plain
from distsep.data.zarr_header import CELLS, FORMAT, read_header
from distsep.parallel import Comm, serial

# A chunk that happens to hold only fill values is a file like any other.
_EVERY_CHUNK = {"array.write_empty_chunks": True}
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


def _in_use(path: Path) -> FileExistsError:
    return FileExistsError(
        f"{path} is being written by another process. The ranks of one run write one "
        "store if each is given the ranks (`comm=distsep.parallel.world()`); else "
        "choose another name."
    )


def _beside(path: Path, what: str) -> Path:
    """Return the name of another version of a store, in the same folder."""
    return path.with_name(f".{path.name}.{what}")
