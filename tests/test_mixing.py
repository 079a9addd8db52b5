"""A(beta): golden values, and each derivative against autodiff and a plain oracle."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shared_file

import distsep
from distsep.model import (
    CIB,
    CMB,
    CO,
    Component,
    Dust,
    FreeFree,
    Instrument,
    Line,
    MixingMatrix,
    Synchrotron,
    TabulatedAME,
    ThermalSZ,
    instrument,
)
from distsep.model.units import conversion
from distsep.problem import bandpass_warnings

NU = [30.0, 95.0, 150.0, 353.0]
BANDS = Instrument(NU)


def sky(**units):
    return [CMB(), Dust(150.0, **units), Synchrotron(20.0, **units)]


def bandpass(n=31, tilt=0.3):
    """Ragged tables, and a single frequency between them."""
    tables = []
    for i, nu in enumerate(NU):
        x = np.linspace(0.85, 1.15, n + 7 * i)
        tables.append((nu * x, 1 + tilt * np.sin(9 * x + i)))
    tables[1] = None
    return Instrument(NU, bandpass=tables)


def quick(function):
    """Compiled with little care: the programs here run once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def whole_matrices(A, values):
    """What `evaluate` gives, with the columns that are zero."""

    def dense(values):
        value, dA, d2A = A.evaluate(values)
        return value, dA.dense(1), d2A.dense(2)

    return quick(dense)(jnp.asarray(values))


def check_derivatives(A, values):
    """dA and d2A of `evaluate` are those of autodiff of A."""
    values = jnp.asarray(values)
    found = whole_matrices(A, values)

    def one(v):
        return A.value(v[None])[0]

    def reference(v):
        return one(v), jax.jacfwd(one)(v), jax.jacfwd(jax.jacfwd(one))(v)

    value, first, second = quick(jax.vmap(reference))(values)
    np.testing.assert_allclose(found[0], value, rtol=1e-13)
    assert found[1].shape == (len(values), len(A.names), *found[0].shape[1:])
    scale = np.abs(second).max() + 1
    np.testing.assert_allclose(
        found[1], np.moveaxis(first, -1, 1), rtol=1e-9, atol=1e-11 * scale
    )
    np.testing.assert_allclose(
        found[2], np.moveaxis(second, (-2, -1), (1, 2)), rtol=1e-8, atol=1e-10 * scale
    )
    np.testing.assert_array_equal(found[2], np.swapaxes(found[2], 1, 2))
    return found


# ------------------------------------------------------------------ golden values


@pytest.mark.parametrize("unit", ["K_CMB", "K_RJ"])
def test_golden(unit):
    golden = np.load(shared_file("golden", "mixing.npz"))
    A = MixingMatrix(sky(units=unit), "LiteBIRD", unit=unit)
    names = [str(name) for name in golden["params"]]
    assert A.names == tuple(names)
    assert list(A.component_names) == [str(c) for c in golden["components"]]
    assert list(A.defaults.values()) == golden["defaults"].tolist()
    at = dict(zip(names, golden["at"].tolist(), strict=True))
    np.testing.assert_allclose(A(at), golden[f"{unit}__A"], rtol=1e-12)
    first, second = A.derivative(at), A.second_derivative(at)
    for i, a in enumerate(names):
        column = golden["comp_of_dB"][i]
        expected = np.zeros((15, 3))
        expected[:, column] = golden[f"{unit}__diff"][i, :, 0]
        np.testing.assert_allclose(first[a], expected, rtol=1e-12)
        for j, b in enumerate(names):
            expected = np.zeros((15, 3))
            expected[:, column] = golden[f"{unit}__diffdiff"][i, j, :, 0]
            np.testing.assert_allclose(second[a, b], expected, rtol=1e-9)


def test_golden_curved_synchrotron_and_patches():
    golden = np.load(shared_file("golden", "mixing.npz"))
    names = [str(name) for name in golden["curved__params"]]
    at = dict(zip(names, golden["curved__at"].tolist(), strict=True))
    matches = []
    for pivot in (20.0, 70.0):
        curved = Synchrotron(20.0, nu_pivot=pivot, running=None)
        A = MixingMatrix([CMB(), Dust(150.0), curved], "LiteBIRD")
        assert A.names == tuple(names)
        close = np.allclose(A(at), golden["curved__A"], rtol=1e-12, atol=0)
        matches.append(close)
        if close:
            for i, a in enumerate(names):
                column = golden["curved__comp_of_dB"][i]
                np.testing.assert_allclose(
                    A.derivative(at)[a][:, column],
                    golden["curved__diff"][i, :, 0],
                    rtol=1e-12,
                )
    assert any(matches)
    A = MixingMatrix(sky(), "LiteBIRD", fixed={"Dust.temp": 20.0})
    beta = {
        "Dust.beta_d": golden["map__beta_d"],
        "Synchrotron.beta_pl": golden["map__beta_pl"],
    }
    np.testing.assert_allclose(A(beta), golden["map__A"], rtol=1e-12)
    for i, (name, column) in enumerate(zip(beta, (1, 2), strict=True)):
        found = A.derivative(beta)[name][..., column]
        np.testing.assert_allclose(found, golden[f"map__diff{i}"][..., 0], rtol=1e-12)


@pytest.mark.parametrize(
    ("case", "component", "unit"),
    [
        ("CMB_KCMB", CMB(), "K_CMB"),
        ("CMB_KRJ", CMB(), "K_RJ"),
        ("Dust150_KCMB", Dust(150.0), "K_CMB"),
        ("Synchrotron20_KCMB", Synchrotron(20.0), "K_CMB"),
    ],
)
def test_golden_bandpasses_with_raw_weights(case, component, unit):
    golden = np.load(shared_file("golden", "components.npz"))
    tables = list(zip(golden["band__nu"], golden["band__weight"], strict=True))
    bands = Instrument.of({"frequency": tables})
    A = MixingMatrix([component], bands, unit=unit)
    np.testing.assert_allclose(
        A(A.defaults)[:, 0], golden[f"band__{case}__eval"], rtol=1e-12
    )
    for i, name in enumerate(A.names):
        found = A.derivative(A.defaults)[name][:, 0]
        np.testing.assert_allclose(found, golden[f"band__{case}__diff"][i], rtol=1e-11)
    if component.name == "Dust":
        beta, temp = golden["vec__beta_d"], golden["vec__temp"]
        both = np.broadcast_arrays(beta, temp)
        flat = {"Dust.beta_d": both[0].ravel(), "Dust.temp": both[1].ravel()}
        found = A(flat)[..., 0].reshape(4, 3, 3)
        np.testing.assert_allclose(found, golden[f"band__{case}__vec_eval"], rtol=1e-12)


# ------------------------------------------------------------------- the columns


def test_columns_follow_the_components():
    A = MixingMatrix([Dust(150.0), CMB(), Synchrotron(20.0)], BANDS)
    assert A.component_names == ("Dust", "CMB", "Synchrotron")
    found = np.asarray(A(A.defaults))
    assert (found[:, 1] == 1).all()
    assert found[2, 0] == pytest.approx(1)
    np.testing.assert_allclose(
        found[:, 0], Dust(150.0).sed(NU, beta_d=1.54, temp=20.0), rtol=1e-14
    )


def test_patches_are_a_loop_over_patches():
    A = MixingMatrix(sky(), bandpass())
    beta = {"Dust.beta_d": np.array([1.4, 1.5, 1.6]), "Dust.temp": 19.0}
    beta["Synchrotron.beta_pl"] = np.array([-3.1, -3.0, -2.9])
    found, slopes = A(beta), A.derivative(beta)
    assert found.shape == (3, 4, 3)
    for i in range(3):
        one = {name: float(np.broadcast_to(x, 3)[i]) for name, x in beta.items()}
        np.testing.assert_allclose(found[i], A(one), rtol=1e-13)
        for name, slope in A.derivative(one).items():
            np.testing.assert_allclose(slopes[name][i], slope, rtol=1e-12, atol=1e-300)


def test_first_and_second_derivatives():
    A = MixingMatrix(sky(), BANDS)
    check_derivatives(A, [[1.5, 20.0, -3.0], [1.6, 18.0, -2.9]])


def test_bandpass_is_the_integral_written_out():
    bands = bandpass()
    A = MixingMatrix([*sky(), ThermalSZ(), CIB(353.0)], bands)
    found = np.asarray(A(A.defaults))
    tables = [
        t or (np.array([nu]), np.ones(1))
        for t, nu in zip(bands.bandpass, NU, strict=True)
    ]
    nu = np.concatenate([t[0] for t in tables])
    ends = np.cumsum([len(t[0]) for t in tables])[:-1]
    u = np.split(conversion("K_CMB", "MJy/sr", nu), ends)
    for c, component in enumerate([*sky(), ThermalSZ(), CIB(353.0)]):
        s = np.split(np.asarray(component.sed(nu, "MJy/sr")), ends)
        for b, (x, tau) in enumerate(tables):
            if bands.bandpass[b] is None:
                expected = s[b][0] / u[b][0]
            else:
                expected = np.trapezoid(tau * s[b], x) / np.trapezoid(tau * u[b], x)
            assert found[b, c] == pytest.approx(expected, rel=1e-11)


def test_bandpass_derivatives_and_batches():
    A = MixingMatrix(sky(), bandpass())
    rng = np.random.default_rng(0)
    values = np.array([1.5, 20.0, -3.0]) + 0.1 * rng.standard_normal((7, 3))
    whole = check_derivatives(A, values)
    some = whole_matrices(A, values[:2])
    for a, b in zip(whole, some, strict=True):
        np.testing.assert_allclose(a[:2], b, rtol=1e-13)


# ------------------------------------------------- parameters of the instrument


def test_calibration_multiplies_rows():
    A = MixingMatrix(sky(), BANDS, calibration=["150", "30"])
    assert A.names[3:] == ("calibration.150", "calibration.30")
    assert A == MixingMatrix(sky(), BANDS, calibration=[150, 30])
    assert (A.defaults["calibration.30"], A.joint) == (1.0, False)
    beta = {**A.defaults, "calibration.150": 1.1, "calibration.30": 0.9}
    plain = MixingMatrix(sky(), BANDS)
    base = plain({name: beta[name] for name in plain.names})
    gain = np.array([0.9, 1.0, 1.1, 1.0])
    np.testing.assert_allclose(A(beta), gain[:, None] * base, rtol=1e-14)
    check_derivatives(A, [list(beta.values())])


@pytest.mark.parametrize("bands", [BANDS, bandpass()], ids=["single", "bandpass"])
def test_band_shift_moves_the_table(bands):
    A = MixingMatrix(sky(), bands, band_shift=["353", "95"], calibration=["95"])
    assert A.names[3:] == ("calibration.95", "band_shift.353", "band_shift.95")
    assert A.bounds["band_shift.353"] == (-176.5, 176.5)
    values = [1.5, 20.0, -3.0, 1.05, 4.0, -1.5]
    if bands is BANDS:
        found = [A.value(jnp.array([values]))]
    else:
        found = check_derivatives(A, [values, [1.6, 19.0, -2.9, 1.0, 0.0, 0.0]])
    moved = [NU[0], NU[1] - 1.5, NU[2], NU[3] + 4.0]
    tables = [
        t if t is None else (t[0] + m - n, t[1])
        for t, n, m in zip(bands.bandpass, NU, moved, strict=True)
    ]
    by_hand = MixingMatrix(sky(), Instrument(moved, bandpass=tables))
    expected = np.array(by_hand(dict(zip(by_hand.names, values[:3], strict=True))))
    expected[1] *= 1.05
    np.testing.assert_allclose(found[0][0], expected, rtol=1e-12)


def test_band_shift_of_a_table_that_starts_near_zero_is_finite():
    nu = np.geomspace(0.1, 18000.0, 400)
    tau = np.exp(-0.5 * ((nu - 100) / 10) ** 2)
    bands = Instrument([100.0], bandpass=[(nu, tau)])
    A = MixingMatrix(sky(), bands, band_shift=["100"])
    for x in whole_matrices(A, [[1.5, 20.0, -3.0, -5.0]]):
        assert np.isfinite(x).all()


@pytest.mark.parametrize("stokes", ["QU", "IQU"])
def test_angle_rotates_q_and_u(stokes):
    A = MixingMatrix(sky(), BANDS, stokes=stokes, angle=["95"], calibration=["95"])
    n = len(stokes)
    assert A.joint
    assert A.names[-2:] == ("calibration.95", "angle.95")
    psi, gain = 0.02, 1.03
    values = [1.5, 20.0, -3.0, gain, psi]
    found = check_derivatives(A, [values])[0][0]
    assert found.shape == (4 * n, 3 * n)
    plain = MixingMatrix(sky(), BANDS)
    base = plain(dict(zip(plain.names, values[:3], strict=True)))
    # A sky of one component: COSMO, Q' = Q cos 2psi - U sin 2psi.
    I, Q, U = 5.0, 3.0, -2.0
    stokes_in = [I, Q, U][3 - n :]
    for c in range(3):
        s = np.zeros(3 * n)
        s[c * n : (c + 1) * n] = stokes_in
        d = (found @ s).reshape(4, n)
        c2, s2 = np.cos(2 * psi), np.sin(2 * psi)
        turned = gain * np.array([I, Q * c2 - U * s2, Q * s2 + U * c2])
        for b in range(4):
            expected = turned if b == 1 else np.array([I, Q, U])
            np.testing.assert_allclose(d[b], base[b, c] * expected[3 - n :], rtol=1e-12)


# ------------------------------------------------------ fixed, shared, other laws


def test_fixed_is_a_smaller_problem():
    A = MixingMatrix(sky(), BANDS, fixed={"Dust.temp": 18.0})
    assert A.names == ("Dust.beta_d", "Synchrotron.beta_pl")
    same = MixingMatrix([CMB(), Dust(150.0, temp=18.0), Synchrotron(20.0)], BANDS)
    beta = {"Dust.beta_d": 1.5, "Synchrotron.beta_pl": -3.0}
    np.testing.assert_allclose(A(beta), same(beta), rtol=1e-14)
    for name, slope in same.derivative(beta).items():
        np.testing.assert_allclose(A.derivative(beta)[name], slope, rtol=1e-13)


def test_nothing_free():
    A = MixingMatrix([CMB()], BANDS)
    assert A.names == ()
    assert A({}).shape == (4, 1)
    value, first, second = whole_matrices(A, jnp.zeros((3, 0)))
    assert (value.shape, first.shape, second.shape) == (
        (3, 4, 1),
        (3, 0, 4, 1),
        (3, 0, 0, 4, 1),
    )


def test_shared_parameters_are_one():
    two = [Dust(150.0), CIB(353.0), CMB()]
    A = MixingMatrix(two, BANDS, shared={"temp": ["Dust.temp", "CIB.temp"]})
    assert A.names == ("Dust.beta_d", "temp", "CIB.beta_cib")
    assert A.defaults["temp"] == 20.0
    found = check_derivatives(A, [[1.5, 21.0, 1.7]])[0][0]
    apart = MixingMatrix(two, BANDS)
    beta = dict(zip(apart.names, [1.5, 21.0, 1.7, 21.0], strict=True))
    np.testing.assert_allclose(found, apart(beta), rtol=1e-14)


def test_two_parameters_of_one_law_can_be_shared():
    law = Component("(nu/100)**a + (nu/200)**(a*b)", name="Law", unit="K_RJ")
    A = MixingMatrix([law], BANDS, shared={"Law.a": ["Law.a", "Law.b"]})
    assert A.names == ("Law.a",)
    check_derivatives(A, [[1.2], [0.7]])
    fixed = MixingMatrix(
        [law], BANDS, shared={"x": ["Law.a", "Law.b"]}, fixed={"x": 1.2}
    )
    np.testing.assert_allclose(fixed({}), A({"Law.a": 1.2}), rtol=1e-14)


def test_lines_from_bandpasses_and_from_constants():
    bands = bandpass()
    only = bands.select(["30", "150", "353"])
    co = CO(ratio_21=None)
    A = MixingMatrix([CMB(), CO(ratio_21=0.5, ratio_32=0.25)], only)
    quadrature = only.quadrature()
    expected = quadrature.line(115.2712018) + 0.5 * quadrature.line(230.538)
    expected = expected + 0.25 * quadrature.line(345.7959899)
    np.testing.assert_allclose(A({})[:, 1], expected, rtol=1e-13)
    assert A.amplitude_units == ("uK_CMB", "uK km/s")
    free = MixingMatrix([CMB(), co], only, band_shift=["353"])
    check_derivatives(free, [[0.6, 1.0]])
    constants = Line({"10": {"95": 1e-5}, "21": {"150": 2e-5}}, ratio_21=None)
    B = MixingMatrix([constants], BANDS)
    column = B({"Line.ratio_21": 0.7})[:, 0]
    np.testing.assert_allclose(column, [0, 1e-5, 1.4e-5, 0], rtol=1e-13)
    np.testing.assert_allclose(
        B.derivative({"Line.ratio_21": 0.7})["Line.ratio_21"][:, 0], [0, 0, 2e-5, 0]
    )
    with pytest.raises(ValueError, match=r"CO.*bandpass.*bands 95 are single"):
        MixingMatrix([CO()], bands)
    with pytest.raises(ValueError, match=r"names the bands 44, which do not exist"):
        MixingMatrix([Line({"10": {"44": 1.0}})], BANDS)


def test_units_of_amplitudes():
    laws = [CMB(), Dust(353.0, units="K_RJ"), ThermalSZ(), CIB(545.0, units="MJy/sr")]
    A = MixingMatrix(laws, BANDS)
    assert A.amplitude_units == ("uK_CMB", "uK_RJ", "1e-6 y_SZ", "Jy/sr")
    found = np.asarray(A(A.defaults))
    assert found[3, 1] == pytest.approx(float(Dust(353.0, units="K_RJ").sed(353.0)))
    assert found[1, 2] == pytest.approx(float(ThermalSZ().sed(95.0)))


# --------------------------------------------------------------- mistakes, speed


def test_one_error_lists_all_mistakes():
    nu = np.geomspace(10.0, 200.0, 20)
    narrow = TabulatedAME(30.0, (nu, np.exp(-(np.log(nu / 30) ** 2))), name="AME")
    with pytest.raises(ValueError, match="MixingMatrix") as error:
        MixingMatrix(
            [CMB(), Dust(150.0), Dust(353.0), narrow],
            BANDS,
            stokes="EB",
            fixed={"Dust.beta": 1.5, "Dust.temp": float("nan")},
            shared={"x": ["Sync.beta_pl"]},
            calibration=["44", "95", "95"],
            angle=["96"],
        )
    text = str(error.value)
    for words in (
        "2 components are called 'Dust'",
        "`stokes`",
        "'EB'",
        "did you mean 'Dust.beta_d'?",
        "`Dust.temp` should be a finite number",
        "'Sync.beta_pl'",
        "'44'",
        "`calibration` names a band twice",
        "'96'",
        "the table of `AME` covers 10 .. 200 GHz",
        "353",
    ):
        assert words in text, words


def test_mistakes_in_beta():
    A = MixingMatrix(sky(), BANDS)
    with pytest.raises(ValueError, match=r"did you mean 'Dust.beta_d'") as error:
        A({"Dust.betad": 1.5, "Dust.temp": [19.0, 20.0]})
    assert "lacks Dust.beta_d, Synchrotron.beta_pl" in str(error.value)
    beta = {**A.defaults, "Dust.temp": [19.0, 20.0], "Dust.beta_d": [1.0, 2.0, 3.0]}
    with pytest.raises(ValueError, match="arrays of one length"):
        A(beta)
    with pytest.raises(ValueError, match="needs polarisation"):
        MixingMatrix(sky(), BANDS, stokes="I", angle=["95"])
    with pytest.raises(ValueError, match="`components` is empty"):
        MixingMatrix([], BANDS)


@pytest.mark.parametrize(
    ("laws", "options", "words"),
    [
        ([Component("log(-nu)", name="X")], {}, "`X` is not finite at 30, 95, 150, "),
        ([Component("1/(nu-150)", name="X")], {}, "finite at 150 GHz .formula '1/"),
        ([Component("log(nu-50)", name="X")], {}, "`X` is not finite at 30 GHz"),
        (
            [Component("1/(nu-a)", name="X")],
            {"fixed": {"X.a": 95.0}},
            "`X` is not finite at 95 GHz",
        ),
        ([Dust(150.0)], {"fixed": {"Dust.temp": -5}}, "-5.0 of `Dust.temp` is"),
        ([Dust(150.0)], {"fixed": {"Dust.temp": 0}}, "its bounds 1.0 .. 1000.0"),
        ([Dust(150.0)], {"fixed": {"Dust.temp": None}}, "got None: leave it out"),
        (
            [Dust(150.0)],
            {
                "shared": {"b": ["Dust.beta_d", "Dust.temp"]},
                "fixed": {"Dust.temp": 20.0},
            },
            "`fixed` names 'Dust.temp', which is shared as 'b'",
        ),
        (
            [Dust(150.0), Dust(60.0, name="CIB")],
            {"shared": {"a/b": ["Dust.temp", "CIB.temp"]}},
            "`shared` should be a word without dots and slashes; got 'a/b'",
        ),
        (
            [Dust(150.0), Dust(60.0, name="CIB")],
            {"shared": {"calibration.95": ["Dust.temp", "CIB.temp"]}},
            "`shared` should be a word without dots",
        ),
        (
            [Dust(150.0), Dust(60.0, name="CIB")],
            {"shared": {"chi2": ["Dust.temp", "CIB.temp"]}},
            "`shared`: 'chi2' is an array of a result: choose another",
        ),
        (
            [Dust(150.0), Dust(60.0, name="CIB"), Dust(30.0, name="D2")],
            {"shared": {"t": ["Dust.temp", "CIB.temp"], "u": ["Dust.temp", "D2.temp"]}},
            "`shared` names 'Dust.temp' in 't' and in 'u': it is one parameter",
        ),
        ([Component("b", name="X", nu0=30.0)], {}, "`X.b` only rescales .* of X: fix"),
        (
            [Component("c*(nu/30)**b", name="X", unit="K_RJ")],
            {},
            r"`X.c` only rescales the amplitude of X: fix it, `fixed={'X.c': 1}`\.$",
        ),
    ],
)
def test_what_no_fit_could_repair(laws, options, words):
    with pytest.raises(ValueError, match=words):
        MixingMatrix([CMB(), *laws], BANDS, **options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("CMB",), "`components` should be a list"),
        ((CMB(),), "`components` should be a list"),
        (({"CMB": CMB()},), "`components` should be a list"),
        (([CMB],), r"`components\[0\]` should be .*: call it, CMB"),
        (([CMB(), None],), r"`components\[1\]` should be a component.*None"),
        ((sky(), ["Dust.temp"]), "`fixed` should be given by name"),
        ((sky(), None, {"b": "Dust.beta_d"}), "`shared` of 'b' should be a list"),
    ],
)
def test_arguments_of_another_kind(arguments, words):
    names = ("components", "fixed", "shared")
    given = dict(zip(names, arguments, strict=False))
    with pytest.raises(ValueError, match=words):
        MixingMatrix(instrument=BANDS, **given)
    with pytest.raises(ValueError, match="is a string.*got NoneType"):
        Component(None)


def test_a_single_name_is_one_band():
    assert MixingMatrix(sky(), BANDS, calibration="150").names[-1] == "calibration.150"


def test_a_factor_that_two_components_share_is_no_scale_where_one_has_it_otherwise():
    laws = [Component("c*nu", name="X"), Component("nu**c", name="Y")]
    A = MixingMatrix(laws, BANDS, shared={"c": ["X.c", "Y.c"]})
    assert A.names == ("c",)


def test_quick_to_make_and_large():
    laws = [CMB(), Dust(143.7), Synchrotron(21.3), FreeFree(40.9)]
    start = time.perf_counter()
    A = MixingMatrix(laws, instrument("LiteBIRD"))
    values = jnp.tile(jnp.array([1.54, 20.0, -3.0]), (20_000, 1))
    value, first, second = jax.block_until_ready(jax.jit(A.evaluate)(values))
    assert time.perf_counter() - start < 60  # seconds on any machine; typically 2
    assert value.shape == (20_000, 15, 4)
    # What does not vanish: dust by beta_d, temp and both; synchrotron by its index.
    assert first.places == ((0, 1), (1, 1), (2, 2))
    assert second.places == ((0, 0, 1), (0, 1, 1), (1, 1, 1), (2, 2, 2))
    assert second.value.shape == (20_000, 4, 15)
    assert bool(jnp.isfinite(first.value).all())


def test_equal_matrices_share_programs():
    one, other = MixingMatrix(sky(), BANDS), MixingMatrix(sky(), Instrument(NU))
    assert one == other
    assert hash(one) == hash(other)
    assert one != MixingMatrix(sky(), BANDS, calibration=["95"])


@pytest.mark.parametrize("width", [10.0, 1.0, 0.5, 0.2])
def test_a_narrow_law_is_integrated_over_all_it_is_seen_by(width):
    """A bandpass has as many nodes as the laws need, down to all its samples."""
    nu = np.linspace(100.0, 130.0, 3001)
    x = nu / 56.7803  # h nu / k T_CMB, near enough: the ratio of two integrals
    law = distsep.Component(
        f"exp(-((nu-112)/{width})**2/2)", name="Narrow", unit="K_RJ", nu0=112.0
    )
    flat = distsep.Component("(nu/112)**0", name="Flat", unit="K_RJ", nu0=112.0)
    both = [distsep.Instrument([112.0, 150.0], bandpass=[(nu, 1 + x), None])] * 2
    narrow, wide = (
        np.asarray(distsep.MixingMatrix([c], i)({}))[0, 0]
        for c, i in zip((law, flat), both, strict=True)
    )
    seen = (1 + x) * nu**2
    expected = np.trapezoid(seen * np.exp(-(((nu - 112) / width) ** 2) / 2), nu)
    expected /= np.trapezoid(seen, nu)
    np.testing.assert_allclose(narrow / wide, expected, rtol=1e-7)


def test_a_law_that_became_narrow_is_remarked_upon():
    nu = np.linspace(100.0, 130.0, 301)
    bands = distsep.Instrument(
        [112.0, 150.0, 220.0], bandpass=[(nu, np.ones(301)), None, None]
    )
    peak = "exp(-((nu-112)/width)**2/2)"
    law = distsep.Component(
        peak, name="Peak", unit="K_RJ", nu0=112.0, defaults={"width": 20.0}
    )
    mixing = distsep.MixingMatrix([distsep.CMB(), law], bands)
    assert mixing.bandpass_error([20.0]) < 1e-7
    assert mixing.bandpass_error([0.5]) > 0.01
    assert bandpass_warnings(mixing, {"Peak.width": np.array([19.0, 21.0])}) == []
    (words,) = bandpass_warnings(mixing, {"Peak.width": np.array([0.5, np.nan])})
    assert "off in a band" in words
