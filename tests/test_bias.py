"""What foregrounds leave in the amplitudes, known from noise-free maps of them."""

import pickle

import dense
import numpy as np
import pytest

import distsep

NU = np.array([40.0, 60.0, 90.0, 120.0, 160.0, 240.0, 350.0])
LAWS = [distsep.CMB(), distsep.Dust(150.0, temp=20.0), distsep.Synchrotron(20.0)]
KINDS = ("Dust.beta_d", "Synchrotron.beta_pl")
NPIX, DEPTH = 48, 0.5


def observation(d):
    variance = np.full((7, 1, 1), DEPTH**2)
    return distsep.Observation(
        d, distsep.Instrument(NU), stokes="QU", nside=2, noise_variance=variance
    )


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "monopole"])
def fitted(request):
    """A dust temperature of 21 K, taken to be 20: the model is wrong."""
    rng = np.random.default_rng(61)
    s = rng.normal(size=(3, 2, NPIX)) * np.array([20.0, 100, 300])[:, None, None]
    clean = np.einsum("fc,csp->fsp", dense.emission(NU, 1.54, 21.0, -3.0), s)
    noisy = observation(clean + DEPTH * rng.normal(size=clean.shape))
    terms = [distsep.Monopole(["60", "240"])] if request.param else []
    result = distsep.separate(
        LAWS, noisy, global_terms=terms, solver="newton", amplitude_unit="K_CMB"
    )
    s[0] = 0  # of the foregrounds alone
    clean = np.einsum("fc,csp->fsp", dense.emission(NU, 1.54, 21.0, -3.0), s)
    return result, clean, s


FIXED = {"Dust.beta_d": 1.54, "Synchrotron.beta_pl": -3.0}


def weights(beta):
    A = dense.emission(NU, beta[0], 20.0, beta[1])
    return np.linalg.solve(A.T @ A, A.T)


def test_systematic_and_statistical_residuals(fitted):
    result, clean, s = fitted
    systematic, statistical = result.bias(observation(clean), 1e-6 * s)
    beta = np.array([float(result.parameters[k]) for k in KINDS])
    expected = np.einsum("cf,fsp->csp", weights(beta), clean) - s
    np.testing.assert_allclose(1e6 * systematic, expected, atol=1e-8)
    assert np.abs(expected[0]).max() > 1e-3  # the bias is there

    J = np.array([weights(beta + 1e-25j * u).imag / 1e-25 for u in np.eye(2)])
    J = np.einsum("kcf,fsp->kcsp", J, clean)
    # The weights know nothing of global terms, nor of their errors.
    C = result.covariance[:2, :2]
    variance = np.einsum("kcsp,kl,lcsp->csp", J, C, J)
    np.testing.assert_allclose(1e6 * statistical, np.sqrt(variance), rtol=1e-6)


def test_the_right_model_has_no_systematic_residual(fitted):
    result, _, s = fitted
    beta = [float(result.parameters[k]) for k in KINDS]
    A = dense.emission(NU, beta[0], 20.0, beta[1])
    clean = np.einsum("fc,csp->fsp", A, s)
    systematic, _ = result.bias(observation(clean), 1e-6 * s)
    np.testing.assert_allclose(1e6 * systematic, 0, atol=1e-8)


def test_apply_is_linear_and_spends_no_fit(fitted):
    result, clean, _ = fitted
    once, twice = (result.apply(observation(k * clean)) for k in (1, 2))
    np.testing.assert_allclose(twice.amplitudes, 2 * once.amplitudes, rtol=1e-9)
    assert "nothing was fitted" in once.message
    with pytest.raises(ValueError, match="read or copied"):
        result.replace(applier=None).bias(observation(clean), clean[:3])


def test_a_result_comes_back_from_a_worker(fitted):
    """Without what holds the devices: that is said."""
    result, clean, _ = fitted
    there = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(there.amplitudes, result.amplitudes)
    np.testing.assert_array_equal(there.covariance, result.covariance)
    assert (there.parameters, repr(there)) == (result.parameters, repr(result))
    with pytest.raises(ValueError, match="read or copied"):
        there.apply(observation(clean))
    assert result.apply(observation(clean)).converged


def test_weights_are_those_of_the_normal_equations(fitted):
    """Of an independent calculation; and W d are the amplitudes of d."""
    result, clean, _ = fitted
    beta = np.array([float(result.parameters[k]) for k in KINDS])
    found = result.weights
    assert found.shape == (3, 7, 2, NPIX)
    expected = 1e-6 * weights(beta)[:, :, None, None]  # K_CMB
    np.testing.assert_allclose(
        found, np.broadcast_to(expected, found.shape), atol=1e-20
    )
    applied = result.apply(observation(clean)).amplitudes
    np.testing.assert_allclose(np.einsum("cfsp,fsp->csp", found, clean), applied)


def test_weights_of_samples_that_lack_bands():
    """Their own noise in every sample; 0 for a missing band, NaN where none is left."""
    rng = np.random.default_rng(62)
    variance = DEPTH**2 * rng.uniform(0.5, 2, (7, 2, NPIX))
    s = rng.normal(size=(3, 2, NPIX)) * np.array([20.0, 100, 300])[:, None, None]
    d = np.einsum("fc,csp->fsp", dense.emission(NU, 1.54, 20.0, -3.0), s)
    d += np.sqrt(variance) * rng.normal(size=d.shape)
    d[2, :, 5:9] = np.nan
    d[:, :, 11] = np.nan
    result = distsep.separate(
        LAWS,
        distsep.Observation(
            d, distsep.Instrument(NU), stokes="QU", nside=2, noise_variance=variance
        ),
        solver="newton",
    )
    found = result.weights
    beta_d, beta_pl = (float(result.parameters[k]) for k in KINDS)
    A = dense.emission(NU, beta_d, 20.0, beta_pl)
    for stokes, pix in np.ndindex(2, NPIX):
        if pix == 11:
            assert np.isnan(found[..., stokes, pix]).all()
            continue
        invN = np.where(np.isnan(d[:, stokes, pix]), 0, 1 / variance[:, stokes, pix])
        expected = np.linalg.solve(A.T @ (invN[:, None] * A), A.T * invN)
        np.testing.assert_allclose(found[..., stokes, pix], expected, atol=1e-12)
    assert (found[:, 2, :, 5:9] == 0).all()


def test_weights_that_there_are_not_are_refused(fitted):
    result, clean, _ = fitted
    with pytest.raises(ValueError, match="Result.weights`: this result was read"):
        _ = result.replace(applier=None).weights
    with pytest.raises(ValueError, match="Result.weights`: the maps are too large"):
        _ = result.replace(amplitudes=None).weights
    turned = distsep.separate(
        LAWS,
        observation(clean),
        angle=["60"],
        priors={"angle.60": (0.0, 0.01)},
        solver="newton",
    )
    with pytest.raises(ValueError, match="with `angle` an amplitude takes Q and U"):
        _ = turned.weights


@pytest.mark.parametrize("unit", ["MJy/sr", "uK_RJ"])
def test_weights_give_the_unit_of_the_result(fitted, unit):
    """Amplitudes of the CMB have one of their own."""
    _, clean, s = fitted
    sz = distsep.ThermalSZ()
    noisy = observation(clean)
    result = distsep.separate(
        [sz, *LAWS], noisy, fixed=FIXED, amplitude_unit=unit, solver="newton"
    )
    applied = result.apply(noisy)
    assert applied.units == result.units
    assert len(set(result.units.values())) == 3
    np.testing.assert_allclose(applied.amplitudes, result.amplitudes, rtol=1e-9)
    left = result.bias(noisy, result.amplitudes)[0]
    scale = np.abs(result.amplitudes).max((1, 2), keepdims=True)
    np.testing.assert_allclose(left / scale, 0, atol=1e-12)


@pytest.mark.parametrize(
    "truth", [np.array(0.0), np.zeros(NPIX), np.full((3, 2, NPIX), np.nan)]
)
def test_a_truth_that_is_none_is_refused(fitted, truth):
    result, clean, _ = fitted
    with pytest.raises(
        ValueError, match=r"bias\(truth=...\)`: expected the amplitudes"
    ):
        result.bias(observation(clean), truth)


@pytest.mark.parametrize("where", [(3, 0, 5), (3, slice(None), 5), 3])
def test_maps_that_lack_what_was_fitted_are_refused(fitted, where):
    """Never a missing band taken for a zero."""
    result, clean, s = fitted
    gaps = clean.copy()
    gaps[where] = np.nan
    with pytest.raises(ValueError, match=r"band 120 lacks \d+ samples"):
        result.apply(observation(gaps))
    with pytest.raises(ValueError, match=r"band 120 lacks"):
        result.bias(observation(gaps), s)


def test_maps_of_zeros_are_maps_where_they_are_said_to_be_observed(fitted):
    """A point source: nothing but zeros around it."""
    result, clean, _ = fitted
    point = np.zeros_like(clean)
    point[:, :, 5] = 1.0
    with pytest.raises(ValueError, match="zero in every map are not observed, unless"):
        result.apply(observation(point))
    seen = distsep.Observation(
        point,
        distsep.Instrument(NU),
        stokes="QU",
        nside=2,
        noise_variance=np.full((7, 1, 1), DEPTH**2),
        observed=np.ones(NPIX, bool),
    )
    found = result.apply(seen).amplitudes
    assert (found[..., np.arange(NPIX) != 5] == 0).all()
    beta = np.array([float(result.parameters[k]) for k in KINDS])
    expected = 1e-6 * weights(beta).sum(1)  # K_CMB
    np.testing.assert_allclose(found[:, 0, 5], expected, rtol=1e-9, atol=1e-18)
