"""The common end of all ranks when one of them fails."""

import contextlib
import traceback
from collections.abc import Iterator

from distsep.parallel.comm import Comm


@contextlib.contextmanager
def guard(comm: Comm) -> Iterator[None]:
    """End all ranks when one of them fails, with one message.

    Without it the other ranks wait for ever in their next collective call. Leave the
    block normally to end with a chosen exit code: on several ranks any exception in
    it, `SystemExit` included, ends the job. With one rank exceptions pass unchanged.

    Args:
        comm: The ranks to end.

    Yields:
        Nothing.

    Communication: none, unless a rank fails.
    """
    try:
        yield
    except BaseException as error:
        if comm.size == 1:
            raise
        if isinstance(error, KeyboardInterrupt):
            comm.stop("distsep: interrupted, all ranks stop.", _exit_code(error))
        trace = "".join(traceback.format_exception(error))
        words = f"distsep: rank {comm.rank} of {comm.size} failed, all ranks stop."
        comm.stop(f"{words}\n{trace}", _exit_code(error))


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code or 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1
