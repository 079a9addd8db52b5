"""How the command speaks: one rank, on the terminal and in the log file.

Whatever the package logs (logger "distsep") comes out here too. The other ranks are
silent, except to say what stopped them.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

_LOG = "# distsep log\n"


class Voice:
    """Prints what rank 0 has to say.

    Args:
        quiet: Say nothing on the terminal but warnings, errors and answers.
        speaks: Whether this process speaks at all (rank 0 does).
    """

    def __init__(self, *, quiet: bool = False, speaks: bool = True):
        self.quiet = quiet
        self.speaks = speaks
        self.out = Console(soft_wrap=True)
        self.err = Console(stderr=True, soft_wrap=True)
        self.log: Console | None = None
        self._handler = _Handler(self)
        logging.getLogger("distsep").addHandler(self._handler)

    def keep(self, log_file: Path | None) -> str | None:
        """Keep all that is said in a file as well, also with `quiet`.

        Returns:
            Why not, if it cannot be: an existing file must be a log.
        """
        if log_file is None or not self.speaks:
            return None
        where = f"`--log-file {log_file}`"
        try:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            file = log_file.open("a+", encoding="utf-8", errors="replace")
        except OSError as error:
            return f"{where} cannot be written: {error.strerror}."
        file.seek(0)
        begins = file.read(len(_LOG))
        if begins not in ("", _LOG):
            file.close()
            return f"{where} exists and is no log of distsep: name another."
        self.log = Console(file=file, width=100, soft_wrap=True, color_system=None)
        file.write("" if begins else _LOG)
        return None

    def close(self) -> None:
        """Close the log file and stop listening to the package."""
        logging.getLogger("distsep").removeHandler(self._handler)
        self._close_log()

    def _close_log(self) -> None:
        log, self.log = self.log, None
        if log is not None:
            with contextlib.suppress(OSError):
                log.file.close()

    def say(self, what: Any) -> None:
        """Say how things go; `--quiet` silences it."""
        self._print(what, None if self.quiet else self.out)

    def answer(self, what: Any) -> None:
        """Say what was asked for; printed also with `--quiet`."""
        self._print(what, self.out)

    def warn(self, message: str) -> None:
        """Say what the user should hear of."""
        self._print(Text.assemble(("warning: ", "yellow"), message), self.err)

    def fail(self, message: str) -> None:
        """Say why nothing more happens."""
        self._print(Text.assemble(("error: ", "bold red"), message), self.err)

    def _print(self, what: Any, console: Console | None) -> None:
        if not self.speaks:
            return
        # Names of files and keys hold brackets: plain strings are never markup.
        what = Text(what) if isinstance(what, str) else what
        if console is not None:
            console.print(what)
        if self.log is None:
            return
        try:
            self.log.print(what)
            self.log.file.flush()
        except OSError as error:  # a full disk: no reason to stop a run
            self._close_log()
            self.warn(f"the log file is written no further: {error.strerror}.")

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int, str], None]]:
        """Show a bar while the block runs; yields `update(done, of, words)`.

        `of` = 0: the end is not known, only the words and the time are shown.
        """
        if not self.speaks or self.quiet or not self.err.is_terminal:
            yield _no_update
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.err, transient=True) as bar:
            task = bar.add_task(title, total=None)

            def update(done: int, of: int, words: str = "") -> None:
                text = f"{title}: {words}" if words else title
                bar.update(task, completed=done, total=of or None, description=text)

            yield update


def _no_update(done: int, of: int, words: str = "") -> None:
    del done, of, words


class _Handler(logging.Handler):
    """Hands the records of the package to the voice."""

    def __init__(self, voice: Voice):
        super().__init__(logging.INFO)
        self.voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.voice.warn(message)
        else:
            self.voice.say(message)
