"""The only timer of the benchmarks.

A function is called once to compile and warm up, then several times between barriers;
a time is that of the slowest rank, from the barrier until its arrays are ready. Knows
nothing of what it times, and needs only numpy: the peers' environments use it too.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds of one function.

    Attributes:
        first: Of the first call: compilation, caches, and the work.
        median, low, high: Of the repeats, slowest rank.
        cpu: Median processor time of a repeat, all threads of this process.
        repeats: How many.
    """

    first: float
    median: float
    low: float
    high: float
    cpu: float
    repeats: int

    @property
    def compilation(self) -> float:
        """What the first call took beyond a repeat."""
        return max(self.first - self.median, 0.0)

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, for JSON."""
        return asdict(self)


def ready(x: Any) -> Any:
    """Wait for the arrays of a result, where JAX is in use at all."""
    jax = sys.modules.get("jax")
    return x if jax is None else jax.block_until_ready(x)


def once(function: Callable[[], Any], comm: Any = None) -> tuple[float, float]:
    """Wall time (of the slowest rank) and processor time of one call."""
    if comm is not None:
        comm.barrier()
    cpu, start = time.process_time(), time.perf_counter()
    ready(function())
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return (wall if comm is None else float(comm.max(wall))), cpu


def measure(
    function: Callable[[], Any],
    repeats: int = 5,
    comm: Any = None,
    most: float = 120.0,
    least: float = 0.2,
) -> Timing:
    """Time a function.

    Args:
        function: Takes nothing; its arrays are waited for.
        repeats: Calls after the first.
        comm: Ranks that all call this.
        least: Seconds that the repeats take, if there are several: short calls are
            repeated more often.
        most: Seconds after which no further repeat is begun. A function whose first
            call takes longer is not repeated: that call is all there is.

    Communication: a barrier and a maximum per call, with `comm`.
    """
    first, cpu = once(function, comm)
    walls, cpus = [], []
    # Decided on reduced numbers: every rank makes the same number of calls.
    least = least if repeats > 1 else 0.0
    while (len(walls) < repeats or sum(walls) < least) and first + sum(walls) < most:
        wall, cpu = once(function, comm)
        walls.append(wall)
        cpus.append(cpu)
    walls, cpus = walls or [first], cpus or [cpu]
    return Timing(
        first,
        float(np.median(walls)),
        min(walls),
        max(walls),
        float(np.median(cpus)),
        len(walls),
    )
