"""One run of the command: ranks, voice, and the exit code whatever happens.

Exit codes: 0 done; 1 unexpected error, with its traceback; 2 bad input, with one
message; 3 the fit did not converge (its result is written); 130 interrupted.
"""

import contextlib
import errno
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distsep.cli.voice import Voice

if TYPE_CHECKING:
    from distsep.parallel import Comm

BAD_INPUT = 2
NOT_CONVERGED = 3
INTERRUPTED = 130

# What the system refuses the user, beside files that are missing or forbidden.
_OF_FILES = (
    *(errno.ENOTDIR, errno.EISDIR, errno.EROFS),
    *(errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.ENAMETOOLONG, errno.ELOOP),
)


class RefusedError(Exception):
    """Bad input that all ranks know of: they leave together."""


@dataclass
class Session:
    """What a command works with.

    Attributes:
        comm: The ranks.
        voice: What speaks for them.
        code: Exit code of a command that ran to its end.
    """

    comm: "Comm"
    voice: Voice
    code: int = 0

    def together(self, function: Callable[[], Any]) -> Any:
        """Run a function on rank 0 and give its answer to all ranks.

        Raises:
            RefusedError: on all ranks, if it finds the input bad.

        Communication: one broadcast.
        """
        answer, reason = None, None
        if self.comm.rank == 0:
            try:
                answer = function()
            except Exception as error:
                if not is_bad_input(error):
                    raise
                reason = in_words_of(error)
        answer, reason = self.comm.bcast((answer, reason))
        if reason is not None:
            raise RefusedError(reason)
        return answer


@contextlib.contextmanager
def session(
    *, quiet: bool, log_file: Path | None, devices: int | None = None
) -> Iterator[Session]:
    """Join the ranks, run the block, and end the process with its exit code.

    Args:
        quiet: Say only warnings, errors and answers.
        log_file: Where everything said is kept.
        devices: Devices that JAX is to make of the processor of each rank.

    Communication: collective.
    """
    from distsep import parallel

    asked = devices or _asked_devices()
    if isinstance(asked, int):
        parallel.set_host_devices(asked)
    comm, refusal = _ranks(parallel)
    speaks = comm.rank == 0 and parallel.launched_rank() == 0
    voice = Voice(quiet=quiet, speaks=speaks)
    if isinstance(asked, str):
        refusal = refusal or asked
    refusal = comm.bcast(refusal or voice.keep(log_file))
    current = Session(comm, voice)
    try:
        with parallel.guard(comm):
            try:
                if refusal is not None:
                    raise RefusedError(refusal)
                yield current
            except RefusedError as error:
                voice.fail(str(error))
                current.code = BAD_INPUT
            except KeyboardInterrupt:
                if comm.size > 1:
                    raise  # for `guard`
                voice.fail("interrupted.")
                current.code = INTERRUPTED
            except Exception as error:
                if not is_bad_input(error):
                    raise
                _stop_all(current, error)
    finally:
        voice.close()
    if current.code:
        raise SystemExit(current.code)


def _asked_devices() -> int | str | None:
    """DISTSEP_DEVICES, or what is wrong with it."""
    text = os.environ.get("DISTSEP_DEVICES", "")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        return f"DISTSEP_DEVICES={text}: expected a number of devices, 1 or more."
    return int(text)


def _ranks(parallel: Any) -> tuple["Comm", str | None]:
    """The ranks; or this process alone and why the launcher's are not to be had."""
    if not parallel.launched_by_mpi():
        return parallel.serial(), None
    try:
        return parallel.world(), None
    except (ImportError, RuntimeError) as error:
        return parallel.serial(), str(error)


def _stop_all(current: Session, error: Exception) -> None:
    """Bad input that this rank found, perhaps alone: say it once and end all ranks."""
    comm = current.comm
    if comm.size == 1:
        current.voice.fail(in_words_of(error))
        current.code = BAD_INPUT
        return
    comm.stop(
        f"error: {in_words_of(error)} (rank {comm.rank} of {comm.size})", BAD_INPUT
    )


def in_words_of(error: Exception) -> str:
    """The message and its notes; of the system's own, without its number."""
    words = str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        words = f"{where}{error.strerror}."
    return "\n".join([words, *getattr(error, "__notes__", ())])


def is_bad_input(error: Exception) -> bool:
    """Whether an error is a message of ours to the user, rather than a surprise.

    Ours come from a `raise` in this package; a ValueError from within a library, or one
    that Python raises at a line of ours, is a surprise and keeps its traceback.
    """
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError):
        return True
    if isinstance(error, OSError) and error.errno in _OF_FILES:
        return True
    ours = ValueError | TypeError | ImportError | OSError | FloatingPointError
    if not isinstance(error, ours):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not (frames[-1].line or "").startswith("raise "):
        return False
    package = Path(__file__).resolve().parents[1]
    return Path(frames[-1].filename).resolve().is_relative_to(package)
