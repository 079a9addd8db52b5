"""The files of the chunks of a zarr array: plain numbers, cut along the last axis."""

import ctypes
import mmap
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

_ROWS = 512  # that one read fills at once
_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14
_LOOKS = 16  # at whether a file is in memory


def chunk_file(path: Path, name: str, array: Any, chunk: int) -> Path:
    """Return the file of a chunk; only the last axis is cut."""
    place = ["0"] * (array.ndim - 1) + [str(chunk)] if array.ndim else []
    return path.joinpath(name, "c", *place)


def read_rows(file: Path, rows: list[np.ndarray]) -> None:
    """Read a file into runs of memory that follow one another in it."""
    with file.open("rb", buffering=0) as stream:
        for i in range(0, len(rows), _ROWS):
            some = rows[i : i + _ROWS]
            if os.readv(stream.fileno(), some) == sum(row.nbytes for row in some):
                continue
            # A read may be cut short: each row by itself.
            stream.seek(sum(row.nbytes for row in rows[:i]))
            for row in some:
                _read_fully(stream, memoryview(row).cast("B"))


def in_memory(file: Path, dtype: DTypeLike) -> np.ndarray | None:
    """Return the numbers of a file that the system holds in memory, without a copy.

    What is changed in the array does not reach the file. None where some of the file
    would have to come from the disk, which a read does faster, and where the system
    cannot say beforehand that all of it is there: its loss would end the process.

    Args:
        file: A file that nobody changes; it may be replaced or removed.
        dtype: Type of its numbers.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):
        return None
    with file.open("rb", buffering=0) as stream:
        try:
            memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError):  # a file system without; an empty file
            return None
    out = np.frombuffer(memory, dtype)
    if not _held(out):
        return None
    try:
        memory.madvise(_POPULATE_READ)
    except OSError:
        return None
    return out


def _held(x: np.ndarray) -> bool:
    """Whether the system holds a file in memory: by some of its pages."""
    held, start = ctypes.c_uint8(), x.__array_interface__["data"][0]
    last = (x.nbytes - 1) // mmap.PAGESIZE
    return all(
        _libc().mincore(
            ctypes.c_void_p(start + mmap.PAGESIZE * (last * i // _LOOKS)),
            ctypes.c_size_t(1),
            ctypes.byref(held),
        )
        == 0
        and held.value & 1
        for i in range(_LOOKS + 1)
    )


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)


def write_rows(file: Path, rows: list[np.ndarray]) -> None:
    """Write runs of memory, each contiguous, one after another into a new file."""
    with file.open("wb", buffering=0) as stream:
        for i in range(0, len(rows), _ROWS):
            some = rows[i : i + _ROWS]
            done = os.writev(stream.fileno(), some)
            for row in some:
                # A write may be cut short: the rest of each row by itself.
                left = memoryview(row).cast("B")
                left = left[min(done, len(left)) :]
                done = max(done - row.nbytes, 0)
                while len(left):
                    left = left[stream.write(left) :]


def _read_fully(stream: Any, to: memoryview) -> None:
    while len(to):
        n = stream.readinto(to)
        if not n:
            raise OSError(f"{stream.name} became shorter while it was read.")
        to = to[n:]


def check_file(file: Path, array: Any) -> None:
    """Raise an error that names a chunk file which is missing or truncated."""
    expected = int(np.prod(array.chunks, dtype=np.int64)) * array.dtype.itemsize
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(
            f"the chunk {file} is missing: the store is damaged, write it again."
        ) from None
    if size != expected:
        raise OSError(
            f"the chunk {file} is truncated: expected {expected} bytes, found {size}. "
            "The store is damaged, write it again."
        )
