"""The formula parser: what it reads, and that it refuses the rest, fast."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsep.model.formula import compile_formula, parse
from distsep.model.syntax import FormulaError


def evaluate(text, nu=100.0, **values):
    formula = parse(text)
    compiled = compile_formula(formula, ())
    constants = [value for _, value in formula.constants]
    numbers = [values[name] for name in formula.names]
    return float(compiled.function(nu, *numbers, *constants)[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1.0),
        ("-2**2", -4.0),
        ("0.1 + 0.2", 0.3),
        ("1/3", 1 / 3),
        ("nu**-2.5", 100.0**-2.5),
        ("2*nu/7 - 3", 200 / 7 - 3),
        ("sqrt(nu)", 10.0),
        ("expm1(nu/1e18)", np.expm1(1e-16)),
        ("exp(nu/1e18) - 1", np.expm1(1e-16)),
        ("log1p(nu/1e18)", np.log1p(1e-16)),
        ("log10(nu)", 2.0),
        ("abs(50 - nu)", 50.0),
        ("T_CMB*h_over_k*nu", 2.7255 * 6.62607015e-34 * 1e9 / 1.380649e-23 * 100),
        ("sin(nu)**2 + cos(nu)**2", 1.0),
        ("tanh(nu/200)", np.tanh(0.5)),
        ("0.04799243073366221*nu", 4.799243073366221),
        ("1e-300*nu", 1e-298),
        ("12345678901234567890*nu", 12345678901234567890.0 * 100),
        ("1000*nu*1000", 1e8),
        ("2\n * nu", 200.0),
    ],
)
def test_arithmetic_to_the_last_digits(text, expected):
    assert evaluate(text) == pytest.approx(expected, rel=4e-16)


def test_every_name_is_a_parameter_in_order_of_appearance():
    names = "beta gamma zeta S N I E Q O pi oo lambda_ sign power array x0".split()
    text = " + ".join(f"{name}*nu" for name in names)
    assert parse(text).names == tuple(names)
    values = dict(zip(names, np.arange(1.0, 17.0), strict=True))
    assert evaluate(text, **values) == pytest.approx(100 * 136)


def test_documented_constants_and_nu_are_no_parameters():
    assert parse("h_over_k*nu/T_CMB").names == ()


REFUSED = [
    "",
    "nu +",
    "nu.real",
    "().__class__",
    "__import__('os')",
    "__name__ + nu",
    "_x",
    "a__b",
    "open('/etc/passwd')",
    "eval('1')",
    "exp",
    "exp(nu, nu)",
    "exp(x=nu)",
    "exp()",
    "f(nu)",
    "exp(nu)(nu)",
    "nu[0]",
    "[1, 2]",
    "{1}",
    "(1, 2)",
    "'nu'",
    "b'nu'",
    "f'{nu}'",
    "1j",
    "True",
    "None",
    "nu if nu else nu",
    "nu < 1",
    "nu and nu",
    "not nu",
    "~nu",
    "nu // 2",
    "nu % 2",
    "nu @ nu",
    "nu << 2",
    "nu | nu",
    "lambda: nu",
    "lambda",
    "(y := nu)",
    "[x for x in nu]",
    "import os",
    "nu; nu",
    "nu = 1",
    "*nu",
    "...",
    "1/0",
    "nu/0",
    "nu/(x - x)",
    "log(0)",
    "log(-1)",
    "sqrt(-2)",
    "(-8)**(1/3)",
    "1e999",
    "9" * 1999,
    "9**9**9**9",
    "nu**100",
    "(nu**20)**(9**9)",
    "2**(x/x + 1000)*nu**(30)",
    "table(nu)",
    "ν",
    "nu\x00",
    "(" * 41 + "nu" + ")" * 41,
    "(" * 900 + "nu" + ")" * 900,
    "(" * 900,
    "-" * 1900 + "nu",
    "exp(" * 40 + "exp(" + "nu" + ")" * 41,
    "+".join(["nu"] * 500),
    "nu" * 1100,
]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: ascii(text[:20]))
def test_refused_fast_with_a_reason(text):
    start = time.perf_counter()
    with pytest.raises(FormulaError, match=r"[Ff]ormula"):
        parse(text)
    assert time.perf_counter() - start < 10  # seconds on any machine; typically 0.01


BOMBS = [
    "((((2*nu)**20)**20)**20)",
    "(2*x)**(9*x/x)**(9*x/x)",
    "(9*x/x)**(9*x/x)",
    "exp(99*log(exp(99*log(exp(99*log(exp(99*log(2*x))))))))",
    "exp(" + "*".join(["(x+x)/x"] * 60) + "*log(2*x))",
    "exp(exp(exp(exp(9*x/x))))",
    "exp(exp(exp(exp(nu))))**20",
    "(nu + 1)**20*(nu + 2)**20",
    "*".join(["(nu+x)"] * 90),
    "sqrt(" * 20 + "nu" + ")" * 20,
    "sin(" * 30 + "nu" + ")" * 30,
    "*".join(["999"] * 100) + "*nu",
]


@pytest.mark.parametrize("text", BOMBS, ids=lambda text: text[:20])
def test_explosive_algebra_ends_fast(text):
    start = time.perf_counter()
    try:
        parse(text)
    except FormulaError:
        pass
    assert time.perf_counter() - start < 20  # seconds on any machine; typically 0.2


_characters = st.text(alphabet="nuxE_.09+-*/()[]{}'\", =:@\n", max_size=60)
_pieces = st.lists(
    st.sampled_from(
        "nu x beta exp( log( sqrt( expm1( ( ) ) + - * / ** 2 9 1e9 0.5 9**9 . __a__ "
        "[0] import lambda , : 'a' eval( T".split()
    ),
    max_size=40,
).map(" ".join)


@settings(max_examples=300, deadline=2000, derandomize=True, database=None)
@given(_characters | _pieces | st.text(max_size=40))
def test_any_string_is_read_or_refused_fast(text):
    try:
        formula = parse(text)
    except FormulaError:
        return
    # What was read holds nothing but its own symbols.
    symbols = {s.name for s in formula.expression.free_symbols}
    known = {"nu", *(f"p_{n}" for n in formula.names)}
    assert symbols <= known | {s.name for s, _ in formula.constants}
    assert all(n.isidentifier() and "__" not in n for n in formula.names)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.recursive(
        st.sampled_from(["nu", "a", "2", "0.25", "3.5"]),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from("+-*/"), inner).map(
                lambda t: f"({t[0]} {t[1]} {t[2]})"
            ),
            st.tuples(st.sampled_from(["exp", "tanh", "abs"]), inner).map(
                lambda t: f"{t[0]}({t[1]})"
            ),
        ),
        max_leaves=6,
    )
)
def test_values_are_those_of_python(text):
    names = {"nu": 1.3, "a": 0.7, "exp": np.exp, "tanh": np.tanh, "abs": abs}
    try:
        with np.errstate(all="ignore"):
            expected = float(eval(text, {"__builtins__": {}}, names))  # the oracle
    except ZeroDivisionError:
        return
    if not 1e-8 < abs(expected) < 1e8:
        return  # cancelled or overflown
    try:
        found = evaluate(text, nu=1.3, a=0.7)
    except (FormulaError, KeyError):
        return
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("exponent", [2.0, 3.0, -2.0])
def test_powers_of_what_may_be_negative_stay_general(exponent):
    """Their logarithm is no number; those of a ratio of frequencies are."""
    found = evaluate("((nu - nu0)/nu0)**b", nu=100.0, nu0=150.0, b=exponent)
    assert found == pytest.approx((-1 / 3) ** exponent, rel=1e-14)


@pytest.mark.parametrize("exponent", [0.0, 1.6, -3.1, 20.0, -20.0])
@pytest.mark.parametrize("ratio", [1e-3, 1.0, 1.7, 40.0])
def test_powers_of_ratios_of_frequencies(ratio, exponent):
    """Written as an exponential, which is faster: right to a few roundings."""
    found = evaluate("(nu/nu0)**b", nu=150.0 * ratio, nu0=150.0, b=exponent)
    expected = float((150.0 * ratio) / 150.0) ** exponent
    assert found == pytest.approx(expected, rel=5e-14)
    square = evaluate("1/expm1(nu*b)**2", nu=ratio, b=0.7)
    assert square == pytest.approx(np.expm1(0.7 * ratio) ** -2.0, rel=1e-14)
