"""Derivatives of formulas, against plain calculus in 40 digits."""

import jax
import mpmath
import numpy as np
import pytest
import sympy

from distsep.model import laws
from distsep.model.formula import NU, compile_formula, parse, symbol

NU_GHZ = np.array([7.0, 23.0, 101.0, 353.0, 857.0, 2998.0])
LAWS = {
    "Dust": laws.Dust(353.0),
    "TwoTemperatureDust": laws.TwoTemperatureDust(353.0),
    "CIB": laws.CIB(353.0),
    "Synchrotron": laws.Synchrotron(23.0),
    "CurvedSynchrotron": laws.CurvedSynchrotron(23.0),
    "AME": laws.AME(22.0),
    "FreeFree": laws.FreeFree(23.0, Te=None),
}
FORMULAS = {
    "bose": ("1 / (exp(nu*h_over_k/t) - 1)", {"t": 18.0}),
    "bose, from the other side": ("-1 / (exp(-nu*h_over_k/t) - 1)", {"t": 18.0}),
    "a power of a sum": ("(1 + (nu/100)**a)**(-b)", {"a": 1.3, "b": 0.7}),
    "a power in a power": ("(nu/100)**(a*(nu/30)**b)", {"a": -0.4, "b": 0.1}),
    "a base of any sign": ("a**2 * (a - nu/50)**3 / (nu + b)", {"a": 3.0, "b": 9.0}),
    "a base without a sign": ("(a*nu)**b", {"a": 0.02, "b": 1.4}),
    "a quotient of sums": ("(a + b*nu) / (nu - a*b)**2", {"a": 2.0, "b": -1.5}),
    "nested exponentials": ("exp(-a*exp(-nu/b))", {"a": 0.6, "b": 300.0}),
    "a product of powers": ("a**b * b**a * nu**(a - b)", {"a": 1.2, "b": 0.9}),
    "other functions": ("sqrt(a)*sin(b*nu/9e2)*tanh(nu/a)/log(nu*a)", {"a": 9, "b": 2}),
    "the two signs of a number": ("abs(a*nu - 300)*exp(-b*nu/900)", {"a": 1, "b": 2}),
    "a parameter alone": ("a / b + nu*0", {"a": 2.0, "b": 4.0}),
    "nothing to differentiate": ("exp(-nu/100)*(nu/3)**0.37", {}),
}


def exact(formula, expression, values):
    """An expression at all frequencies in 40 digits."""
    names = [symbol(n) for n in formula.names]
    numbers = [mpmath.mpf(float(values[n])) for n in formula.names]
    names += [s for s, _ in formula.constants]
    numbers += [mpmath.mpf(v) for _, v in formula.constants]
    expression = expression.replace(sympy.DiracDelta, lambda *_: sympy.S.Zero)
    known = [{"expm1": mpmath.expm1, "sign": mpmath.sign}, "mpmath"]
    function = sympy.lambdify([NU, *names], expression, modules=known)
    with mpmath.workdps(40):
        return np.array([float(function(mpmath.mpf(x), *numbers)) for x in NU_GHZ])


def numbers_of(formula, values):
    """Arguments of a compiled formula, after the frequencies."""
    named = [float(values[n]) for n in formula.names]
    return named + [v for _, v in formula.constants]


def check(formula, values, free):
    """Value, first and second derivatives, each on the scale of its terms."""
    compiled = compile_formula(formula, free)
    found = compiled.function(NU_GHZ, *map(np.float64, numbers_of(formula, values)))
    plain = formula.expression
    expressions = [plain, *(plain.diff(symbol(n)) for n in compiled.first)]
    expressions += [plain.diff(symbol(a), symbol(b)) for a, b in compiled.second]
    assert len(found) == len(expressions)
    wanted = [exact(formula, e, values) for e in expressions]
    orders = [(), *((n,) for n in compiled.first), *compiled.second]
    for x, want, order in zip(found, wanted, orders, strict=True):
        per = np.prod([abs(values[n]) for n in order])
        # What no sum of terms can beat: the law itself, per parameter.
        scale = np.maximum(np.abs(want), np.abs(wanted[0]) / per)
        np.testing.assert_array_less(
            np.abs(np.broadcast_to(x, want.shape) - want), 1e-12 * scale + 1e-300, order
        )
    for name in set(free) - set(compiled.first):
        assert plain.diff(symbol(name)) == 0


@pytest.mark.parametrize("name", LAWS)
def test_derivatives_of_the_laws(name):
    law = LAWS[name]
    values = {**law.fixed, **law.defaults}
    check(law.formula, {n: v or 0.1 for n, v in values.items()}, law.parameters)


@pytest.mark.parametrize("name", FORMULAS)
def test_derivatives_of_formulas(name):
    text, values = FORMULAS[name]
    check(parse(text), values, tuple(values))


def test_derivatives_do_not_overflow_where_the_law_does_not():
    formula = parse("1 / (exp(nu*h_over_k/t) - 1)")
    compiled = compile_formula(formula, ("t",))
    found = compiled.function(np.array([1e5]), *numbers_of(formula, {"t": 3.0}))
    np.testing.assert_array_equal(np.concatenate(found), 0.0)


def law_or_formula(name):
    """A formula, the values of its names, and those that are free."""
    if name in FORMULAS:
        text, values = FORMULAS[name]
        return parse(text), values, tuple(values)
    law = LAWS[name]
    return law.formula, {**law.fixed, **law.defaults}, law.parameters


@pytest.mark.parametrize(
    "name", [*LAWS, "bose", "a power of a sum", "a power in a power"]
)
def test_derivatives_add_no_function_of_every_frequency(name):
    """Only what has no frequency in it, at nu0, may be computed beside the law."""
    formula, values, free = law_or_formula(name)
    numbers = numbers_of(formula, values)

    def count(order):
        function = compile_formula(formula, free, None, order).function
        jaxpr = jax.make_jaxpr(function)(NU_GHZ, *numbers)
        costly = ("exp", "expm1", "log", "log1p", "pow", "tanh", "sin", "cos")
        return sum(
            e.primitive.name in costly and e.outvars[0].aval.shape == NU_GHZ.shape
            for e in jaxpr.jaxpr.eqns
        )

    # d/d beta is times log(nu/nu0), which the law knows too.
    assert count(2) == count(0)
