"""Conversions between units of brightness, against formulas written out in SI."""

import numpy as np
import pytest

from distsep.model import units

h, k, c = 6.62607015e-34, 1.380649e-23, 299792458.0
NU = np.array([0.1, 10.0, 100.0, 217.0, 857.0, 18000.0])


def planck(nu, T):
    """B_nu [W m^-2 Hz^-1 sr^-1], nu in GHz."""
    nu = nu * 1e9
    return 2 * h * nu**3 / c**2 / np.expm1(h * nu / (k * T))


def test_constants():
    assert units.H_OVER_K == pytest.approx(0.0479924307, rel=1e-9)
    assert units.T_CMB == 2.7255


def test_k_cmb_is_the_derivative_of_the_planck_law():
    nu, step = NU[:-1], 1e-4
    slope = (planck(nu, 2.7255 + step) - planck(nu, 2.7255 - step)) / (2 * step)
    found = units.conversion("K_CMB", "MJy/sr", nu)
    np.testing.assert_allclose(found, slope * 1e20, rtol=1e-6)


def test_k_rj_is_2_k_nu2_over_c2():
    found = units.conversion("K_RJ", "MJy/sr", NU)
    np.testing.assert_allclose(found, 2 * k * (NU * 1e9 / c) ** 2 * 1e20, rtol=1e-14)


@pytest.mark.parametrize("base", ["K_CMB", "K_RJ"])
def test_prefixes(base):
    for prefix, value in (("m", 1e3), ("u", 1e6)):
        assert units.conversion(base, prefix + base, 150.0) == pytest.approx(value)
    assert units.conversion("MJy/sr", "kJy/sr", 150.0) == pytest.approx(1e3)
    assert units.conversion("MJy/sr", "Jy/sr", 150.0) == pytest.approx(1e6)


@pytest.mark.parametrize("a", units.MAP_UNITS)
@pytest.mark.parametrize("b", units.MAP_UNITS)
def test_there_and_back(a, b):
    product = units.conversion(a, b, NU) * units.conversion(b, a, NU)
    np.testing.assert_allclose(product, 1, rtol=1e-13)


def test_compton_law_has_its_null_and_its_limit():
    assert units.compton_law(1e-3) == pytest.approx(-2 * 2.7255, rel=1e-6)
    assert units.compton_law(217.0) < 0 < units.compton_law(218.0)


def test_an_unknown_unit_is_refused_with_the_list():
    with pytest.raises(ValueError, match=r"unit_from.*K_CMB.*got 'K_cmb'"):
        units.conversion("K_cmb", "K_RJ", 100.0)
    with pytest.raises(ValueError, match="K km/s"):
        units.conversion("K km/s", "K_RJ", 100.0)


def test_names_of_amplitudes_of_maps_in_micro_kelvin():
    assert units.micro("K_CMB") == "uK_CMB"
    assert units.micro("MJy/sr") == "Jy/sr"
    assert units.micro("y_SZ") == "1e-6 y_SZ"


def test_everything_offered_is_imported_by_star():
    names: dict = {}
    exec("from distsep import *", names)
    assert {"separate", "Dust", "Observation"} <= set(names)
