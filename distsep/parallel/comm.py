"""Ranks: sums over them, messages between them, and the end of the job.

The only door to mpi4py and mpi4jax, opened by `world()` alone: `serial()` needs
neither. No pixels, no layout, no sharding over the devices of a rank.
"""

import functools
import itertools
import os
import sys
import time
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

# MPI counts elements with a C int; stay a factor 16 below its end.
_LARGEST_MESSAGE = 2**27

# Seconds that the launcher is given to forward the last words of a rank.
_OUTPUT_DELAY = 0.5

# The number of ranks, as the launchers tell it. The last one is srun's; it is set in
# a job *step* only, so that a serial command in a batch script is not taken for one.
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")


class Comm:
    """The ranks that work on one separation.

    Made by `serial()`, `world()` or `Comm.split`. Every method is collective: all
    ranks must call it, in the same order, except `abort` and `stop`.

    Attributes:
        rank: Number of this rank, from 0.
        size: Number of ranks.
    """

    def __init__(self, mpi: Any = None):
        """Wrap an mpi4py communicator, which is cloned; None for one process."""
        self.rank, self.size, self._mpi = 0, 1, None
        if mpi is not None:
            self.rank, self.size = mpi.Get_rank(), mpi.Get_size()
        if mpi is not None and self.size > 1:
            # One clone for messages of Python and one for those that XLA issues: they
            # may be under way at the same time and must never be paired.
            self._mpi = mpi.Clone()
            self._allreduce = _jitted_allreduce(mpi.Clone())

    def __repr__(self) -> str:
        return f"Comm(rank={self.rank}, size={self.size})"

    def sum(self, x: Any) -> Any:
        """Add arrays over the ranks.

        Not differentiable: the transpose of an allreduce is the identity in mpi4jax,
        so a gradient through it would be one rank's share. Differentiate locally and
        sum the result.

        Args:
            x: float64 array (or integers, numpy or jax), or a pytree of arrays, of
                the same shape on all ranks. A pytree is packed into one message.

        Returns:
            The same tree of numpy arrays, equal on all ranks; of one process those that
            were given. The order of the additions is MPI's: it is the same in every
            run with one number of ranks, and is free of rounding where at most one
            rank holds a non-zero in each element.

        Raises:
            TypeError: if an array is neither float64 nor integer, or is traced, or
                arrays of one tree are of different types.

        Communication: one allreduce of `x` (one per 2^27 elements).
        """
        if self.size == 1 and isinstance(x, np.ndarray):  # the most frequent case
            return _summable(x)
        leaves, tree = jax.tree.flatten(x)
        leaves = [_summable(leaf) for leaf in leaves]
        if len(types := {leaf.dtype for leaf in leaves}) > 1:
            words = ", ".join(sorted(map(str, types)))
            raise TypeError(
                f"`Comm.sum(x)` expected arrays of one type, got {words}: "
                "they go in one message. Sum each type by itself."
            )
        if self.size == 1 or not leaves:
            return jax.tree.unflatten(tree, leaves)
        total = self._total(_joined([x.ravel() for x in leaves]))
        # Nothing is under way any more: no token to hand to the next program.
        jax.effects_barrier()
        ends = itertools.accumulate(x.size for x in leaves)
        back = [
            total[end - x.size : end].reshape(x.shape)
            for end, x in zip(ends, leaves, strict=True)
        ]
        return jax.tree.unflatten(tree, back)

    def _total(self, flat: np.ndarray) -> np.ndarray:
        """Add a flat array over the ranks, in as many messages as MPI needs.

        Waits for each: an error belongs to this call, and no message of Python may
        overtake one that is still queued.
        """
        size = _LARGEST_MESSAGE
        cuts = [flat[i : i + size] for i in range(0, max(flat.size, 1), size)]
        return _joined([np.asarray(self._allreduce(_placed(x))) for x in cuts])

    def max(self, x: Any) -> np.ndarray:
        """Elementwise maximum over the ranks of a small array; NaN wins.

        Communication: one allgather of `x`.
        """
        return np.asarray(np.stack(self.allgather(np.asarray(x))).max(axis=0))

    def bcast(self, x: Any, root: int = 0) -> Any:
        """Give all ranks the numpy array or small Python object of rank `root`.

        Communication: one broadcast.
        """
        return x if self._mpi is None else self._mpi.bcast(x, root=root)

    def gather(self, x: Any, root: int = 0) -> list[Any] | None:
        """Collect one small Python object per rank on rank `root`; None elsewhere.

        Communication: one gather.
        """
        return [x] if self._mpi is None else self._mpi.gather(x, root=root)

    def allgather(self, x: Any) -> list[Any]:
        """Collect one small Python object per rank on every rank.

        Communication: one allgather.
        """
        return [x] if self._mpi is None else self._mpi.allgather(x)

    def require_same(self, what: str, x: Any) -> None:
        """Stop on all ranks if an array is not the same, to the last bit, on each.

        Args:
            what: Name of the array, for the message.
            x: The array.

        Raises:
            RuntimeError: on every rank, naming the ranks that differ from rank 0.

        Communication: one allgather of the bytes of `x`.
        """
        digests = self.allgather(np.asarray(x).tobytes())
        odd = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if odd:
            raise RuntimeError(
                f"`{what}` is not the same on all ranks: ranks {odd} differ from rank "
                "0. The ranks have run out of step; this run cannot be trusted."
            )

    def split(self, group: int) -> "Comm":
        """Make one communicator for each group of ranks.

        Args:
            group: Number of the group this rank joins.

        Returns:
            The ranks of the same group, in their present order.

        Communication: collective.
        """
        if self._mpi is None:
            return serial()
        return Comm(self._mpi.Split(color=group, key=self.rank))

    def barrier(self) -> None:
        """Wait for all ranks.

        Communication: one barrier.
        """
        if self._mpi is not None:
            self._mpi.Barrier()

    def stop(self, message: str, code: int = 1) -> None:
        """Say on stderr why this rank cannot go on, and end the whole job.

        Where several ranks fail alike, the lowest speaks and ends the others before
        they can repeat it.

        Communication: none is waited for; one rank suffices.
        """
        time.sleep(1.5 * _OUTPUT_DELAY * min(self.rank, 4))
        sys.stderr.write(f"{message.rstrip()}\n")
        self.abort(code)

    def abort(self, code: int = 1) -> None:
        """End the whole job, on all ranks, at once.

        Args:
            code: Exit code of this rank; the launcher may give another, not zero.

        Communication: none is waited for; one rank suffices.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        if self._mpi is not None:
            from mpi4py import MPI

            # The launcher drops what it has not yet forwarded of a rank's output.
            time.sleep(_OUTPUT_DELAY)
            MPI.COMM_WORLD.Abort(code)
        os._exit(code)


def serial() -> Comm:
    """One process, without MPI."""
    return Comm()


@functools.cache
def world() -> Comm:
    """All ranks that `mpirun` or `srun` started.

    Returns:
        The ranks, on a clone of MPI's world: made once, the same object at each call.

    Raises:
        ImportError: if mpi4py or mpi4jax is not installed.
        RuntimeError: if the launcher started several processes and MPI sees one.

    Communication: collective at the first call.
    """
    try:
        import mpi4jax  # noqa: F401
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            "`distsep.parallel.world()` needs mpi4py and mpi4jax: install them with "
            "`pip install 'distsep[mpi]'`, or with `launch/setup` for the MPI library "
            f"of this machine. One process needs neither. ({error})"
        ) from error
    launched, size = _launched_size(), MPI.COMM_WORLD.Get_size()
    if launched is not None and launched != size:
        raise RuntimeError(
            f"the launcher started {launched} processes but MPI sees {size}: each "
            "would do the whole work alone. Expected one MPI world; with Slurm give "
            "`srun --mpi=pmi2` (mpich, as `launch/setup` installs) or `--mpi=pmix` "
            "(Open MPI), and use the `mpirun` of the MPI that mpi4py was built with."
        )
    return Comm(MPI.COMM_WORLD)


def launched_by_mpi() -> bool:
    """Whether this process is one of several that `mpirun` or `srun` started."""
    return (_launched_size() or 1) > 1


def launched_rank() -> int:
    """Number of this process as the launcher tells it, without MPI; 0 if none does."""
    if not launched_by_mpi():
        return 0
    return int(next((os.environ[n] for n in _RANK_VARIABLES if n in os.environ), 0))


def library() -> str:
    """The MPI library in use, by name and version.

    Raises:
        ImportError: if mpi4py is not installed.

    Communication: none.
    """
    from mpi4py import MPI

    vendor, version = MPI.get_vendor()
    return f"{vendor} {'.'.join(map(str, version))}"


def _launched_size() -> int | None:
    for name in _SIZE_VARIABLES:
        if name in os.environ:
            return int(os.environ[name])
    return None


def _jitted_allreduce(mpi: Any) -> Any:
    import mpi4jax
    from mpi4py import MPI

    return jax.jit(lambda x: mpi4jax.allreduce(x, op=MPI.SUM, comm=mpi))


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    """Put flat arrays behind each other; one is left as it is."""
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _placed(message: np.ndarray) -> Any:
    """Put a message on the host where mpi4jax needs it there; else leave it.

    The program takes it over to the first local device, quicker than by hand.
    """
    host = _staging()
    return message if host is None else jax.device_put(message, host)


@functools.cache
def _staging() -> Any:
    """The host's processor, if mpi4jax was built without CUDA and JAX is elsewhere."""
    import mpi4jax

    if jax.default_backend() == "cpu" or mpi4jax.has_cuda_support():
        return None
    return jax.local_devices(backend="cpu")[0]


def _summable(x: Any) -> np.ndarray:
    """An array that may be summed, on the host."""
    if isinstance(x, Tracer):
        raise TypeError(
            "`Comm.sum(x)` got a traced array: expected a concrete one. Call it "
            "between jitted functions, never inside one."
        )
    x = np.asarray(x)
    if x.dtype != np.float64 and x.dtype.kind not in "iu":
        raise TypeError(
            f"`Comm.sum(x)` expected float64 or integers, got {x.dtype}: accumulate in "
            "float64 before the sum over ranks."
        )
    return x
