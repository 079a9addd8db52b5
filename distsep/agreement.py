"""Whether all ranks were asked the same: else some wait for the others forever."""

import hashlib
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from os.path import commonprefix
from typing import Any

import numpy as np

from distsep.model.mistakes import is_number

# Of a term: one value for each pixel of a rank.
_OF_PIXELS = ("map", "regions")


def require_one_call(comm: Any, call: str, arguments: Mapping[str, Any]) -> None:
    """Refuse ranks that were called with different arguments.

    Args:
        comm: Ranks.
        call: Name of the function.
        arguments: By name. Arrays of `patches`, and maps of terms, have a value for
            each pixel of a rank and may differ.

    Raises:
        ValueError: on all ranks, naming the first argument that differs.

    Communication: one allgather of a few words per argument.
    """
    if comm.size == 1:
        return
    mine = {k: in_words(v, arrays=k != "patches") for k, v in arguments.items()}
    for name, rank, other, first in differences(comm, mine):
        raise ValueError(
            f"`{call}({name}=...)`: rank {rank} was given {other}, rank 0 "
            f"{first}: expected the same on all ranks. Call `{call}` with one set "
            "of arguments everywhere."
        )


def differences(
    comm: Any, words: Mapping[str, str]
) -> Iterator[tuple[str, int, str, str]]:
    """Yield (name, rank, its words, those of rank 0), the same on every rank.

    Communication: one allgather of the words.
    """
    every = comm.allgather(dict(words))
    for name in words:
        for rank, other in enumerate(every):
            if other[name] != every[0][name]:
                yield name, rank, *_apart(other[name], every[0][name])


def _apart(one: str, other: str) -> tuple[str, str]:
    """Two texts, shortened to where they differ."""
    same = len(commonprefix((one, other)))
    start = max(same - 40, 0) if max(len(one), len(other)) > 80 else 0
    dots = "..." if start else ""
    return f"{dots}{one[start:]:.80}", f"{dots}{other[start:]:.80}"


def in_words(value: Any, *, arrays: bool = True) -> str:
    """Words that are the same on every rank for the same value: never an address.

    Args:
        value: A number, text, array, or laws and terms of this package, or many.
        arrays: Whether the numbers of arrays count.
    """
    if value is None or isinstance(value, str | bool):
        return repr(value)
    if isinstance(value, PathLike):
        return repr(fspath(value))
    kind = type(value).__name__
    if isinstance(value, list | tuple):
        if not arrays and all(map(is_number, value)):
            return kind
        return "[" + ", ".join(in_words(v, arrays=arrays) for v in value) + "]"
    if is_number(value):
        return f"{float(value):.17g}"
    if isinstance(value, Mapping):
        each = sorted((str(k), in_words(v, arrays=arrays)) for k, v in value.items())
        return "{" + ", ".join(f"{k!r}: {words}" for k, words in each) + "}"
    if isinstance(value, np.ndarray):
        if not arrays or value.dtype == object:
            return kind
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"{kind} {value.shape} {value.dtype} {digest[:12]}"
    if type(value).__module__.startswith("distsep."):
        fields = vars(value).items()
        words = (f"{k}={in_words(v, arrays=k not in _OF_PIXELS)}" for k, v in fields)
        return f"{kind}({', '.join(words)})"
    name = getattr(value, "name", None)
    return f"{kind} {name}" if isinstance(name, str) else kind
