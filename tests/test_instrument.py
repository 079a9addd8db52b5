"""Bands and bandpasses: the numbers of the real Planck bands, presets, mistakes."""

import json
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import shared_file

from distsep.model import Dust, Instrument, instrument, presets
from distsep.model.lines import CO_LINES
from distsep.model.nodes import compress
from distsep.model.units import MAP_UNITS, compton_law, conversion

HFI = (100, 143, 217, 353, 545, 857)


def table(name):
    path = shared_file("sky", "bandpass", f"{name}_reformat.txt")
    return tuple(np.loadtxt(path).T)


@pytest.fixture(scope="module")
def hfi():
    tables = [table(f"HFI_BANDPASS_F{nu}") for nu in HFI]
    return Instrument(HFI, bandpass=tables, response="intensity", name="HFI")


def test_hfi_unit_conversion(hfi):
    expected = [244.1, 371.74, 483.69, 287.45, 58.04, 2.27]
    np.testing.assert_allclose(hfi.conversion("K_CMB", "MJy/sr"), expected, rtol=1e-3)


def test_hfi_thermal_sz(hfi):
    expected = np.array([-4.031, -2.785, 0.187, 6.205, 14.455, 26.335])
    found = hfi.conversion("y_SZ", "K_CMB")
    np.testing.assert_allclose(found[:3], expected[:3], atol=0.01)
    np.testing.assert_allclose(found[3:], expected[3:], rtol=1e-3)


def test_hfi_lines_of_co(hfi):
    quadrature = hfi.quadrature()
    for line, band, expected in (
        ("10", "100", 14.78),
        ("21", "217", 45.85),
        ("32", "353", 175.1),
    ):
        found = quadrature.line(CO_LINES[line])[hfi.index(band)] * 1e6
        assert found == pytest.approx(expected, rel=1e-3)


def test_real_bandpasses_stay_finite(hfi):
    assert any((t[1] < 0).any() for t in hfi.bandpass)
    assert hfi.bandpass[0][0][0] < 0.2
    assert hfi.bandpass[0][0][-1] > 17000
    for unit in MAP_UNITS:
        quadrature = hfi.quadrature(unit)
        for law in (*MAP_UNITS, "y_SZ"):
            assert np.isfinite(quadrature.weights(law)).all()
        np.testing.assert_allclose(quadrature.integral(unit), 1, rtol=1e-12)


def test_fewer_nodes_integrate_as_all_samples(hfi):
    quadrature = hfi.quadrature()
    assert quadrature.nu.shape[1] < 500 < 12000 < len(hfi.bandpass[0][0])
    dust = Dust(353.0, temp=19.0, beta_d=1.6)
    laws = {
        "dust": lambda nu: np.asarray(dust.sed(nu, "MJy/sr")),
        "synchrotron": lambda nu: conversion("K_RJ", "MJy/sr", nu) * nu**-3.1,
        "moment": lambda nu: np.log(nu / 353) ** 2 * nu**3.5 * np.exp(-nu / 400),
    }
    found = quadrature.weights("MJy/sr")
    for law in laws.values():
        for b, (nu, tau) in enumerate(hfi.bandpass):
            exact = np.trapezoid(tau * law(nu), nu)
            exact /= np.trapezoid(tau * conversion("K_CMB", "MJy/sr", nu), nu)
            total = np.sum(found[b] * law(quadrature.nu[b]))
            assert total == pytest.approx(exact, rel=1e-9)


def test_nodes_of_short_and_of_strange_tables():
    nu = np.linspace(90.0, 110.0, 32)
    same = compress(nu, nu)
    assert same[0] is nu
    rng = np.random.default_rng(1)
    nu = np.sort(rng.uniform(50, 200, 2000))
    for weight in (rng.standard_normal(2000), np.where(nu > 100, 1.0, 0.0)):
        nodes, weights = compress(nu, weight)
        assert len(nodes) <= len(nu)
        for power in range(6):
            x, y = (nodes / 100) ** power, (nu / 100) ** power
            assert weights @ x == pytest.approx(weight @ y, rel=1e-9, abs=1e-9)


def test_response_rj_is_tau_over_nu2():
    nu, tau = table("LFI_BANDPASS_F030")
    rj = Instrument([28.4], bandpass=[(nu, tau)], response="RJ")
    same = Instrument([28.4], bandpass=[(nu, tau / nu**2)], response="intensity")
    np.testing.assert_allclose(
        rj.conversion("K_RJ", "K_CMB"), same.conversion("K_RJ", "K_CMB"), rtol=1e-13
    )
    # A brightness that is constant in K_RJ: the mean of K_RJ, over that of K_CMB.
    u = tau * conversion("K_CMB", "K_RJ", nu)
    expected = np.trapezoid(tau, nu) / np.trapezoid(u, nu)
    np.testing.assert_allclose(rj.conversion("K_RJ", "K_CMB"), expected, rtol=1e-12)


def test_narrow_and_single_bands_agree():
    nu = np.linspace(-0.01, 0.01, 5)
    single = Instrument([100, 217])
    narrow = Instrument([100, 217], bandpass=[(100 + nu, nu * 0 + 3), None])
    for unit in ("K_RJ", "MJy/sr", "y_SZ"):
        np.testing.assert_allclose(
            narrow.conversion(unit, "K_CMB"),
            single.conversion(unit, "K_CMB"),
            rtol=1e-6,
        )
    np.testing.assert_allclose(
        single.conversion("y_SZ", "K_CMB"), compton_law(np.array([100.0, 217.0]))
    )
    np.testing.assert_allclose(
        single.conversion("K_CMB", "MJy/sr"), conversion("K_CMB", "MJy/sr", single.nu)
    )


def test_ragged_tables_are_each_their_own():
    tables = [(np.linspace(90, 110, n), np.linspace(1, 2, n)) for n in (2, 21, 101)]
    together = Instrument([100] * 3, bands="abc", bandpass=tables)
    found = together.conversion("K_RJ", "K_CMB")
    for i, one in enumerate(tables):
        alone = Instrument([100], bandpass=[one]).conversion("K_RJ", "K_CMB")
        assert found[i] == pytest.approx(alone[0], rel=1e-14)


def test_normalisation_of_a_table_does_not_matter():
    nu = np.linspace(90, 110, 21)
    one = Instrument([100], bandpass=[(nu, nu)])
    other = Instrument([100], bandpass=[(nu, 1e-9 * nu)])
    for unit in ("K_RJ", "y_SZ", "MJy/sr"):
        np.testing.assert_allclose(
            one.conversion(unit, "K_CMB"), other.conversion(unit, "K_CMB"), rtol=1e-13
        )
    np.testing.assert_allclose(
        one.quadrature().line(95.0), other.quadrature().line(95.0), rtol=1e-13
    )


def test_iras_convention_is_exact_for_constant_nu_i_nu():
    nu = np.linspace(400, 700, 301)
    response = np.exp(-(((nu - 560) / 60) ** 2))
    found = Instrument([545], bandpass=[(nu, response)]).conversion("K_RJ", "MJy/sr")
    sky = conversion("K_RJ", "MJy/sr", nu)
    expected = np.trapezoid(response * sky, nu) / np.trapezoid(response * 545 / nu, nu)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# --------------------------------------------------------------------- presets

CMBDB = {
    "LiteBIRD": "LiteBIRD",
    "Planck": "Planck",
    "SO-SAT": "SO_SAT",
    "SO-LAT": "SO_LAT",
    "PICO": "PICO",
}


@pytest.mark.parametrize("name", CMBDB)
def test_presets_are_the_published_tables(name):
    yaml = pytest.importorskip("yaml")
    path = shared_file("sky", "misc", "cmbdb_experiments.yaml")
    published = yaml.safe_load(path.read_text())[CMBDB[name]]
    found = instrument(name)
    for ours, theirs in (
        ("nu", "frequency"),
        ("depth_i", "depth_i"),
        ("depth_p", "depth_p"),
        ("fwhm", "fwhm"),
    ):
        np.testing.assert_array_equal(getattr(found, ours), published[theirs])


def test_every_preset_has_its_source_and_can_be_made():
    assert set(presets()) == {*CMBDB, "CMB-S4", "WMAP"}
    from importlib import resources

    text = resources.files("distsep.model").joinpath("instruments.toml").read_text()
    for name, block in tomllib.loads(text).items():
        assert len(block["source"]) > 40
        made = instrument(name)
        assert made.name == name
        assert (np.diff(made.nu) > 0).all()
        assert made.fwhm is not None
    with pytest.raises(ValueError, match=r"LiteBIRD.*got 'litebird'"):
        instrument("litebird")


def test_depths_that_miss_are_named():
    planck = instrument("Planck")
    assert planck.depth("I").shape == (9,)
    with pytest.raises(ValueError, match=r"Stokes Q.*depth_p.*545, 857"):
        planck.depth("Q")
    assert planck.select(["143", "353"]).depth("U").tolist() == [70.2, 439.0]
    with pytest.raises(ValueError, match=r"Stokes I.*depth_i.*K, Ka, Q, V, W"):
        instrument("WMAP").depth("I")
    only_i = Instrument([100], depth_i=[1.0])
    with pytest.raises(ValueError, match="depth_p"):
        only_i.depth("Q")
    with pytest.raises(ValueError, match="got 'E'"):
        only_i.depth("E")


# ------------------------------------------------------------- dictionaries, doors


def test_dictionary_and_back_through_json(hfi):
    for made in (hfi, instrument("Planck"), Instrument([100, 200], response="RJ")):
        again = Instrument.from_dict(json.loads(json.dumps(made.to_dict())))
        assert again == made
        np.testing.assert_array_equal(again.nu, made.nu)


def test_select_keeps_the_bandpasses(hfi):
    some = hfi.select(["353", "100"])
    assert some.bands == ("353", "100")
    np.testing.assert_array_equal(some.bandpass[0][1], hfi.bandpass[3][1])
    np.testing.assert_allclose(
        some.conversion("K_CMB", "MJy/sr"),
        hfi.conversion("K_CMB", "MJy/sr")[[3, 0]],
        rtol=1e-13,
    )
    with pytest.raises(ValueError, match=r"'30'.*100, 143"):
        hfi.select(["30"])


def test_objects_of_fgbuster_are_instruments():
    nu = np.linspace(90.0, 110.0, 11)
    theirs = SimpleNamespace(
        frequency=[40.0, (nu, np.ones(11))], depth_i=[1.0, 2.0], depth_p=[3.0, 4.0]
    )
    made = Instrument.of(theirs)
    np.testing.assert_allclose(made.nu, [40.0, 100.0])
    assert made.response == ("weights", "weights")
    assert made.depth("Q").tolist() == [3.0, 4.0]
    assert made.fwhm is None
    assert Instrument.of({"frequency": [1.0]}).bands == ("1",)
    assert Instrument.of("PICO") == instrument("PICO")
    assert Instrument.of(made) is made
    with pytest.raises(TypeError, match="got list"):
        Instrument.of([1, 2])


def test_the_arrays_of_the_caller_stay_as_they_are():
    nu = np.array([100.0, 200.0])
    made = Instrument(nu, depth_p=nu)
    made.nu[0] = 5.0
    assert nu[0] == 100.0


def test_one_error_lists_all_mistakes():
    with pytest.raises(ValueError, match="Instrument") as error:
        Instrument(
            [100, -200],
            depth_p=[1.0],
            fwhm="wide",
            bands=["a", "a"],
            response="photons",
            bandpass=[([1, 2, 2], [1, 1, 1]), ([1, 2], [0, 0]), None],
        )
    text = str(error.value)
    for words in (
        "positive frequencies",
        "`depth_p` should have the shape (2,)",
        "`fwhm` should be numbers",
        "2 different names",
        "'photons'",
        "`bandpass` should have 2 entries; got 3",
        "`bandpass[0]`",
        "`bandpass[1]`",
    ):
        assert words in text
    with pytest.raises(ValueError, match="nu"):
        Instrument([])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"nu": [95e9, 150e9]}, "in GHz.*divide it by 1e9"),
        (
            {"bandpass": [None, ([140e9, 160e9], [1.0, 1.0])]},
            r"`bandpass\[1\]` should be in GHz; .* up to 1.6e\+11.*divide them by 1e9",
        ),
        ({"depth_p": [3.0, -2.0]}, "`depth_p` of 150 should not be negative"),
        ({"depth_i": [-3.0, np.nan], "fwhm": [1.0, -1.0]}, "of 95, `fwhm` of 150 sh"),
    ],
)
def test_numbers_that_can_be_none_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Instrument(**{"nu": [95.0, 150.0]} | wrong)


def test_a_depth_that_is_not_known_is_taken():
    assert np.isnan(Instrument([95.0, 150.0], depth_p=[3.0, np.nan]).depth_p[1])
