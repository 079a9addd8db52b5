"""What is wrong with a configuration file: all of it, at once, with the nearest name.

Knows pydantic models and TOML, nothing of skies. `collect` turns raw tables into a
model and a list of problems; `apply_overrides` is `--set`.
"""

import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Place = tuple[str | int, ...]
Problem = tuple[Place, str]
Model = TypeVar("Model", bound=BaseModel)


class ConfigError(ValueError):
    """A configuration that cannot be run, with everything that is wrong with it.

    Attributes:
        problems: One line for each mistake, the key first.
    """

    def __init__(self, source: str, problems: list[str]):
        self.problems = problems
        n = len(problems)
        title = f"{source}: {n} mistake{'' if n == 1 else 's'}"
        super().__init__("\n".join([title, *(f"  {line}" for line in problems)]))


def closest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that a misspelt one is nearest to, if it is near any."""
    lower = {str(v).lower(): str(v) for v in valid}
    close = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None


def nearest(name: str, valid: Iterable[str]) -> str:
    """Words to add to a message: the closest valid name, or all of them."""
    valid = [str(v) for v in valid]
    close = closest(name, valid)
    if close is not None:
        return f"did you mean `{close}`?"
    return "valid: " + ", ".join(valid) if valid else "nothing is valid here"


def spell(place: Place, tables: Any) -> str:
    """The key of a place as it is written for `--set`: `component.Dust.beta_d.start`.

    An element of an array of tables is called by its name where that is its own.
    """
    words: list[str] = []
    raw: Any = tables
    for key in place:
        word = str(key)
        if isinstance(key, int) and isinstance(raw, list):
            names = _names(raw)
            if key < len(raw) and names[key] and names.count(names[key]) == 1:
                word = names[key]
        # `gather_parameters` put these two between a component and its keys.
        if key not in ("parameters", "options") or place[0] != "component":
            words.append(word)
        try:
            raw = raw[key]  # pyright: ignore
        except (LookupError, TypeError):
            raw = None
    return ".".join(words)


def _names(tables: list) -> list[str]:
    """What the elements of an array of tables are called: `name`, else `kind`."""
    each = (t if isinstance(t, dict) else {} for t in tables)
    return [str(t.get("name", t.get("kind", ""))) for t in each]


def read_toml(path: Path) -> dict:
    """The tables of a TOML file.

    Raises:
        ConfigError: if there is no such file, or it is not TOML (with line and column).
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(path), ["there is no such file"]) from None
    except IsADirectoryError:
        raise ConfigError(str(path), ["is a folder, not a TOML file"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"is not valid TOML: {error}"]) from None


def apply_overrides(raw: dict, overrides: Sequence[str]) -> None:
    """Write `section.key=value` assignments into raw tables, in place.

    The value is TOML; what is not TOML is taken as a string, since a shell eats
    quotes. An element of an array of tables is named by its number or its name:
    `component.Dust.nu0=353`, `global.0.bands=["40"]`.

    Raises:
        ConfigError: if an assignment has no `=`, or its place cannot exist.
    """
    problems = []
    for text in overrides:
        key, equals, value = text.partition("=")
        words = key.strip().split(".")
        if not equals or not all(words):
            problems.append(f"`{text}`: expected section.key=value")
            continue
        try:
            _assign(raw, words, _toml_value(value.strip()))
        except LookupError as error:
            problems.append(f"`{text}`: {error.args[0]}")
    if problems:
        raise ConfigError("--set", problems)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(tables: Any, words: list[str], value: Any) -> None:
    table: Any = tables
    key: Any
    for n, word in enumerate(words):
        last = n == len(words) - 1
        if isinstance(table, dict):
            key = word
            if not last:
                table.setdefault(word, {})
        elif isinstance(table, list):
            key = _element(table, word)
        else:
            raise LookupError(f"`{'.'.join(words[:n])}` is a value, not a table")
        if last:
            table[key] = value
        else:
            table = table[key]


def _element(tables: list, word: str) -> int:
    if word.isdigit():
        if int(word) < len(tables):
            return int(word)
        raise LookupError(f"there are {len(tables)} elements, numbered from 0")
    names = _names(tables)
    if names.count(word) == 1:
        return names.index(word)
    if word in names:
        raise LookupError(f"there are {names.count(word)} `{word}`; use the number")
    raise LookupError(f"there is no `{word}`; {nearest(word, filter(None, names))}")


def collect(model: type[Model], raw: dict) -> tuple[Model | None, list[Problem]]:
    """Read raw tables into a model, with every mistake rather than the first.

    A key found wrong is taken out and the rest is read again, so that mistakes of one
    table do not hide those of another. What follows only from a mistake already
    reported (its table is now incomplete) is not reported.

    Returns:
        The model of what is left (None if it cannot stand) and the problems.
    """
    problems: list[Problem] = []
    raw = _copy(raw)
    seen: list[Place] = []
    while True:
        try:
            return model.model_validate(raw), problems
        except ValidationError as error:
            places = []
            for item in error.errors():
                place, message = _problem(model, item)
                if not follows_from(place, seen):
                    problems.append((place, message))
                places.append(place)
            seen += places
            # Only keys of tables are taken out, so that arrays keep their numbers.
            if not any(_remove(raw, place) for place in set(places)):
                return None, problems


def follows_from(place: Place, seen: Iterable[Place]) -> bool:
    """Whether a place lies on the way to, or below, one already reported."""
    return any(place[: len(s)] == s or s[: len(place)] == place for s in seen)


def _copy(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {k: _copy(v) for k, v in raw.items()}
    return [_copy(v) for v in raw] if isinstance(raw, list) else raw


def _remove(raw: Any, place: Place) -> bool:
    """Take the deepest part of a place that is a key of a table out of the tables."""
    tables = [raw]
    for key in place[:-1]:
        try:
            tables.append(tables[-1][key])
        except (KeyError, IndexError, TypeError):
            break
    for n in range(len(tables) - 1, -1, -1):
        if isinstance(tables[n], dict) and place[n] in tables[n]:
            del tables[n][place[n]]
            return True
    return False


def _problem(model: type[BaseModel], item: Any) -> Problem:
    place, kind, message = tuple(item["loc"]), item["type"], item["msg"]
    if kind == "extra_forbidden":
        parent = _model_at(model, place[:-1])
        message = "unknown key; " + nearest(str(place[-1]), _keys(parent))
    elif kind == "missing":
        message = "is required"
    elif kind == "too_short":
        message = f"needs at least {item['ctx']['min_length']} items"
    elif kind == "too_long":
        message = f"takes at most {item['ctx']['max_length']} items"
    elif kind == "value_error":
        message = str(item["ctx"]["error"])
    elif kind == "literal_error":
        valid = _literals(item["ctx"]["expected"])
        message = f"got {item['input']!r}; {nearest(str(item['input']), valid)}"
    else:
        message = f"{message[0].lower()}{message[1:]}, got {item['input']!r}"
    return place, message.replace("input should be", "should be")


def _literals(expected: str) -> list[str]:
    return [w.strip("' ") for w in expected.replace(" or ", ", ").split(",")]


def _keys(model: type[BaseModel] | None) -> list[str]:
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: Any, place: Place) -> type[BaseModel] | None:
    """The table type at a place, found by walking the annotations."""
    for key in place:
        if isinstance(model, type) and issubclass(model, BaseModel):
            fields = {f.alias or n: f.annotation for n, f in model.model_fields.items()}
            model = fields.get(str(key))
        elif typing.get_origin(model) is list:
            (model,) = typing.get_args(model)
        elif typing.get_origin(model) is dict:
            model = typing.get_args(model)[1]
        model = _table_in(model)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _table_in(annotation: Any) -> Any:
    """Of `X | None` and the like, the part that can hold a table."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                return part
            if typing.get_origin(part) in (list, dict):
                return part
    return annotation
