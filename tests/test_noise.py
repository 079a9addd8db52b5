"""Noise: read as it is, and written as shape x weight only where that is exact."""

import numpy as np
import pytest

from distsep.data.noise import (
    Noise,
    noise_from_inverse,
    noise_from_variance,
    variance_maps,
)

NF, NS, NPIX = 4, 2, 6
rng = np.random.default_rng(8)
DEPTH = rng.uniform(1, 3, (NF, NS))
HITS = rng.uniform(0.5, 2, NPIX)


def full(noise: Noise) -> np.ndarray:
    """Inverse variances (freq, stokes, pix) of noise that is diagonal."""
    shape = noise.shape if noise.kind == "pixel" else noise.shape[..., None]
    weight = np.ones(NPIX) if noise.weight is None else noise.weight
    return shape * weight


@pytest.mark.parametrize(
    "variance",
    [2.0, DEPTH[:, :1, None] ** 2, DEPTH[:, :, None] ** 2 * np.ones(NPIX)],
    ids=["one number", "one per band", "per pixel, all the same"],
)
def test_uniform_noise_is_seen(variance):
    noise = noise_from_variance(variance_maps(variance, (NF, NS, NPIX)))
    assert (noise.kind, noise.weight) == ("uniform", None)
    np.testing.assert_allclose(
        full(noise), 1 / np.broadcast_to(variance, (NF, NS, NPIX)), rtol=1e-15
    )


def test_uniform_noise_of_bands_that_are_missing_somewhere_needs_no_weights():
    variance = DEPTH[:, :, None] ** 2 * np.ones(NPIX)
    variance[2, 1, 4] = variance[0, 0, 1] = np.inf
    noise = noise_from_variance(variance)
    assert (noise.kind, noise.weight) == ("uniform", None)
    np.testing.assert_array_equal(noise.shape, 1 / DEPTH**2)
    variance[..., 2] = np.inf  # a pixel that no band saw has no weight
    noise = noise_from_variance(variance)
    assert noise.weight is not None
    assert noise.weight[2] == 0


def test_one_hit_map_for_all_bands_is_seen():
    noise = noise_from_variance(DEPTH[:, :, None] ** 2 / HITS)
    assert noise.kind == "uniform"
    assert noise.weight is not None
    np.testing.assert_allclose(full(noise), HITS / DEPTH[:, :, None] ** 2, rtol=1e-14)


@pytest.mark.parametrize("change", [2.0, 1 + 1e-12])
def test_a_shape_that_changes_over_the_sky_is_kept(change):
    variance = DEPTH[:, :, None] ** 2 / HITS
    variance[1, 0, 3] *= change
    noise = noise_from_variance(variance)
    assert noise.kind == "pixel"
    np.testing.assert_array_equal(full(noise), 1 / variance)


def test_infinite_variance_is_no_weight():
    variance = DEPTH[:, :, None] ** 2 * rng.uniform(1, 2, (NF, NS, NPIX))
    variance[2, 1, 4] = np.inf
    noise = noise_from_variance(variance)
    assert full(noise)[2, 1, 4] == 0
    np.testing.assert_array_equal(full(noise), 1 / variance)


@pytest.mark.parametrize("bad", [np.nan, 0.0, -1.0])
def test_variances_that_are_none_are_refused(bad):
    variance = np.ones((NF, NS, NPIX))
    variance[1, 1, 1] = bad
    with pytest.raises(ValueError, match=r"noise_variance=.*positive.*inf"):
        noise_from_variance(variance)


@pytest.mark.parametrize("tiny", [1e-310, 1e-200])
def test_variances_whose_inverse_is_no_number_are_refused(tiny):
    variance = np.ones((NF, NS, NPIX))
    variance[1, 1, 1] = tiny
    with pytest.raises(ValueError, match=r"noise_variance=.*must be above 1e-100 uK"):
        noise_from_variance(variance)


def test_variances_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 2, 6\), got shape \(3, 2, 6\)"):
        variance_maps(np.ones((3, 2, 6)), (NF, NS, NPIX))


def covariance(*lead):
    draws = rng.normal(size=(*lead, NF, 2 * NF))
    return draws @ draws.swapaxes(-1, -2)


@pytest.mark.parametrize(
    ("lead", "kind", "shape"),
    [
        ((), "dense", (NS, NF, NF)),
        ((NS,), "dense", (NS, NF, NF)),
        ((NS, NPIX), "dense_pixel", (NS, NF, NF, NPIX)),
    ],
)
def test_inverse_covariances(lead, kind, shape):
    invN = covariance(*lead)
    noise = noise_from_inverse(invN, NF, NS, NPIX)
    assert noise.kind == kind
    assert noise.shape.shape == shape
    found = np.moveaxis(noise.shape, -1, 1) if kind == "dense_pixel" else noise.shape
    np.testing.assert_array_equal(found, np.broadcast_to(invN, found.shape))


def asymmetric():
    invN = covariance()
    invN[0, 1] += 1e-3
    return invN


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (covariance(3), "shape"),
        (np.zeros((NF * NS, NF * NS)), "Stokes parameters is not supported"),
        (covariance() * np.nan, "NaN"),
        (asymmetric(), "symmetric"),
        (-covariance(), "negative eigenvalues"),
        (1e200 * covariance(), "must be below 1e[+]100 uK_CMB"),
    ],
    ids=["shape", "Q-U covariance", "nan", "asymmetric", "negative", "huge"],
)
def test_inverse_covariances_that_are_none_are_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        noise_from_inverse(wrong, NF, NS, NPIX)


def test_select_keeps_the_order_asked_for():
    pixels = np.array([4, 0, 2])
    for noise in (
        Noise(DEPTH, "uniform", HITS),
        Noise(DEPTH[:, :, None] * HITS, "pixel"),
        Noise(covariance(NS), "dense"),
        Noise(np.moveaxis(covariance(NS, NPIX), 1, -1), "dense_pixel"),
    ):
        some = noise.select(pixels)
        assert some.kind == noise.kind
        if noise.weight is not None:
            np.testing.assert_array_equal(some.weight, HITS[pixels])
        own = noise.kind.endswith("pixel")
        expected = noise.shape[..., pixels] if own else noise.shape
        np.testing.assert_array_equal(some.shape, expected)
