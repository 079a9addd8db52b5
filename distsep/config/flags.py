"""The mistakes of `distsep import`, in the words of its options.

The tables of run.toml and the options share their checks; only the spelling differs.
"""

import re
from collections.abc import Iterable

from distsep.config.errors import Place, Problem

_KEY = re.compile(r"`(\w+)(?: = \"(\w+)\")?`(?: of \[\w+\])?")


def spell_flags(problems: Iterable[Problem], flags: Iterable[str]) -> list[str]:
    """Return one line for each mistake.

    Args:
        problems: Place in the tables, and words in which keys stand in backticks:
            `depth_i`, `unit` of [observation], `stokes = "I"`.
        flags: Keys that are options: `depth_i` is `--depth-i`.

    Examples:
        >>> spell_flags([(("instrument", "nu"), "give `nu` or `preset`")], ["nu"])
        ['give `--nu` or `preset`']
    """
    known = set(flags)

    def option(match: re.Match) -> str:
        key, value = match.groups()
        if key not in known:
            return match[0]
        return f"`{_flag(key)} {value}`" if value else f"`{_flag(key)}`"

    lines = []
    for place, message in problems:
        words = _KEY.sub(option, message)
        flag = next((_flag(k) for k in _keys(place) if k in known), None)
        says = flag is None or re.search(rf"`{flag}[` ]", words)
        lines.append(words if says else f"{flag}: {words}")
    return list(dict.fromkeys(lines))


def _keys(place: Place) -> list[str]:
    return [key for key in reversed(place) if isinstance(key, str)]


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"
