"""Laws over a table of every emission law; golden values; formulas of the user."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shared_file

from distsep.model import (
    AME,
    CIB,
    CMB,
    Component,
    CurvedSynchrotron,
    Dust,
    FreeFree,
    PowerLaw,
    Synchrotron,
    TabulatedAME,
    ThermalSZ,
    TwoTemperatureDust,
    moments,
)
from distsep.model.syntax import FormulaError
from distsep.model.units import MAP_UNITS, conversion

NU = np.geomspace(10.0, 1000.0, 13)
KT = 1.380649e-23 / (6.62607015e-34 * 1e9)  # k/h [GHz/K]


def spinning():
    nu = np.geomspace(0.5, 4000.0, 60)
    return nu, np.exp(-0.5 * (np.log(nu / 31.0) / 0.9) ** 2)


# Every law at a point where all its parameters matter: (factory, options, parameters).
LAWS = {
    "Dust": (Dust, {}, {"beta_d": 1.6, "temp": 18.0}),
    "Dust fixed": (Dust, {"temp": 20.0}, {"beta_d": 1.5}),
    "PowerLaw": (PowerLaw, {}, {"beta_pl": -2.9}),
    "running": (
        PowerLaw,
        {"running": None, "nu_pivot": None},
        {"beta_pl": -2.9, "running": 0.1, "nu_pivot": 60.0},
    ),
    "Synchrotron": (Synchrotron, {}, {"beta_pl": -3.1}),
    "Curved": (CurvedSynchrotron, {}, {"beta_pl": -3.0, "curvature": -0.05}),
    "FreeFree": (FreeFree, {"Te": None}, {"Te": 8000.0}),
    "AME": (AME, {}, {"nu_peak": 28.0, "width": 0.6}),
    "Tabulated": (TabulatedAME, {"table": spinning()}, {"nu_peak": 27.0}),
    "TwoTemperature": (
        TwoTemperatureDust,
        {"q_ratio": None},
        {
            "beta_1": 1.7,
            "temp_1": 9.0,
            "beta_2": 2.6,
            "temp_2": 16.0,
            "f_1": 0.04,
            "q_ratio": 12.0,
        },
    ),
    "CIB": (CIB, {}, {"beta_cib": 1.7, "temp": 24.0}),
}
TABLE = pytest.mark.parametrize("law", LAWS)
NU0 = 150.0


def build(law, **more):
    factory, options, parameters = LAWS[law]
    component = factory(NU0, **options, **more)
    assert set(component.parameters) == set(parameters)
    return component, parameters


WIDE = np.array([0.1, *NU, 18000.0])


def quick(function):
    """Compiled with little care: the programs here run once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@cache
def everything(law):
    """Value, first and second derivatives in K_RJ at WIDE, compiled together."""
    component, parameters = build(law)
    p = {n: jnp.asarray(x) for n, x in parameters.items()}
    return quick(
        lambda p: (
            component.sed(WIDE, "K_RJ", **p),
            component.derivative(WIDE, "K_RJ", **p),
            component.second_derivative(WIDE, "K_RJ", **p),
        )
    )(p)


@TABLE
@pytest.mark.parametrize("unit", ["K_CMB", "K_RJ", "MJy/sr"])
def test_law_is_one_at_nu0_and_finite(law, unit):
    component, parameters = build(law, units=unit)
    assert component.amplitude_unit == unit
    nu = np.append(NU, NU0)
    values = np.asarray(quick(lambda: component.sed(nu, unit, **parameters))())
    assert values.shape == nu.shape
    assert values[-1] == pytest.approx(1, rel=1e-13)
    for out in ("K_CMB", "K_RJ", "MJy/sr"):
        converted = values * conversion(unit, out, nu)
        assert np.isfinite(converted).all()
        assert (converted > 0).all()


@TABLE
def test_symbolic_derivatives_are_those_of_autodiff(law):
    component, parameters = build(law)
    few = slice(4, 10, 2)
    weights = np.array([1.0, -0.7, 0.4])

    def total(p):
        return weights @ component.sed(WIDE[few], "K_RJ", **p)

    p = {n: jnp.asarray(x) for n, x in parameters.items()}
    gradient = jax.grad(total)
    reference = quick(lambda p: (gradient(p), jax.jacfwd(gradient)(p)))(p)
    auto, auto2 = jax.tree.map(float, reference)
    _, first, second = jax.tree.map(
        lambda x: float(weights @ np.asarray(x)[few]), everything(law)
    )
    for a in p:
        assert first[a] == pytest.approx(auto[a], rel=1e-9, abs=1e-13)
        scale = max(abs(auto2[a][b]) for b in p)
        for b in p:
            assert second[a, b] == pytest.approx(
                auto2[a][b], rel=1e-8, abs=1e-9 * scale
            )


@TABLE
def test_every_parameter_does_something(law):
    for name, slope in everything(law)[1].items():
        assert np.abs(slope).max() > 1e-8, name


def planck(nu, T):
    return nu**3 / np.expm1(nu / (KT * T))


def rj(intensity):
    """A law of intensity as one of K_RJ, 1 at NU0."""
    return lambda nu: intensity(nu) / nu**2 / (intensity(NU0) / NU0**2)


ORACLES = {
    "Dust": rj(lambda nu: nu**1.6 * planck(nu, 18.0)),
    "running": lambda nu: (nu / NU0) ** (-2.9 + 0.1 * np.log(nu / 60.0)),
    "Curved": lambda nu: (nu / NU0) ** (-3.0 - 0.05 * np.log(nu / NU0)),
    "FreeFree": rj(
        lambda nu: np.log(
            np.exp(5.96 - np.sqrt(3) / np.pi * np.log(nu * 0.8**-1.5)) + np.e
        )
    ),
    "AME": rj(lambda nu: np.exp(-0.5 * (np.log(nu / 28.0) / 0.6) ** 2)),
    "Tabulated": rj(lambda nu: np.exp(-0.5 * (np.log(nu / 27.0) / 0.9) ** 2)),
    "TwoTemperature": rj(
        lambda nu: (
            0.04 * 12 * (nu / 3000) ** 1.7 * planck(nu, 9.0)
            + 0.96 * (nu / 3000) ** 2.6 * planck(nu, 16.0)
        )
    ),
    "CIB": rj(lambda nu: nu**1.7 * planck(nu, 24.0)),
}


@pytest.mark.parametrize("law", ORACLES)
def test_law_against_its_definition(law):
    component, parameters = build(law, units="K_RJ")
    found = component.sed(NU, "K_RJ", **parameters)
    rtol = 1e-6 if law == "Tabulated" else 1e-11  # the spline, and its peak
    np.testing.assert_allclose(found, ORACLES[law](NU), rtol=rtol)


def test_cmb_and_thermal_sz():
    assert (np.asarray(CMB().sed(NU)) == 1).all()
    np.testing.assert_allclose(
        CMB().sed(NU, "MJy/sr"), conversion("K_CMB", "MJy/sr", NU), rtol=1e-14
    )
    x = NU / (KT * 2.7255)
    expected = 2.7255 * (x * np.cosh(x / 2) / np.sinh(x / 2) - 4)
    np.testing.assert_allclose(ThermalSZ().sed(NU), expected, rtol=1e-11)
    assert ThermalSZ().amplitude_unit == "y_SZ"


@TABLE
def test_extreme_frequencies_stay_finite(law):
    for values in jax.tree.leaves(everything(law)):
        assert np.isfinite(values).all()


def test_broadcasting_is_that_of_a_loop():
    dust = Dust(NU0)
    beta, temp = np.array([[1.4], [1.5], [1.6]]), np.array([15.0, 20.0])
    found = dust.sed(NU, beta_d=beta, temp=temp)
    assert found.shape == (3, 2, len(NU))
    for i in range(3):
        for j in range(2):
            one = dust.sed(NU, beta_d=beta[i, 0], temp=temp[j])
            np.testing.assert_allclose(found[i, j], one, rtol=1e-14)


# ------------------------------------------------------------------ golden values

GOLDEN = {
    "CMB_KCMB": (CMB(), "K_CMB"),
    "CMB_KRJ": (CMB(), "K_RJ"),
    "Dust150_KCMB": (Dust(150.0), "K_CMB"),
    "Dust150_KRJ": (Dust(150.0, units="K_RJ"), "K_RJ"),
    "Dust353_KCMB_b17_T15": (Dust(353.0), "K_CMB"),
    "Dust150_T20fixed_KCMB": (Dust(150.0, temp=20.0), "K_CMB"),
    "Dust150_b154fixed_KCMB": (Dust(150.0, beta_d=1.54), "K_CMB"),
    "Synchrotron20_KCMB": (Synchrotron(20.0), "K_CMB"),
    "Synchrotron20_KRJ": (Synchrotron(20.0, units="K_RJ"), "K_RJ"),
    "PowerLaw30_run_pivot70_KCMB": (
        PowerLaw(30.0, nu_pivot=70.0, running=None),
        "K_CMB",
    ),
    "PowerLaw30_run_pivot70_KRJ": (
        PowerLaw(30.0, nu_pivot=70.0, running=None, units="K_RJ"),
        "K_RJ",
    ),
    "PowerLaw30_freepivot_KCMB": (PowerLaw(30.0, running=None), "K_CMB"),
    "ThermalSZ_KCMB": (ThermalSZ(), "K_CMB"),
    "ThermalSZ_mKCMB": (ThermalSZ(), "mK_CMB"),
    "ThermalSZ_uKCMB": (ThermalSZ(), "uK_CMB"),
    "ThermalSZ_uKRJ": (ThermalSZ(), "uK_RJ"),
    "Analytic_docs": (
        Component(
            "(nu/nu0)**(1 + beta_d) * (exp(nu0/temp*h_over_k) - 1)"
            " / (exp(nu/temp*h_over_k) - 1)",
            unit="K_CMB",
            nu0=353.0,
        ),
        "K_CMB",
    ),
    "Analytic_test": (
        Component("nu*param0 + nu0*param1 + sqrt(nu*nu0)", defaults={"nu0": 1.0}),
        "K_RJ",
    ),
}


@pytest.mark.parametrize("case", [c for c in GOLDEN if c != "Analytic_test"])
def test_golden(case):
    golden = np.load(shared_file("golden", "components.npz"))
    component, unit = GOLDEN[case]
    names = [str(name) for name in golden[f"{case}__params"]]
    at = dict(zip(names, golden[f"{case}__at"].tolist(), strict=True))
    assert set(component.parameters) == set(names)
    nu = golden["nu"]
    # The thermal SZ law cancels near its null: relative to T_CMB there.
    scale = float(conversion("K_CMB", unit, 217.0)) if "SZ" in case else 0.0
    np.testing.assert_allclose(
        component.sed(nu, unit, **at),
        golden[f"{case}__eval"],
        rtol=1e-12,
        atol=1e-13 * scale,
    )
    first = component.derivative(nu, unit, **at)
    second = component.second_derivative(nu, unit, **at)
    for i, a in enumerate(names):
        np.testing.assert_allclose(first[a], golden[f"{case}__diff"][i], rtol=1e-12)
        if "Analytic" not in case:
            assert component.defaults[a] == golden[f"{case}__defaults"][i]
        for j, b in enumerate(names):
            expected = golden[f"{case}__diffdiff"][i, j]
            np.testing.assert_allclose(second[a, b], expected, rtol=1e-9)


def test_golden_broadcast():
    golden = np.load(shared_file("golden", "components.npz"))
    p = {"beta_d": golden["vec__beta_d"], "temp": golden["vec__temp"]}
    dust = Dust(150.0)
    np.testing.assert_allclose(
        dust.sed(golden["nu"], **p), golden["vec__Dust150_KCMB__eval"], rtol=1e-12
    )
    for name, expected in zip(
        ("beta_d", "temp"), golden["vec__Dust150_KCMB__diff"], strict=True
    ):
        found = dust.derivative(golden["nu"], **p)[name]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


# ---------------------------------------------------------------------- moments


def test_moments_are_the_terms_of_a_taylor_series():
    dust = Dust(353.0)
    pivot = {"beta_d": 1.5, "temp": 20.0}
    terms = moments(dust, 2, **pivot)
    assert [t.name for t in terms] == [
        "Dust",
        "Dust_beta_d",
        "Dust_temp",
        "Dust_beta_d_beta_d",
        "Dust_beta_d_temp",
        "Dust_temp_temp",
    ]
    assert all(t.parameters == () for t in terms)
    db, dt = 0.01, 0.1
    weights = [1, db, dt, db * db, db * dt, dt * dt]
    series = sum(w * t.sed(NU) for w, t in zip(weights, terms, strict=True))
    exact = dust.sed(NU, beta_d=1.5 + db, temp=20.0 + dt)
    np.testing.assert_allclose(series, exact, rtol=2e-5)
    assert np.abs(series - exact).max() < 1e-3 * np.abs(terms[0].sed(NU) - exact).max()


def test_moments_of_a_table_and_of_some_parameters():
    ame = TabulatedAME(30.0, spinning())
    terms = moments(ame, 2, nu_peak=29.0)
    step = 0.01
    difference = ame.sed(NU, nu_peak=29.0 + step) - ame.sed(NU, nu_peak=29.0 - step)
    np.testing.assert_allclose(terms[1].sed(NU), difference / 2 / step, rtol=1e-5)
    assert len(moments(Dust(353.0), 3, parameters=["temp"])) == 4
    with pytest.raises(ValueError, match=r"moments\(Dust.*beta_d, temp; got beta"):
        moments(Dust(353.0), 1, parameters=["beta"])


# ------------------------------------------------------------ formulas of the user


def test_formula_of_a_configuration_file():
    ame = Component(
        "(nu0/nu)**2 * exp(-(log(nu/peak)/width)**2/2 + (log(nu0/peak)/width)**2/2)",
        name="AME",
        unit="K_RJ",
        nu0=23.0,
        width=0.5,
        defaults={"peak": 25.0},
        bounds={"peak": [10, 60]},
    )
    assert ame.parameters == ("peak",)
    assert ame.fixed == {"nu0": 23.0, "width": 0.5}
    assert (ame.defaults, ame.bounds) == ({"peak": 25.0}, {"peak": (10.0, 60.0)})
    same = AME(23.0, width=0.5)
    np.testing.assert_allclose(
        ame.sed(NU, peak=30.0), same.sed(NU, nu_peak=30.0), rtol=1e-12
    )


def test_names_that_other_packages_take_for_constants():
    law = Component("S*(nu/100)**beta + I*E*pi + gamma*N*zeta*Q", unit="K_RJ")
    assert law.parameters == ("S", "beta", "I", "E", "pi", "gamma", "N", "zeta", "Q")
    ones = dict.fromkeys(law.parameters, 2.0)
    assert float(law.sed(200.0, "K_RJ", **ones)) == pytest.approx(2 * 4 + 8 + 16)
    assert float(law.derivative(200.0, "K_RJ", **ones)["pi"]) == pytest.approx(4)


def test_expm1_and_log1p_stay_stable():
    law = Component("expm1(a*nu) + log1p(a*nu)", unit="K_RJ")
    a = 1e-15
    assert float(law.sed(1.0, "K_RJ", a=a)) == pytest.approx(2 * a, rel=1e-12)
    first = law.derivative(1.0, "K_RJ", a=0.0)["a"]
    second = law.second_derivative(1.0, "K_RJ", a=0.0)["a", "a"]
    assert float(first) == pytest.approx(2)
    assert float(second) == pytest.approx(0, abs=1e-15)


def test_the_kink_of_abs_has_no_curvature():
    law = Component("abs(nu - a)", unit="K_RJ")
    first = law.derivative([90.0, 110.0], "K_RJ", a=100.0)["a"]
    np.testing.assert_array_equal(first, [1.0, -1.0])
    assert (law.second_derivative([90.0, 110.0], "K_RJ", a=100.0)["a", "a"] == 0).all()


def test_amplitude_is_at_nu0_in_the_unit_asked_for():
    law = Component("(nu/nu0)**beta", nu0=23.0)
    assert law.amplitude_unit == "K_CMB"
    assert float(law.sed(23.0, beta=-3.0)) == pytest.approx(1)
    bare = Component("(nu/23)**beta", unit="K_RJ")
    assert bare.amplitude_unit == "K_RJ"
    expected = conversion("K_RJ", "K_CMB", 100.0) * (100 / 23) ** -3
    assert float(bare.sed(100.0, beta=-3.0)) == pytest.approx(float(expected))


def test_equal_content_is_equal():
    assert Dust(150.0) == Dust(150.0)
    assert hash(Dust(150.0)) == hash(Dust(150.0))
    assert Dust(150.0) != Dust(150.0, temp=20.0)
    assert Dust(150.0) != Dust(150.0, name="Other")


def test_one_error_lists_all_mistakes():
    with pytest.raises(ValueError, match="Component") as error:
        Component(
            "(nu/nu0)**beta",
            name="A.B",
            unit="K",
            nu0=-1.0,
            bta=3.0,
            beta="a string",
            bounds={"gamma": (0, 1)},
        )
    text = str(error.value)
    for words in ("A.B", "`unit`", "'K'", "nu0", "`bta`", "a string", "`gamma`"):
        assert words in text
    with pytest.raises(ValueError, match=r"`nu0` should be in GHz; got 3.53e\+11"):
        Component("(nu/nu0)**beta", nu0=353e9)
    with pytest.raises(ValueError, match=r"start 5.0 of `beta` is outside 0.0 .. 1.0"):
        Component("nu**beta", defaults={"beta": 5.0}, bounds={"beta": (0, 1)})
    with pytest.raises(ValueError, match="should increase"):
        Component("nu**beta", bounds={"beta": (1, 0)})
    with pytest.raises(
        ValueError, match=r"'nu\*\*b' should be 1 at `nu0`; at 30 GHz, b=1"
    ):
        Component("nu**b", nu0=30.0)
    with pytest.raises(ValueError, match=r"holds `nu0`: give `nu0=`"):
        Component("(nu/nu0)**b")
    with pytest.raises(ValueError, match=r"-5.0 of `temp` is outside .* 1.0 .. 1000.0"):
        Dust(150.0, temp=-5)
    with pytest.raises(FormulaError, match=r"name='X'.*refused"):
        Component("nu.real", name="X")
    with pytest.raises(ValueError, match=r"beta_d, temp; got temperature"):
        Dust(150.0).sed(NU, temperature=20.0)


@pytest.mark.parametrize(
    "table",
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, 2, 2, 3], [1, 1, 1, 1]),
        ([1, 2, 3, 4], [1, 1, 0, 1]),
        ([1, 2, 3, 4], [1, np.nan, 1, 1]),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
    ],
)
def test_tables_that_are_refused(table):
    with pytest.raises(ValueError, match="table"):
        TabulatedAME(30.0, table)


def test_every_map_unit_has_every_law():
    for unit in MAP_UNITS:
        assert np.isfinite(Dust(353.0, units=unit).sed(NU, unit)).all()
