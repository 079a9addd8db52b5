"""`noise_true`: the noise bias of the profile likelihood, known and taken off."""

import dense
import numpy as np
import pytest
from test_pulls import KINDS, LAWS, NU, TRUTH, many_skies

import distsep

RATIO = np.array([6.0, 1, 1, 1, 1, 1, 4.0])  # of the true variance to the assumed
ASSUMED = 3.0


def observe(d, rng, ratio=RATIO, **noise):
    true = ASSUMED * np.sqrt(np.reshape(ratio, (7, -1, 1)))
    noise = noise or {"noise_variance": np.full((7, 1, 1), ASSUMED**2)}
    return distsep.Observation(
        d + true * rng.normal(size=d.shape),
        distsep.Instrument(NU),
        stokes="QU",
        nside=32,
        ordering="NEST",
        cell_ids=np.arange(d.shape[-1]),
        **noise,
    )


def value(x, d, ratio):
    """-ln L less its noise bias, one sample at a time; real or complex x."""
    A_x = dense.emission(NU, x[0], 20.0, x[1])
    P = np.eye(7) - A_x @ np.linalg.inv(A_x.T @ A_x) @ A_x.T
    total = 0.0
    for k in range(2):
        D = d[:, k] @ d[:, k].T / ASSUMED**2 - d.shape[-1] * np.diag(ratio[:, k])
        total = total + 0.5 * np.trace(P @ D)
    return total


def gradient(x, d, ratio):
    h = 1e-25
    return np.array([value(x + 1j * h * u, d, ratio).imag / h for u in np.eye(2)])


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize("noise", ["uniform", "dense"])
def test_the_optimum_is_that_of_the_corrected_likelihood(reduce, noise):
    """Q and U with ratios of their own."""
    ratio = np.stack([RATIO, RATIO[::-1]], 1)
    rng = np.random.default_rng(41)
    d, _ = many_skies(1, 150, rng, (20, 30, 300))
    dense_noise = {"inverse_noise": np.eye(7) / ASSUMED**2}
    obs = observe(d, rng, ratio, **(dense_noise if noise == "dense" else {}))
    result = distsep.separate(
        LAWS, obs, solver="newton", noise_true=ratio, reduce=reduce, tolerance=1e-6
    )
    assert result.converged
    x = np.array([float(result.parameters[k]) for k in KINDS])
    g, plain = (gradient(x, obs.d, r) for r in (ratio, np.zeros((7, 2))))
    H = result.hessian_inverse
    assert np.sqrt(g @ H @ g) < 1e-5
    assert np.sqrt(plain @ H @ plain) > 0.1  # it does something


def test_the_right_noise_needs_none():
    rng = np.random.default_rng(42)
    d, _ = many_skies(1, 150, rng, (20, 30, 300))
    obs = observe(d, rng)
    plain, same = (
        distsep.separate(LAWS, obs, solver="newton", noise_true=r)
        for r in (None, np.full(7, 2.5))
    )
    for name in KINDS:
        assert same.parameters[name] == pytest.approx(plain.parameters[name], rel=1e-9)
        assert same.sigma[name] == pytest.approx(plain.sigma[name], rel=1e-6)


@pytest.mark.slow
def test_over_many_skies_the_bias_is_gone():
    n, rng = 300, np.random.default_rng(43)
    d, sky = many_skies(n, 30, rng, (20, 30, 300))
    obs = observe(d, rng)
    off = []
    for noise_true in (None, RATIO):
        result = distsep.separate(
            LAWS,
            obs,
            patches=dict.fromkeys(KINDS, sky),
            solver="newton",
            noise_true=noise_true,
        )
        off.append([result.parameters[k] - TRUTH[k] for k in KINDS])
    off = np.array(off)  # (with or without, kind, sky)
    significance = off.mean(-1) / (off.std(-1) / np.sqrt(n))
    assert np.abs(significance[0]).max() > 6
    assert np.abs(significance[1]).max() < 3


def test_what_it_cannot_do_is_said():
    rng = np.random.default_rng(44)
    d, _ = many_skies(1, 20, rng, (20, 30, 300))
    own = {"noise_variance": rng.uniform(1, 2, (7, 2, 20))}
    with pytest.raises(ValueError, match="its own noise shape"):
        distsep.separate(LAWS, observe(d, rng, **own), noise_true=RATIO)
    for wrong in (RATIO[:3], -RATIO, 0 * RATIO, RATIO * np.inf, RATIO * np.nan, "a"):
        with pytest.raises(ValueError, match=r"`noise_true` .*shape \(7,\)"):
            distsep.separate(LAWS, observe(d, rng), noise_true=wrong)
    result = distsep.separate(LAWS, observe(d, rng), noise_true=RATIO, solver="newton")
    with pytest.raises(ValueError, match="Give the right noise"):
        result.sample()
