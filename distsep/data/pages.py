"""Arrays on whole pages of memory: of our own, or those the system holds of a file.

A streamed pass reads part after part: new memory for each would be zeroed by the system
page by page, which takes as long as reading. Our own are used again when nobody looks
at them. JAX takes over arrays on whole pages without a copy, on a processor.
"""

import ctypes
import math
import mmap
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

_KEPT = 2**26  # a larger array goes back to the system [bytes]
_LARGE = 2**22  # from here on the system is asked for large pages [bytes]
_COLLAPSE = 25  # MADV_COLLAPSE of Linux 6.1
_POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_MOST = 8  # so many are kept, of each size
_LOOKS = 16  # at whether a file is in memory
_free: dict[int, list[mmap.mmap]] = {}


class _Lease:
    """Owner of the memory of an array: its end is the end of the last view."""

    def __init__(self, memory: mmap.mmap, nbytes: int):
        start = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
        self.__array_interface__: dict[str, Any] = {
            "data": (start, False),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }
        weakref.finalize(self, _back, memory, len(memory)).atexit = False


def _back(memory: mmap.mmap, size: int) -> None:
    free = _free.setdefault(size, [])
    if size <= _KEPT and len(free) < _MOST:
        free.append(memory)


def _new(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, _PRIVATE)
    if size >= _LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an array on whole pages, not initialised.

    Args:
        shape: Its shape.
        dtype: Its type.
    """
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    size = max(-(-nbytes // mmap.PAGESIZE), 1) * mmap.PAGESIZE
    try:  # several threads ask at once
        memory = _free[size].pop()
    except (KeyError, IndexError):
        memory = _new(size)
    return np.asarray(_Lease(memory, nbytes)).view(dtype).reshape(shape)


def enlarge(address: int, nbytes: int) -> None:
    """Put memory that is in use on large pages, where the system can: a hint.

    A pass over memory on small pages waits for their addresses as well.

    Args:
        address: Where it starts.
        nbytes: How much it is.
    """
    if nbytes < _LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return
    madvise = _libc().madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    madvise(*_whole_pages(address, nbytes), _COLLAPSE)


def _whole_pages(address: int, nbytes: int) -> tuple[int, int]:
    """Where the whole pages inside some memory start, and their bytes."""
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (address + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    return first, max(last - first, 0)


def in_memory(file: Path, dtype: DTypeLike) -> np.ndarray | None:
    """Return the numbers of a file that the system holds in memory, without a copy.

    What is changed in the array does not reach the file. None where some of the file
    would have to come from the disk, which a read does faster, and where the system
    cannot say beforehand that all of it is there: its loss would end the process.

    Args:
        file: A file that nobody changes; it may be replaced or removed.
        dtype: Type of its numbers.
    """
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
