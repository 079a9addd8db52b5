"""Monopoles added to real surveys: the example, on a coarse sky."""

import numpy as np
import pytest
from conftest import example, shared_file

NAME = "gsm2016_wmap_planck_bands_I_nside64_ring_uKRJ.npz"


@pytest.fixture(scope="module")
def gsm():
    return example("gsm")


@pytest.fixture(scope="module")
def fits(gsm):
    return gsm.three_fits(shared_file("sky", "gsm2016", NAME), nside=8)


def test_monopoles_come_back_and_nothing_else_moves(gsm, fits):
    assert all(fit.converged for fit in fits.values())
    values, errors = gsm.recovered(fits)
    np.testing.assert_allclose(values, list(gsm.ADDED.values()), atol=1e-4)
    assert (errors < 1.0).all()
    before, after = fits["as it is"], fits["with"]
    for name, sigma in before.sigma.items():
        assert abs(after.parameters[name] - before.parameters[name]) < 1e-3 * sigma
    np.testing.assert_allclose(after.amplitudes, before.amplitudes, atol=1e-3)


def test_without_them_indices_and_cmb_are_wrong(fits):
    before, without = fits["as it is"], fits["without"]
    for name, sigma in before.sigma.items():
        assert abs(without.parameters[name] - before.parameters[name]) > 10 * sigma
    change = without.amplitudes[0] - before.amplitudes[0]
    assert np.sqrt(np.nanmean(change**2)) > 3


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_the_picture(gsm, fits, tmp_path):
    from matplotlib.image import imread

    image = imread(gsm.picture(fits, tmp_path / "gsm.png"))
    assert image.shape[:2] == (912, 1560)
    assert image[..., :3].std() > 0.1
