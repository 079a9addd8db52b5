"""NUTS on the reduced data: it agrees with H^-1 where it should."""

import builtins

import dense
import numpy as np
import pytest

import distsep
from distsep.inference.sampling import _apart, _stuck

NU = np.array([40.0, 60.0, 90.0, 120.0, 160.0, 240.0, 350.0])
LAWS = [distsep.CMB(), distsep.Dust(150.0, temp=20.0), distsep.Synchrotron(20.0)]
INSTRUMENT = distsep.Instrument(NU)


def fitted(variance=None, **more):
    rng = np.random.default_rng(31)
    s = rng.normal(size=(3, 2, 192)) * np.array([20.0, 30, 300])[:, None, None]
    d = np.einsum("fc,csp->fsp", dense.emission(NU, 1.54, 20.0, -3.0), s)
    d[1] += 2.0
    obs = distsep.Observation(
        d + 0.5 * rng.normal(size=d.shape),
        INSTRUMENT,
        stokes="QU",
        nside=4,
        noise_variance=np.full((7, 1, 1), 0.25) if variance is None else variance,
    )
    return distsep.separate(
        LAWS, obs, solver="newton", global_terms=[distsep.Monopole(["60"])], **more
    )


@pytest.fixture(scope="module")
def sampled():
    pytest.importorskip("blackjax", reason="needs the extra `sampling`")
    result = fitted(reduce=False)  # reduced when it is asked for samples
    return result, result.sample(draws=600, chains=4, seed=1)


def test_samples_agree_with_the_hessian(sampled):
    result, samples = sampled
    assert samples.names == result.names
    assert samples.values.shape == (4, 600, 4)
    assert samples.divergent == 0
    assert (samples.ess > 500).all()
    np.testing.assert_allclose(samples.r_hat, 1, atol=0.02)
    best = [result.parameters["Dust.beta_d"], result.parameters["Synchrotron.beta_pl"]]
    best += [value for value, _ in result.global_terms.values()]
    sigma = np.sqrt(np.diag(result.hessian_inverse))
    error = 1 / np.sqrt(samples.ess)
    assert (np.abs(samples.mean - best) < 4 * sigma * error).all()
    # A variance has the relative error sqrt(2 / N); those of |x| and x^2 mix less.
    assert (np.abs(samples.std / sigma - 1) < 4 * error).all()
    unit = np.outer(sigma, sigma)
    off = samples.covariance / unit - result.hessian_inverse / unit
    assert np.abs(off).max() < 0.15


def test_it_says_what_it_sampled(sampled):
    words = str(sampled[1])
    assert "profile likelihood" in words
    assert "R-hat" in words
    assert "Synchrotron.beta_pl" in words


def test_a_corner_plot(sampled, tmp_path):
    from matplotlib.image import imread

    from distsep.report import corner_plot

    path = corner_plot(
        sampled[1], tmp_path / "corner.png", {"Synchrotron.beta_pl": -3.0}
    )
    assert imread(path).shape[0] > 500


def test_chains_that_do_not_agree_are_named(sampled):
    assert sampled[1].warnings == ()
    (words,) = _apart(("a", "b"), np.array([1.01, 1.2]))
    assert "do not agree on b (R-hat 1.2)" in words


@pytest.mark.slow
def test_a_chain_that_hardly_moves_is_said():
    """More draws would not help it."""
    values = np.random.default_rng(1).normal(size=(4, 100, 2))
    assert _stuck(values) == ()
    values[2, 20:60] = values[2, 20]
    (words,) = _stuck(values)
    assert "stayed where it was in 39% of its draws" in words


def test_priors_bounds_and_seeds_count(sampled):
    plain, samples = sampled
    name = "Synchrotron.beta_pl"
    best, sigma = float(plain.parameters[name]), float(plain.sigma[name])
    held = fitted(
        priors={"Dust.beta_d": (1.54, 1e-5)}, bounds={name: (-5.0, best + 0.5 * sigma)}
    )
    narrow = held.sample(draws=300, chains=2, seed=3)
    k = narrow.names.index(name)
    assert narrow.values[..., k].max() <= best + 0.5 * sigma
    d = narrow.names.index("Dust.beta_d")
    assert narrow.std[d] == pytest.approx(1e-5, rel=0.2)
    again = held.sample(draws=300, chains=2, seed=3)
    np.testing.assert_array_equal(again.values, narrow.values)


def test_what_cannot_be_sampled_is_said(sampled, tmp_path):
    own = fitted(np.random.default_rng(1).uniform(0.2, 0.3, (7, 2, 192)))
    with pytest.raises(ValueError, match="its own noise shape"):
        own.sample()
    for wrong in ({"draws": 0}, {"draws": 2.5}, {"chains": 1}, {"seed": "a"}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name}=.* should be a whole number"):
            sampled[0].sampler(**wrong)  # as asked for without types
    with pytest.raises(ValueError, match="read or copied"):
        own.replace(sampler=None).sample()


def test_without_blackjax_the_extra_is_named(monkeypatch):
    result = fitted()
    real = builtins.__import__

    def absent(name, *rest, **more):
        if name.startswith("blackjax"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"distsep\[sampling\]"):
        result.sample()
