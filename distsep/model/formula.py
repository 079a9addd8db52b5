"""Text of an emission law -> sympy -> jax, by a whitelist. No text is evaluated.

A formula may hold numbers, names, `+ - * / **`, parentheses and the functions of
`FUNCTIONS`. Every name is a parameter, except `nu` [GHz] and the documented constants
`h_over_k` [K/GHz] and `T_CMB` [K]; `I`, `E`, `S`, `pi`, `beta`, `gamma` have no meaning
of their own.

Numbers other than small rationals become symbols that stand for their value: the
algebra then cannot be made to compute huge powers, and no digit is lost in print.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import sympy
from sympy.codegen.cfunctions import expm1, log1p

from distsep.model.derivatives import Derivatives
from distsep.model.syntax import (
    FormulaError,
    Number,
    exact,
    is_small,
    short,
    syntax_tree,
)
from distsep.model.tables import TableData
from distsep.model.units import H_OVER_K, T_CMB

MAX_NODES = 400
MAX_DEPTH = 80
MAX_EXPONENT = 20
MAX_NESTED_POWERS = 3
_LARGEST = 10**4  # of a number that the algebra may produce from them


class Table(sympy.Function):
    """`Table(n, x)`: the n-th derivative of the tabulated law at x."""

    nargs = 2

    def fdiff(self, argindex: int = 2) -> Any:  # noqa: ARG002
        """Derivative with respect to x, the second argument; the first is a number."""
        order, x = self.args
        return Table(sympy.Integer(int(str(order)) + 1), x)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[[float], float]]] = {
    "exp": (sympy.exp, math.exp),
    "expm1": (expm1, math.expm1),
    "log": (sympy.log, math.log),
    "log1p": (log1p, math.log1p),
    "log10": (lambda x: sympy.log(x) / sympy.log(10), math.log10),
    "sqrt": (sympy.sqrt, math.sqrt),
    "sin": (sympy.sin, math.sin),
    "cos": (sympy.cos, math.cos),
    "tan": (sympy.tan, math.tan),
    "sinh": (sympy.sinh, math.sinh),
    "cosh": (sympy.cosh, math.cosh),
    "tanh": (sympy.tanh, math.tanh),
    "abs": (sympy.Abs, abs),
}
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
CONSTANTS: dict[str, float] = {"h_over_k": H_OVER_K, "T_CMB": T_CMB}
NU = sympy.Symbol("nu", real=True)


def symbol(name: str) -> sympy.Symbol:
    """The symbol of a parameter; the prefix keeps it apart from names in the code."""
    return sympy.Symbol(f"p_{name}", real=True)


class Formula(NamedTuple):
    """A parsed emission law.

    Attributes:
        expression: In `NU`, `symbol(name)` and the symbols of `constants`.
        names: Names other than `nu` and constants, in order of appearance.
        constants: (symbol, value) of the numbers.
    """

    expression: sympy.Expr
    names: tuple[str, ...]
    constants: tuple[tuple[sympy.Symbol, float], ...]

    def taylor(self, powers: Mapping[str, int]) -> "Formula":
        """A term of the Taylor series: the mixed derivative over its factorials."""
        expression = self.expression
        for name, power in powers.items():
            derivative = expression.diff(symbol(name), power)
            expression = derivative / sympy.factorial(power)
        return self._replace(expression=expression)

    def table_reach(self, values: Mapping[str, float], nu: float) -> list[float]:
        """Frequencies at which the tabulated function is asked for at `nu` [GHz]."""
        numbers = [(symbol(n), v) for n, v in values.items()]
        numbers += [*self.constants, (NU, nu)]
        arguments = [atom.args[1] for atom in self.expression.atoms(Table)]
        values_at: list[Any] = [x.subs(numbers) for x in arguments]
        return sorted(float(x) for x in values_at)

    def values(
        self, nu: np.ndarray, parameters: Mapping[str, float], table: TableData | None
    ) -> np.ndarray:
        """The formula in numpy, in the shape of `nu`; NaN or inf where it has no value.

        Args:
            nu: Frequencies [GHz].
            parameters: Values of all names.
            table: The tabulated function, if the formula has one.
        """
        numbers = [np.float64(parameters[n]) for n in self.names]
        numbers += [np.float64(value) for _, value in self.constants]
        with np.errstate(all="ignore"):
            found = np.asarray(_numpy_function(self, table)(nu, *numbers))
        return np.broadcast_to(found.astype(float), nu.shape)


class Compiled(NamedTuple):
    """A formula and its derivatives as one function of jax arrays.

    Attributes:
        function: (nu, *names, *constants) -> value, then `first`, then `second`.
        first: Parameters whose derivative does not vanish.
        second: Pairs of parameters, each once, likewise.
    """

    function: Callable[..., list[Any]]
    first: tuple[str, ...]
    second: tuple[tuple[str, str], ...]


@lru_cache(maxsize=512)
def compile_formula(
    formula: Formula,
    free: tuple[str, ...],
    table: TableData | None = None,
    order: int = 2,
) -> Compiled:
    """Differentiate a formula, and compile everything with shared subexpressions.

    Args:
        formula: The formula.
        free: Parameters with respect to which it is differentiated.
        table: The tabulated function, if the formula has one.
        order: Highest order of the derivatives, up to 2.
    """
    positive = {s for s, value in formula.constants if value > 0} | {NU, symbol("nu0")}
    d = Derivatives(formula.expression, positive)
    first = {n: d.by(d.value, symbol(n)) for n in free if order > 0}
    first = {n: e for n, e in first.items() if e != 0}
    second = {
        (a, b): d.by(e, symbol(b))
        for a, e in first.items()
        for b in free[free.index(a) :]
        if order > 1
    }
    second = {pair: e for pair, e in second.items() if e != 0}
    known: dict[str, Any] = {"Inverse": lambda x: 1 / x, "expm1": _expm1}
    if table is not None:
        known["Table"] = table.curve
    function = sympy.lambdify(
        [NU, *map(symbol, formula.names), *(s for s, _ in formula.constants)],
        [d.value, *first.values(), *second.values()],
        modules=[known, "jax"],
        cse=partial(d.shared, change=_quick),
    )
    return Compiled(function, tuple(first), tuple(second))


def _expm1(x: Any) -> Any:
    """exp(x) - 1, to the last bits at small x too.

    XLA's own takes three to five times as long on a processor, unless the number of
    bands is a multiple of eight: its branches are not written for vectors.
    """
    return jnp.tanh(x / 2) * (jnp.exp(x) + 1)


def _quick(expression: Any) -> Any:
    """An expression as it is computed."""
    # Of abs, the second derivative is taken as 0, also where it has its kink.
    expression = expression.replace(sympy.DiracDelta, lambda *_: sympy.S.Zero)
    inverse = sympy.Function("Inverse")

    def faster(base, power):
        # The general power of a processor takes eight times as long as a division.
        whole = power.is_Integer and (power < -1 or (power == -1 and base.args))
        return inverse(base**-power) if whole else base**power

    return expression.replace(sympy.Pow, faster)


@lru_cache(maxsize=512)
def _numpy_function(formula: Formula, table: TableData | None) -> Callable[..., Any]:
    arguments = [NU, *map(symbol, formula.names), *(s for s, _ in formula.constants)]
    expression = formula.expression.replace(sympy.DiracDelta, lambda *_: sympy.S.Zero)
    modules = [{} if table is None else {"Table": table.curve}, "numpy"]
    return sympy.lambdify(arguments, expression, modules=modules, cse=True)


def parse(text: str, *, table: bool = False) -> Formula:
    """Translate the text of an emission law.

    Args:
        text: For example "(nu/nu0)**beta".
        table: Whether `table(x)`, a tabulated function of the component, is known.

    Returns:
        The expression, its names and its numbers.

    Raises:
        FormulaError: for anything that is not on the whitelist, with the reason.
    """
    tree = syntax_tree(text)
    translator = _Translator(text, table)
    expression = translator.expression(translator.translate(tree, 0, 0))
    # A constant symbol that cancelled is not an argument of the law.
    used = expression.free_symbols
    constants = tuple((s, v) for v, s in translator.constants.items() if s in used)
    return Formula(expression, tuple(translator.names), constants)


class _Translator:
    """One walk over one syntax tree."""

    def __init__(self, text: str, table: bool) -> None:
        self.text = text
        self.table = table
        self.names: dict[str, None] = {}
        self.constants: dict[float, sympy.Symbol] = {}
        self.nodes = 0

    def refuse(self, reason: str) -> FormulaError:
        return FormulaError(f"The formula {short(self.text)} is refused: {reason}.")

    def translate(self, node: ast.expr, depth: int, powers: int) -> Any:
        """A number (folded in Python) or a sympy expression."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.refuse(f"it has more than {MAX_NODES} terms and operations")
        if depth > MAX_DEPTH:
            raise self.refuse("it is nested too deeply")
        match node:
            case ast.Constant():
                result = self.number(node.value)
            case ast.Name():
                result = self.name(node.id)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                operand = self.translate(node.operand, depth + 1, powers)
                result = -operand if isinstance(node.op, ast.USub) else operand
            case ast.BinOp():
                result = self.binary(node, depth + 1, powers)
            case ast.Call():
                result = self.call(node, depth + 1, powers)
            case _:
                raise self.refuse(
                    f"{type(node).__name__} is not arithmetic; only names, numbers, "
                    f"+ - * / ** and the functions {', '.join(FUNCTIONS)} are read"
                )
        return self.guard(result)

    def number(self, value: Any) -> Number:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(f"{value!r} is not a real number")
        if isinstance(value, int) and abs(value) > 10**300:
            raise self.refuse("a number is too large")
        return value

    def name(self, name: str) -> Any:
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name == "nu":
            return NU
        if name in FUNCTIONS:
            raise self.refuse(f"{name!r} is a function: write {name}(...)")
        if name.startswith("_") or "__" in name or len(name) > 64:
            raise self.refuse(f"{name[:40]!r} cannot be the name of a parameter")
        self.names[name] = None
        return symbol(name)

    def binary(self, node: ast.BinOp, depth: int, powers: int) -> Any:
        inside = powers + isinstance(node.op, ast.Pow)
        if inside > MAX_NESTED_POWERS:
            raise self.refuse(f"powers are nested more than {MAX_NESTED_POWERS} deep")
        left = self.translate(node.left, depth, inside)
        right = self.translate(node.right, depth, inside)
        if isinstance(node.op, ast.Pow):
            return self.power(left, right)
        apply = _ARITHMETIC.get(type(node.op))
        if apply is None:
            if isinstance(node.op, ast.BitXor):
                raise self.refuse("^ is no power: write **")
            raise self.refuse(f"{type(node.op).__name__} is not one of + - * / **")
        minus_one = isinstance(node.op, ast.Sub) and right == 1
        if minus_one and isinstance(left, sympy.exp):
            return expm1(left.args[0])  # exp(x) - 1 loses digits at small x
        if isinstance(left, sympy.Expr) or isinstance(right, sympy.Expr):
            left, right = self.expression(left), self.expression(right)
        else:
            left, right = exact(left), exact(right)
        if isinstance(node.op, ast.Div) and right == 0:
            raise self.refuse("it divides by zero")
        return apply(left, right)

    def power(self, base: Any, exponent: Any) -> Any:
        number = not isinstance(exponent, sympy.Expr) or exponent.is_Number
        if number and abs(exponent) > MAX_EXPONENT:
            raise self.refuse(f"the power {exponent} is larger than {MAX_EXPONENT}")
        if not isinstance(exponent, sympy.Expr) and not isinstance(base, sympy.Expr):
            return self.finite(lambda: float(base) ** float(exponent))
        return self.expression(base) ** self.expression(exponent)

    def call(self, node: ast.Call, depth: int, powers: int) -> Any:
        known = [*FUNCTIONS, *(["table"] if self.table else [])]
        if not isinstance(node.func, ast.Name) or node.func.id not in known:
            raise self.refuse(f"the only functions are {', '.join(known)}")
        name = node.func.id
        if len(node.args) != 1 or node.keywords:
            raise self.refuse(f"{name} takes one argument")
        argument = self.translate(node.args[0], depth, powers)
        if name == "table":
            return Table(sympy.Integer(0), self.expression(argument))
        build, evaluate = FUNCTIONS[name]
        if not isinstance(argument, sympy.Expr):
            return self.finite(lambda: evaluate(float(argument)))
        return build(argument)

    def finite(self, value: Callable[[], Any]) -> float:
        """A constant part of the formula, computed with Python floats."""
        try:
            result = value()
        except (OverflowError, ValueError, ZeroDivisionError):
            result = math.nan
        if isinstance(result, complex) or not math.isfinite(result):
            raise self.refuse("a constant part of it is not a finite real number")
        return result

    def guard(self, result: Any) -> Any:
        """Keep numbers small, so that no later step can be expensive."""
        if isinstance(result, sympy.Expr):
            if result.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo, sympy.I):
                raise self.refuse("it is not finite and real")
            large = {
                number: self.constant(self.finite(lambda n=number: float(n)))
                for number in result.atoms(sympy.Rational)
                if max(abs(number.p), number.q) > _LARGEST
            }
            return result.xreplace(large) if large else result
        self.finite(lambda: float(result))
        if isinstance(result, Fraction) and result.denominator == 1:
            result = int(result)
        if isinstance(result, float) or is_small(result):
            return result
        return float(result)

    def expression(self, value: Any) -> sympy.Expr:
        """A number as an exact rational if it is small, else as its symbol."""
        if isinstance(value, sympy.Expr):
            return value
        value = exact(value)
        if not isinstance(value, float) and is_small(value):
            return sympy.Rational(value.numerator, value.denominator)
        return self.constant(float(value))

    def constant(self, value: float) -> sympy.Symbol:
        """The symbol that stands for a number."""
        if value not in self.constants:
            name = f"c_{len(self.constants)}"
            self.constants[value] = sympy.Symbol(name, real=True)
        return self.constants[value]
