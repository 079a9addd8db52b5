"""Work of several threads at once: on parts of the data, and on maps."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from distsep.parallel.threads import cores

_ENOUGH = 2**20  # numbers of all maps: what takes longer than starting threads


def ahead(function: Callable, items: Iterable, workers: int = 1) -> Iterator:
    """Yield `function(item)` in order; so many threads make the next meanwhile."""
    coming: deque[Future] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            full = len(coming) > workers  # one waits, so that no thread does
            result = coming.popleft().result() if full else None
            coming.append(pool.submit(function, item))
            if full:
                yield result
        while coming:
            yield coming.popleft().result()


def each_map(work: Callable[[tuple[int, ...]], Any], maps: np.ndarray) -> list[Any]:
    """Call a function with the number of each map; of large ones for several at once.

    numpy lets other threads run while it works on one.

    Args:
        work: Takes `(freq, stokes)`, or what else stands before the pixels.
        maps: `(..., pix)`.

    Returns:
        What it returned, in the order of the maps.

    Communication: none.
    """
    numbers = np.ndindex(*maps.shape[:-1])
    if maps.size < _ENOUGH or (threads := cores()) == 1:
        return list(map(work, numbers))
    return list(ahead(work, numbers, threads))
