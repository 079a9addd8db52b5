"""Mistakes of the caller, put in words, so that one error can list them all."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

Real = float | int | np.number
"""A real number, as callers write them."""


def unit_of(values: Any) -> str:
    """Unit that an array carries itself, as those of astropy do, or nothing."""
    return str(getattr(values, "unit", None) or "")


class InputError(ValueError):
    """Everything that is wrong with what the caller gave.

    Args:
        where: The call, "separate(...)".
        lines: One for each mistake; repeated ones are said once.

    Attributes:
        lines: The same.
    """

    def __init__(self, where: str, *lines: str):
        self.lines = list(dict.fromkeys(line.rstrip(".") for line in lines))
        said = [line if line.endswith("?") else f"{line}." for line in self.lines]
        if len(said) == 1:
            text = f"`{where}`: {said[0]}"
        else:
            each = "".join(f"\n  - {line}" for line in said)
            text = f"`{where}`: {len(self.lines)} mistakes:{each}"
        super().__init__(text)


def collect(
    wrong: list[str], function: Callable[..., T], *args: Any, **options: Any
) -> T | None:
    """Call a function; if it raises `InputError`, add them to `wrong`, return None."""
    try:
        return function(*args, **options)
    except InputError as error:
        wrong += error.lines
        return None


def is_number(value: Any) -> bool:
    """Whether a value is one finite real number."""
    if isinstance(value, bool | str | complex) or np.ndim(value) != 0:
        return False
    try:
        return math.isfinite(value)
    except TypeError:
        return False


def listed(values: Any) -> list[Any]:
    """Values as a list; a word, a number or None is one."""
    single = isinstance(values, str) or not np.iterable(values)
    return [values] if single else list(values)


ARRAYS = (
    *("amplitudes", "amplitude_covariance", "cell_ids", "chi2", "residuals"),
    *("residual_power", "covariance", "hessian_inverse", "fisher_inverse"),
    *("comp", "stokes", "chosen", "chosen_2", "param", "param_2"),
)
"""Arrays of a result store, beside which those of the parameters stand."""


def word_mistakes(argument: str, word: Any) -> list[str]:
    """Say if something cannot be part of the name of a parameter, and of its array."""
    if isinstance(word, str) and word and not {".", "/"} & set(word):
        return []
    return [f"`{argument}` should be a word without dots and slashes; got {word!r}"]


def number_mistakes(values: Mapping[str, Any]) -> list[str]:
    """Values that are not finite numbers; None is no value."""
    return [
        f"`{name}` should be a finite number; got {value!r}"
        for name, value in values.items()
        if value is not None and not is_number(value)
    ]


def unknown_names(
    argument: str, names: Iterable[str], known: Iterable[str]
) -> list[str]:
    """One line for every name that is not known, with the nearest that is."""
    known = list(known)
    lines = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
            hint = "known: " + (", ".join(known) or "none")
            hint = f"did you mean {near[0]!r}?" if near else hint
            lines.append(f"`{argument}` names {name!r}, which does not exist; {hint}")
    return lines


def start_mistakes(
    start: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Bounds that do not increase, and starting values outside them."""
    lines = []
    for name, value in start.items():
        lower, upper = bounds[name]
        if not lower < upper:
            lines.append(f"bounds of `{name}` should increase; got {lower}, {upper}")
        elif not lower <= value <= upper:
            lines.append(f"start {value} of `{name}` is outside {lower} .. {upper}")
    return lines


def fixed_mistakes(
    fixed: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]
) -> list[str]:
    """Fixed values outside the bounds of their parameters."""
    return [
        f"fixed value {value} of `{name}` is outside its bounds "
        f"{bounds[name][0]} .. {bounds[name][1]}"
        for name, value in fixed.items()
        if name in bounds and not bounds[name][0] <= value <= bounds[name][1]
    ]


def mapping_mistakes(argument: str, given: Any, example: str) -> list[str]:
    """Say if an argument is not given by names; None is nothing given."""
    if given is None or isinstance(given, Mapping):
        return []
    return [f"`{argument}` should be given by name, {example}; got {given!r:.80}"]
