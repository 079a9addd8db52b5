"""Where a store, or a file, may be written: nothing of value is ever replaced."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distsep.data.blocks import Grid
from distsep.data.zarr_header import read_header


def require_place(
    path: str | Path,
    kind: str,
    *,
    overwrite: bool = False,
    comm: Any = None,
) -> None:
    """Refuse a path where a store may not be written; nothing is made.

    Args:
        path: Directory of the store.
        kind: "observation" or "result".
        overwrite: Whether a store of the same kind may be replaced.
        comm: The ranks; None: this process alone.

    Raises:
        FileExistsError: if the path exists and may not be replaced. On all ranks.
        PermissionError: if nothing can be written there. On all ranks.

    Communication: one broadcast, with `comm`.
    """
    refusal = None
    if comm is None or comm.rank == 0:
        refusal = _taken(Path(path), kind, overwrite) or _closed(Path(path))
    if comm is not None:
        refusal = comm.bcast(refusal)
    if refusal is not None:
        raise refusal


def require_folder(directory: str | Path) -> None:
    """Refuse a directory where files may not be written; nothing is made.

    Raises:
        FileExistsError: if it is a store, inside one, or a file.
        PermissionError: if nothing can be written there.
    """
    path = Path(directory).absolute()
    if (store := _store_among(path, *path.parents)) is not None:
        raise FileExistsError(
            f"{directory} is in the distsep store {store}: choose another directory."
        )
    if path.exists() and not path.is_dir():
        raise FileExistsError(
            f"{directory} is a file, expected a directory: choose another name."
        )
    if (refusal := _closed(path / "files")) is not None:
        raise refusal


def require_whole_chunks(
    call: str, grid: Grid, start: int, npix: int, comm: Any, remedy: str
) -> None:
    """Refuse ranks that cannot write their chunks, on all of them.

    Args:
        call: What was called, for the message.
        grid: Of the whole data set.
        start: First pixel of this rank.
        npix: Its number of pixels.
        comm: Ranks.
        remedy: What to do instead.

    Communication: an allgather.
    """
    cut = comm.allgather(grid.whole_chunks(start, npix) is None)
    if any(cut):
        ranks = [rank for rank, is_cut in enumerate(cut) if is_cut]
        raise ValueError(
            f"`{call}`: ranks {ranks} hold parts of chunks, this one the pixels "
            f"[{start}, {start + npix}): expected cuts at multiples of {grid.chunk} "
            f"pixels. {remedy}"
        )


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Write a file under another name first: there is never half of it.

    Yields:
        The name to write under; it becomes `path` at the end of the block.

    Raises:
        OSError: of the system, naming `path`.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        yield new
        new.replace(path)
    except OSError as error:  # a full disk does not say of which file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        new.unlink(missing_ok=True)


def _store_among(*paths: Path) -> Path | None:
    return next((path for path in paths if read_header(path) is not None), None)


def _taken(path: Path, kind: str, overwrite: bool) -> OSError | None:
    """Say what is there that is not replaced, or None."""
    if store := _store_among(*path.absolute().parents):
        return FileExistsError(
            f"{path} is inside the distsep store {store}: choose another place."
        )
    if not path.exists():
        return None
    header = read_header(path)
    if header is None and path.is_dir() and not any(path.iterdir()):
        return None
    if header is None:
        return FileExistsError(
            f"{path} exists and is not a distsep store: it will not be replaced."
        )
    marks = header["distsep"]
    found = marks.get("kind") if isinstance(marks, dict) else None
    if found != kind:
        words = {"observation": "an observation", "result": "a result"}
        is_one = words.get(str(found), "a damaged store")
        return FileExistsError(
            f"{path} is {is_one}, which {words[kind]} will not replace: choose another "
            "name."
        )
    if overwrite:
        return None
    unfinished = "" if header.get("complete") else ", not finished"
    return FileExistsError(
        f"{path} exists{unfinished}: choose another name or `--overwrite` "
        "(overwrite=True)."
    )


def _closed(path: Path) -> OSError | None:
    """Say that the folder a store would be in cannot be written to, or None."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return None
    return PermissionError(f"{path} cannot be made: {above} cannot be written to.")
