"""Work on maps, one by one, shared out over the cores of this process."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from distsep.parallel.threads import cores

_ENOUGH = 2**20  # numbers of all maps: what takes longer than starting threads


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
    threads = cores()
    if maps.size < _ENOUGH or threads == 1:
        return list(map(work, numbers))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, numbers))
