"""The files of the chunks of a zarr array: plain numbers, cut along the last axis."""

import os
from pathlib import Path
from typing import Any

import numpy as np

_ROWS = 512  # that one read fills at once


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


def write_rows(file: Path, rows: list[np.ndarray]) -> None:
    """Write runs of memory, each contiguous, one after another into a new file."""
    try:
        _write_rows(file, rows)
    except OSError as error:  # a full disk does not say which file
        raise OSError(error.errno, error.strerror, str(file)) from error


def _write_rows(file: Path, rows: list[np.ndarray]) -> None:
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
        what = "truncated" if size < expected else "too long"
        raise OSError(
            f"the chunk {file} is {what}: expected {expected} bytes, found {size}. "
            "The store is damaged, write it again."
        )
