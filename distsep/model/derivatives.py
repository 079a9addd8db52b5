"""Derivatives of a formula that cost little beside its value.

The product rule makes copies of exponentials and powers. Here a product has a name, and
its derivative is itself times that of its logarithm: no function is computed anew.
"""

from collections.abc import Callable, Iterable
from typing import Any

import sympy
from sympy.codegen.cfunctions import expm1


class Derivatives:
    """Partial derivatives of one expression, in names for its products.

    Args:
        expression: What is differentiated.
        positive: Symbols known to be positive.

    Attributes:
        value: The expression, in names.
    """

    def __init__(self, expression: Any, positive: Iterable[sympy.Symbol]) -> None:
        self._signs = {s: sympy.Dummy(positive=True) for s in positive}
        self._products: dict[sympy.Symbol, Any] = {}
        self._names: dict[Any, sympy.Symbol] = {}
        self._slopes: dict[tuple[sympy.Symbol, sympy.Symbol], Any] = {}
        self.value = self._named(expression)

    def by(self, expression: Any, x: sympy.Symbol) -> Any:
        """Derivative of an expression in names."""
        names = sorted(expression.free_symbols & set(self._products), key=str)
        chain = [expression.diff(name) * self._slope(name, x) for name in names]
        return sympy.Add(expression.diff(x), *chain)

    def shared(
        self, outputs: list[Any], change: Callable[[Any], Any] = lambda e: e
    ) -> tuple[list[tuple[Any, Any]], list[Any]]:
        """Steps in which everything is computed once, the products among them.

        Args:
            outputs: Expressions in names.
            change: What is done to every product and output before.

        Returns:
            (symbol, expression) in an order in which they can be computed, and the
            outputs: as `sympy.cse`, in whose place `lambdify` takes this.
        """
        every = [*self._products.values(), *outputs]
        steps: Any
        reduced: Any
        steps, reduced = sympy.cse([change(e) for e in every])
        count = len(self._products)
        waiting = dict([*steps, *zip(self._products, reduced[:count], strict=True)])
        ordered: list[tuple[Any, Any]] = []
        while waiting:
            ready = [s for s, e in waiting.items() if not e.free_symbols & set(waiting)]
            ordered += [(s, waiting.pop(s)) for s in ready]
        return ordered, reduced[count:]

    def _slope(self, name: sympy.Symbol, x: sympy.Symbol) -> Any:
        if (name, x) not in self._slopes:
            factors = sympy.Mul.make_args(self._products[name])
            slope = sympy.Add(*(self._log_slope(f, x) for f in factors))
            self._slopes[name, x] = name * slope
        return self._slopes[name, x]

    def _log_slope(self, factor: Any, x: sympy.Symbol) -> Any:
        """Derivative of the logarithm of a factor."""
        base, power = factor.as_base_exp()
        if base == sympy.E:
            return self.by(power, x)
        if isinstance(base, expm1):
            # exp / expm1, without another exponential and without overflow.
            return power * self.by(base.args[0], x) * (1 + self._name(1 / base))
        return power * self.by(base, x) / base

    def _named(self, expression: Any) -> Any:
        """Give names to the factors that have a logarithm, innermost first."""
        factors = [
            f.func(*map(self._named, f.args)) if f.args else f
            for f in sympy.Mul.make_args(expression)
        ]
        exponent, whole, rest = sympy.S.Zero, [], []
        for factor in factors:
            base, power = factor.as_base_exp()
            if base == sympy.E:
                exponent += power
            elif power.free_symbols and self._is_positive(base):
                exponent += power * sympy.log(base)
            elif power.is_negative and base.args:
                whole.append(factor)
            else:
                rest.append(factor)
        product = sympy.Mul(sympy.exp(exponent), *whole)
        return sympy.Mul(self._name(product) if product != 1 else 1, *rest)

    def _name(self, product: Any) -> sympy.Symbol:
        if product not in self._names:
            sign = {"positive": True} if isinstance(product, sympy.exp) else {}
            name = sympy.Symbol(f"f_{len(self._names)}", real=True, **sign)
            self._names[product], self._products[name] = name, product
        return self._names[product]

    def _is_positive(self, expression: Any) -> bool:
        return bool(expression.xreplace(self._signs).is_positive)
