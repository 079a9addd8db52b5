"""Observation: everything is checked and converted at the door, once."""

import jax.numpy as jnp
import numpy as np
import pytest

import distsep
from distsep.data.healpix import UNSEEN, ring_to_nest

NSIDE, NPIX = 4, 192
INS = distsep.Instrument(
    nu=[40, 100, 150, 300],
    depth_p=[30.0, 10.0, 8.0, 20.0],
    depth_i=[20.0, 7.0, 5.0, 15.0],
)
AREA = 4 * np.pi / NPIX * np.degrees(60.0) ** 2  # arcmin^2
maps = np.random.default_rng(40).normal(size=(4, 2, NPIX)) * 10


def observe(d=maps, ins=INS, **changes):
    return distsep.Observation(d, ins, **{"stokes": "QU", "nside": NSIDE, **changes})


def invN(obs):
    """Inverse variance of every sample (freq, stokes, pix)."""
    weight = np.ones(obs.npix) if obs.noise.weight is None else obs.noise.weight
    shape = obs.noise.shape
    return np.where(
        np.isnan(obs.d), 0, (shape if shape.ndim == 3 else shape[..., None]) * weight
    )


def test_pixels_come_out_in_ascending_nest_order():
    nest = ring_to_nest(NSIDE, np.arange(NPIX))
    obs = observe()
    np.testing.assert_array_equal(obs.cell_ids, np.arange(NPIX))
    np.testing.assert_array_equal(obs.d[..., nest], maps)
    np.testing.assert_array_equal(obs.restore(obs.d), maps)
    again = observe(obs.d, ordering="NEST")
    np.testing.assert_array_equal(again.d, obs.d)


def test_a_part_of_the_sky_in_any_order():
    ids = np.random.default_rng(41).permutation(NPIX)[:50]
    obs = observe(maps[..., ids], cell_ids=ids)
    whole = observe(observed=np.isin(np.arange(NPIX), ids))
    np.testing.assert_array_equal(obs.cell_ids, whole.cell_ids)
    np.testing.assert_array_equal(obs.d, whole.d)
    np.testing.assert_array_equal(obs.restore(obs.d), maps[..., ids])
    assert obs.grid == whole.grid


def test_it_is_shown_in_a_line():
    """Not as the arrays it holds, which a debugger would print for minutes."""
    ids = np.arange(50)
    obs = observe(maps[..., ids], cell_ids=ids)
    said = "Observation(4 bands, QU, 50 pixels of nside 4, noise: depths)"
    assert repr(obs) == said


def test_the_noise_of_a_pixel_comes_from_nside_not_from_the_array():
    for obs in (observe(), observe(maps[..., :7], cell_ids=np.arange(7))):
        expected = AREA / np.array(INS.depth_p) ** 2
        np.testing.assert_allclose(obs.noise.shape, np.stack([expected] * 2, 1))


def test_each_stokes_parameter_has_its_own_depth():
    obs = observe(np.concatenate([maps[:, :1], maps], 1), stokes="IQU")
    np.testing.assert_allclose(obs.noise.shape[:, 0], AREA / np.array(INS.depth_i) ** 2)
    np.testing.assert_allclose(obs.noise.shape[:, 2], AREA / np.array(INS.depth_p) ** 2)


@pytest.mark.parametrize("unit", ["K_CMB", "mK_CMB", "K_RJ", "MJy/sr"])
def test_units_of_maps_and_noise(unit):
    factor = INS.conversion("uK_CMB", unit)[:, None, None]
    variance = np.abs(maps) + 1
    obs = observe(maps * factor, unit=unit, noise_variance=variance * factor**2)
    plain = observe(noise_variance=variance)
    np.testing.assert_allclose(obs.d, plain.d, rtol=1e-13)
    np.testing.assert_allclose(invN(obs), invN(plain), rtol=1e-12)


def test_one_unit_per_band_and_the_inverse_covariance_in_it():
    units = ["K_CMB", "MJy/sr", "uK_RJ", "mK_CMB"]
    factor = np.array([INS.conversion("uK_CMB", u)[i] for i, u in enumerate(units)])
    draws = np.random.default_rng(42).normal(size=(4, 9))
    dense = draws @ draws.T
    obs = observe(
        maps * factor[:, None, None],
        unit=units,
        inverse_noise=dense / np.outer(factor, factor),
    )
    np.testing.assert_allclose(obs.restore(obs.d), maps, rtol=1e-13)
    np.testing.assert_allclose(obs.noise.shape[1], dense, rtol=1e-12)


def test_iau_turns_the_sign_of_u_alone():
    obs = observe(polcconv="IAU")
    assert obs.polcconv == "COSMO"
    np.testing.assert_array_equal(obs.restore(obs.d), maps * [[1], [-1]])


@pytest.mark.parametrize("mark", [np.nan, UNSEEN, np.float32(UNSEEN)])
def test_missing_in_one_band_leaves_the_others(mark):
    d = maps.copy()
    d[1, 0, 17] = mark
    d[:, :, 30] = mark
    obs = observe(d)
    back = obs.restore(obs.d)
    assert obs.npix == NPIX - 1
    assert np.isnan(back[1, 0, 17])
    assert np.isnan(back).sum() == 1 + 8
    assert np.isfinite(back[0, 0, 17])


@pytest.mark.parametrize("kind", [np.float32, np.float64, int])
def test_masked_samples_are_missing(kind):
    """As of healpy.ma, alone or in a list; the numbers behind a mask count nowhere."""
    d = np.round(maps * 9).astype(kind) + kind(1000)
    mask = np.zeros(d.shape, bool)
    mask[1, 0, 17] = mask[:, :, 30] = True
    expected = np.where(mask, np.nan, d)
    d[mask] = 12345
    masked = np.ma.array(d, mask=mask)
    for given in (masked, list(masked), [list(band) for band in masked]):
        obs = observe(given)
        np.testing.assert_array_equal(obs.restore(obs.d), expected)
    obs = observe(noise_variance=np.ma.array(np.ones(d.shape), mask=mask))
    np.testing.assert_array_equal(np.isnan(obs.restore(obs.d)), mask)
    hits = np.ma.array(np.ones(NPIX, int), mask=mask[1, 0])
    assert 17 not in np.asarray(observe(hits=hits, hits_norm=1).caller_index)


@pytest.mark.parametrize("other", [1.0, 2.0])
def test_infinite_variance_in_one_band_is_a_missing_band(other):
    """Also where the rest of the sky shares one noise shape."""
    variance = np.ones((4, 2, NPIX))
    variance[0, 0, 3] = other
    variance[1, 0, 17] = np.inf
    obs = observe(noise_variance=variance)
    found = np.empty((4, 2, NPIX))
    found[..., obs.caller_index] = invN(obs)
    np.testing.assert_array_equal(found, 1 / variance)


def test_pixels_that_are_zero_in_every_band_are_taken_out_and_said():
    d = maps.copy()
    d[..., 5] = 0
    d[0, :, 6] = 0  # a zero in one band is a number
    obs = observe(d)
    assert obs.npix == NPIX - 1
    assert any("1 pixels are exactly zero" in w for w in obs.warnings)


@pytest.mark.parametrize(
    ("norm", "value"), [(1, 1), (2.5, 2.5), ("max", 8), ("mean", 4.5)]
)
def test_hits_scale_the_noise_by_their_stated_norm(norm, value):
    hits = np.arange(NPIX) % 9.0
    obs = observe(hits=hits, hits_norm=norm)
    assert obs.npix == (hits > 0).sum()
    if norm == "mean":
        value = hits[hits > 0].mean()
    np.testing.assert_allclose(
        obs.noise.weight, hits[obs.caller_index] / value, rtol=1e-14
    )


def test_a_rank_may_have_no_pixel():
    assert observe(np.zeros((4, 2, 0)), cell_ids=[]).npix == 0


def test_float32_stays_float32_and_jax_arrays_are_taken():
    obs = observe(jnp.asarray(maps, jnp.float32))
    assert obs.d.dtype == np.float32
    np.testing.assert_array_equal(obs.restore(obs.d), maps.astype(np.float32))
    assert observe(np.ones((4, 2, NPIX), int)).d.dtype == np.float64


def test_the_arrays_of_the_caller_are_not_changed():
    d, variance = maps.copy(), np.abs(maps) + 1
    d[0, 0, 3] = UNSEEN
    before = d.copy(), variance.copy()
    obs = observe(d, polcconv="IAU", unit="K_CMB", noise_variance=variance)
    obs.d[:] = 7
    obs.noise.shape[:] = 7
    np.testing.assert_array_equal(d, before[0])
    np.testing.assert_array_equal(variance, before[1])


def test_used_keeps_some_of_the_pixels():
    obs = observe()
    some = obs.used(obs.cell_ids % 3 == 0)
    assert (some.npix, some.grid.npix) == (64, 64)
    expected = np.where(np.isin(obs.caller_index, some.caller_index), 1, np.nan)
    np.testing.assert_array_equal(some.restore(np.ones(64))[obs.caller_index], expected)


P_ONLY = distsep.Instrument(nu=INS.nu, depth_i=INS.depth_i)
inf_d = maps.copy()
inf_d[0, 0, 0] = np.inf
scaled = maps.copy()
scaled[2, 1, 7] = UNSEEN * 1e6
hidden = np.arange(NPIX) == 3
DEPTH_INF = distsep.Instrument(nu=INS.nu, depth_p=[30.0, 10.0, np.inf, 20.0])
nan_hits = np.where(hidden, np.nan, 1.0)
WRONG = {
    "scaled": ({"d": scaled}, r"maps=.* 1 values such as -1.6375e\+36.*UNSEEN, scaled"),
    "masked cells": (
        {"cell_ids": np.ma.array(np.arange(NPIX), mask=hidden)},
        r"cell_ids=.*masked",
    ),
    "masked observed": (
        {"observed": np.ma.array(np.ones(NPIX), mask=hidden)},
        r"observed=.*masked",
    ),
    "masked inverse": (
        {"inverse_noise": np.ma.array(np.eye(4), mask=np.eye(4))},
        r"inverse_noise=.*masked",
    ),
    "nside 4.0": ({"nside": 4.0}, r"nside=.*integer, a power of 2, got 4.0"),
    "nside text": ({"nside": "4"}, r"nside=.*integer, a power of 2, got '4'"),
    "unit None": ({"unit": None}, r"Observation\(unit=.*uK_CMB.*got 'None'"),
    "unit unknown": ({"unit": "furlong"}, r"Observation\(unit=.*got 'furlong'"),
    "variance text": ({"noise_variance": "foo"}, r"noise_variance=.*real numbers.*foo"),
    "inverse text": ({"inverse_noise": "foo"}, r"inverse_noise=.*real numbers.*foo"),
    "inverse shape": ({"inverse_noise": np.eye(3)}, r"inverse_noise=.*got \(3, 3\)"),
    "resolution": ({"resolution": -80.0}, r"resolution=.*positive.*-80"),
    "resolution nan": ({"resolution": np.nan}, r"resolution=.*positive.*nan"),
    "norm alone": ({"hits_norm": "max"}, r"hits_norm='max'.*goes with `hits`"),
    "depth inf": ({"ins": DEPTH_INF}, r"depth_p=.*finite.*inf for band 150"),
    "hits nan": (
        {"hits": nan_hits, "hits_norm": 1},
        r"hits=.*got 1 NaN.*set them to 0",
    ),
    "hits text": ({"hits": "many", "hits_norm": 1}, r"hits=.*real numbers"),
    "shape": ({"d": maps[:3]}, r"maps=.*\(4, 2, pix\).*\(3, 2, 192\)"),
    "stokes": ({"stokes": "UQ"}, r"stokes=.*I, QU or IQU.*'UQ'"),
    "npix": ({"d": maps[..., :9]}, r"9 pixels.*192.*cell_ids"),
    "nside": ({"nside": 5}, r"nside=.*power of 2.*5"),
    "ordering": ({"ordering": "NESTED"}, r"ordering=.*RING or NEST"),
    "coordsys": ({"coordsys": "X"}, r"coordsys=.*G, C or E"),
    "polcconv": ({"polcconv": "HEALPIX"}, r"polcconv=.*COSMO or IAU"),
    "unit": ({"unit": "uK"}, r"uK_CMB"),
    "units": ({"unit": ["K_CMB"]}, r"one per band \(4\), got 1"),
    "complex": ({"d": maps * 1j}, r"real numbers"),
    "infinite": ({"d": inf_d}, r"infinite.*NaN or UNSEEN"),
    "observed": ({"observed": np.ones(3)}, r"observed=.*192 values"),
    "cell twice": ({"cell_ids": np.zeros(NPIX, int)}, r"cell_ids=.*twice"),
    "cell range": ({"cell_ids": np.arange(NPIX) + 1}, r"cell_ids=.*\[0, 192\)"),
    "cell type": ({"cell_ids": np.arange(NPIX) * 1.0}, r"cell_ids=.*integers"),
    "depth": ({"ins": P_ONLY}, r"depth_p.*40"),
    "variance nan": ({"noise_variance": np.nan}, r"noise_variance=.*positive"),
    "variance < 0": ({"noise_variance": -(maps**2)}, r"noise_variance=.*positive"),
    "variance shape": ({"noise_variance": np.ones(5)}, r"noise_variance=.*broadcast"),
    "two noises": ({"noise_variance": 1.0, "hits": np.ones(NPIX)}, r"one of"),
    "hits norm 0": ({"hits": np.ones(NPIX), "hits_norm": 0}, r"hits_norm=.*got 0"),
    "hits norms": ({"hits": np.ones(NPIX), "hits_norm": [1]}, r"hits_norm=.*\[1\]"),
    "hits norm": ({"hits": np.ones(NPIX)}, r"hits_norm=.*'max' or 'mean'"),
    "hits shape": ({"hits": np.ones(3), "hits_norm": 1}, r"hits=.*192"),
    "hits < 0": ({"hits": -np.ones(NPIX), "hits_norm": 1}, r"hits=.*not negative"),
    "no hits": ({"hits": np.zeros(NPIX), "hits_norm": "max"}, r"zero everywhere"),
}


def test_outside_the_mask_nothing_is_asked_of_the_noise():
    variance = np.ones(NPIX)
    variance[:5] = 0.0, -1.0, np.nan, np.inf, 0.0
    observed = np.arange(NPIX) >= 5
    obs = observe(noise_variance=variance, observed=observed)
    assert obs.npix == NPIX - 5
    with pytest.raises(ValueError, match=r"8 NaN and 24 zero or negative.*observed="):
        observe(noise_variance=variance)


def test_a_rank_may_have_no_hits():
    obs = observe(hits=np.zeros(NPIX), hits_norm=1)
    assert not obs.npix or not np.any(obs.noise.weight)


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_gives_one_clear_error(wrong):
    changes, match = WRONG[wrong]
    with pytest.raises((ValueError, TypeError), match=match):
        observe(**changes)


@pytest.mark.parametrize("name", ["maps", "noise_variance", "nu", "depth_p"])
def test_arrays_that_carry_a_unit_are_refused(name):
    """It would be dropped without a word: K as uK, THz as GHz."""

    class Quantity(np.ndarray):  # as astropy's
        unit = "K"

    given = {"maps": np.ones((2, 2, 12)), "noise_variance": np.ones((2, 2, 12))}
    bands = {"nu": np.array([40.0, 90.0]), "depth_p": np.ones(2)}
    for values in (given, bands):
        if name in values:
            values[name] = values[name].view(Quantity)
    with pytest.raises((TypeError, ValueError), match=f"{name}.*carries a unit, K"):
        distsep.Observation(
            **given, instrument=distsep.Instrument(**bands), stokes="QU", nside=1
        )
