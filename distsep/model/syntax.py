"""Text of a formula -> Python's syntax tree, within limits; its numbers."""

import ast
import warnings
from fractions import Fraction

MAX_LENGTH = 2000
MAX_PARENTHESES = 40
_SMALL = 1000  # numerators and denominators that stay exact

Number = int | Fraction | float


class FormulaError(ValueError):
    """A formula that is refused, and why."""


def syntax_tree(text: str) -> ast.expr:
    """Read an expression with Python's parser.

    Args:
        text: At most `MAX_LENGTH` ASCII characters.

    Raises:
        FormulaError: if it is too long, too deep, or no expression.
    """
    if not isinstance(text, str):
        raise FormulaError(f"A formula is a string; got {type(text).__name__}.")
    if len(text) > MAX_LENGTH:
        raise FormulaError(
            f"The formula has {len(text)} characters; at most {MAX_LENGTH} are read."
        )
    if not text.isascii():
        raise FormulaError(f"The formula {short(text)} has non-ASCII characters.")
    if (deepest := _depth(text)) > MAX_PARENTHESES:
        raise FormulaError(
            f"The formula {short(text)} nests {deepest} parentheses; at most "
            f"{MAX_PARENTHESES} are read."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's tokeniser
            return ast.parse(" ".join(text.split()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or type(error).__name__
        raise FormulaError(
            f"The formula {short(text)} cannot be read: {reason}."
        ) from None


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def short(text: str) -> str:
    """The formula as it is quoted in an error."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def exact(value: Number) -> Number:
    """Integers and short decimals as they are meant: 0.5 is one half."""
    if isinstance(value, float):
        fraction = Fraction(value).limit_denominator(_SMALL)
        return fraction if float(fraction) == value and is_small(fraction) else value
    return Fraction(value)


def is_small(value: int | Fraction) -> bool:
    """Whether a rational number may stay exact."""
    return max(abs(value.numerator), value.denominator) <= _SMALL
