"""The header of a store as it is on disk: read, or said to be damaged."""

import json
from pathlib import Path
from typing import Any


class Header(dict):
    """The attributes of a store; one that is missing is damage.

    Args:
        path: Of the store.
        attributes: Those found.
    """

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        super().__init__(attributes)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise ValueError(damaged(self._path, f"{key!r} is missing"))


def damaged(path: Path, what: object, array: str = "") -> str:
    """Say that the header of a store, or of one of its arrays, is damaged."""
    file = Path(array, "zarr.json")
    return f"the store {path} is damaged ({file}: {what}): write it again."


def is_json(file: Path) -> bool:
    """Whether a file holds a JSON object."""
    try:
        return isinstance(json.loads(file.read_text()), dict)
    except ValueError:
        return False


def read_header(path: Path) -> dict[str, Any] | None:
    """Return the attributes of a group that distsep wrote, or None."""
    try:
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return attributes if "distsep" in attributes else None
