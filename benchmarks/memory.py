"""What the memory of this machine gives, to measure the benchmarks against."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timing

SIZE = 2**25  # numbers per core: 256 MiB, far beyond the caches


def _together(cores: int, work: Callable[[int], object]) -> Callable[[], None]:
    """Run `work(k)` in `cores` threads at once.

    numpy lets go of the interpreter in `max` and in products with a matrix, not in
    products of two vectors.
    """

    def run():
        threads = [threading.Thread(target=work, args=(k,)) for k in range(cores)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    return run


def read_bandwidth(cores: int = 1, size: int = SIZE, repeats: int = 5) -> float:
    """Return the GB/s at which arrays are read, without writing.

    Args:
        cores: Threads, each with arrays of its own.
        size: Numbers per array.
        repeats: Of which the fastest counts.

    Returns:
        The best of a sum of squares, a product of two arrays, a product with a matrix
        and a maximum.
    """
    b, c = (np.full((cores, size), x) for x in (1.0, 2.0))
    vector = np.ones(2**12)

    def best(work, nbytes):
        return nbytes * cores / timing.measure(_together(cores, work), repeats).low

    read = [
        best(lambda k: b[k] @ b[k], 8 * size),
        best(lambda k: b[k] @ c[k], 16 * size),
        best(lambda k: b[k].reshape(-1, vector.size) @ vector, 8 * size),
        best(lambda k: b[k].max(), 8 * size),
    ]
    return max(read) / 1e9


def peak() -> float:
    """Largest resident memory of this process so far [bytes]."""
    status = Path("/proc/self/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("VmHWM"))
    return float(line.split()[1]) * 1024
