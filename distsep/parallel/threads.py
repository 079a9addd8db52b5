"""Threads of the host: its cores for the ranks on it, one for its linear algebra.

The only door to threadpoolctl.
"""

import os
import re
from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")

# The ranks of this node, as the launchers tell it: mpich, Open MPI, srun.
_LOCAL_VARIABLES = (
    "MPI_LOCALNRANKS",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "SLURM_STEP_TASKS_PER_NODE",
)


def cores() -> int:
    """Processor cores of this process: its share, where ranks run beside it.

    The ranks of a node share the cores that their launcher may use; a rank that is
    bound to fewer has those. NPROC, if it is set, goes before.

    Communication: none.
    """
    if (asked := os.environ.get("NPROC", "")).isdecimal():
        return max(1, int(asked))
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    mine, all_of_us = (len(os.sched_getaffinity(pid)) for pid in (0, os.getppid()))
    return max(1, min(mine, all_of_us // _local_ranks()))


def share_cores() -> None:
    """Give the threads of XLA, the compiled kernels and healpy this process's cores.

    To be called before JAX computes anything, which reads NPROC when it starts, and
    before healpy is imported: it may be told OMP_NUM_THREADS already.

    Communication: none.
    """
    if _local_ranks() > 1:
        os.environ["NPROC"] = str(cores())
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def _local_ranks() -> int:
    words = (os.environ.get(name, "") for name in _LOCAL_VARIABLES)
    found = next((n for w in words if (n := re.match(r"[1-9]\d*", w))), None)
    return int(found.group()) if found else 1


def one_blas_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function: numpy's and scipy's linear algebra runs on one thread in it.

    The last bits of a product of matrices depend on the number of threads, and that
    on how many cores a rank was given. JAX's own threads are not touched.

    Communication: none.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _libraries().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


@cache
def _libraries() -> ThreadpoolController:
    """Those that numpy and scipy brought: to look for them takes 2 ms."""
    return ThreadpoolController()
