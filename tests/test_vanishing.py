"""Errors of a parameter that the data hardly constrain."""

import numpy as np
import pytest

import distsep

NU, NSIDE, NOISE = [23.0, 235.0, 337.0, 353.0, 402.0], 4, 20.0
TRUTH = {"Dust.beta_d": 1.54, "Synchrotron.beta_pl": -3.0}
COMPONENTS = [
    distsep.CMB(),
    distsep.Dust(353.0, temp=20.0),
    distsep.Synchrotron(23.0),
]


def sky(amplitude):
    """Synchrotron at one band alone is bright enough to be seen."""
    rng = np.random.default_rng(1)
    instrument = distsep.Instrument(nu=NU)
    A = np.asarray(distsep.MixingMatrix(COMPONENTS, instrument)(TRUTH))
    npix = 12 * NSIDE**2
    s = np.array([50.0, 300.0, 300.0])[:, None, None] * rng.normal(size=(3, 2, npix))
    s[2] *= amplitude
    for _ in range(16):  # the last of them has a flat likelihood
        noise = rng.normal(size=(len(NU), 2, npix))
    return distsep.Observation(
        np.einsum("fc,csp->fsp", A, s) + NOISE * noise,
        instrument,
        stokes="QU",
        nside=NSIDE,
        ordering="NEST",
        noise_variance=NOISE**2,
    )


@pytest.mark.parametrize("patches", [{}, {"Synchrotron.beta_pl": 1, "Dust.beta_d": 1}])
def test_it_is_not_given_a_small_one(patches):
    """A step of one sigma changes -ln L by half, or by less: never by many."""
    observation = sky(1.0)
    result = distsep.separate(COMPONENTS, observation, patches=patches)
    values = np.atleast_1d(result.parameters["Synchrotron.beta_pl"])
    sigma = np.atleast_1d(result.sigma["Synchrotron.beta_pl"])
    inverse, fisher = result.hessian_inverse, result.fisher_inverse
    assert inverse is not None
    assert fisher is not None
    sandwich = inverse @ np.linalg.pinv(fisher) @ inverse
    index = [i for i, n in enumerate(result.names) if n.startswith("Synchrotron")]
    thin = sandwich[index, index] < 0.25 * inverse[index, index]
    assert thin.any()
    assert result.covariance is not None
    np.testing.assert_allclose(sigma[thin] ** 2, inverse[index, index][thin], rtol=1e-9)
    others = np.setdiff1d(index, np.array(index)[thin])
    np.testing.assert_allclose(
        result.covariance[others, others], sandwich[others, others], rtol=1e-6
    )
    assert any("hardly constrained" in w for w in result.warnings)
    if patches:
        return
    # The other parameter is at its own best wherever this one is held.
    held = distsep.separate(
        COMPONENTS, observation, fixed={"Synchrotron.beta_pl": float(values[0]) - 1.2}
    )
    assert held.neg_log_like - result.neg_log_like < 0.5
    assert sigma[0] > 1.0


def test_a_bright_sky_says_nothing_of_it():
    result = distsep.separate(COMPONENTS, sky(1000.0))
    assert not any("hardly constrained" in w for w in result.warnings)
    inverse, fisher = result.hessian_inverse, result.fisher_inverse
    assert inverse is not None
    assert fisher is not None
    np.testing.assert_allclose(
        result.covariance, inverse @ np.linalg.inv(fisher) @ inverse, rtol=1e-9
    )
