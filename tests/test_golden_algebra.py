"""The likelihood at given A against fgbuster's algebra: value to Fisher matrix."""

import dense
import numpy as np
import pytest
from conftest import shared_file
from problems import Samples, amplitudes, make_objective

from distsep.inference.fit import fit

HOW = {
    "none": "whitened",
    "full": "whitened",
    "full_px": "dense",
    "diag_px": "diagonal",
}
NPIX, NS, NF = 12, 2, 7


@pytest.fixture(scope="module")
def golden():
    with np.load(shared_file("golden", "algebra.npz")) as file:
        return dict(file)


def sky(golden, case, patch=None):
    """The 12 pixels x 2 Stokes as samples, pixels first."""
    invN = np.eye(NF) if case == "none" else golden[f"{case}__invN"]
    return Samples(
        golden["d"].reshape(-1, NF),
        np.broadcast_to(invN, (NPIX, NS, NF, NF)).reshape(-1, NF, NF),
        np.zeros((NPIX * NS, 3), int) if patch is None else patch,
        tuple(golden["nu"]),
        30.0,
    )


def log_likelihood(samples, value):
    """fgbuster's: what the model takes off 1/2 d^T N^-1 d."""
    return 0.5 * np.einsum("ni,nij,nj", samples.d, samples.invN, samples.d) - value


def require(found, expected, rtol=1e-9):
    np.testing.assert_allclose(
        found, expected, rtol=rtol, atol=1e-10 * np.abs(expected).max()
    )


@pytest.mark.parametrize("case", HOW)
def test_log_likelihood_and_its_derivatives(golden, case):
    samples = sky(golden, case)
    value, gradient = make_objective(samples, HOW[case]).value_gradient(golden["beta"])
    require(log_likelihood(samples, value), golden[f"{case}__logL"])
    require(-gradient, golden[f"{case}__logL_dB"])


@pytest.mark.parametrize("case", HOW)
def test_differences_of_the_log_likelihood(golden, case):
    """Between the optimum and elsewhere; what matters is much smaller than logL."""
    objective = make_objective(sky(golden, case), HOW[case])
    x = golden[f"{case}__fit__x"]
    here, there = (objective.value_gradient(y)[0] for y in (golden["beta"], x))
    expected = -golden[f"{case}__fit__fun"] - golden[f"{case}__logL"]
    np.testing.assert_allclose(here - there, expected, rtol=1e-8)


@pytest.mark.parametrize("case", HOW)
def test_weights_amplitudes_and_their_covariance(golden, case):
    samples, beta = sky(golden, case), golden["beta"]
    s, _, covariance = amplitudes(samples, HOW[case], beta)
    require(s, golden[f"{case}__Wd"].reshape(-1, 3))
    invAtNA = np.broadcast_to(golden[f"{case}__invAtNA"], (NPIX, NS, 3, 3))
    require(covariance, invAtNA.reshape(-1, 3, 3))
    W = np.broadcast_to(golden[f"{case}__W"], (NPIX, NS, 3, NF)).reshape(-1, 3, NF)
    for f, unit in enumerate(np.eye(NF)):
        data = np.broadcast_to(unit, samples.d.shape)
        require(amplitudes(samples._replace(d=data), HOW[case], beta)[0], W[..., f])


@pytest.mark.parametrize("case", HOW)
def test_fisher_matrix(golden, case):
    objective = make_objective(sky(golden, case), HOW[case])
    for x, expected in (
        (golden["beta"], golden[f"{case}__fisher"]),
        (golden[f"{case}__fit__x"], golden[f"{case}__fit__Sigma_inv"]),
    ):
        require(objective.matrix(objective.point(x), False).toarray(), expected)


@pytest.mark.parametrize("case", HOW)
def test_the_fit(golden, case):
    samples = sky(golden, case)
    x0 = golden[f"{case}__fit__x0"]
    start = dict(
        zip(("Dust.beta_d", "Dust.temp", "Synchrotron.beta_pl"), x0, strict=True)
    )
    objective = make_objective(samples, HOW[case], start=start)
    found = fit(objective, solver="newton", tolerance=1e-3, max_steps=100)
    assert found.converged.all()
    off = found.x - golden[f"{case}__fit__x"]
    assert np.sqrt(off @ golden[f"{case}__fit__Sigma_inv"] @ off) < 1e-4
    s, _, covariance = amplitudes(samples, HOW[case], found.x)
    sigma = np.sqrt(np.einsum("ncc->nc", covariance))
    assert (np.abs(s - golden[f"{case}__fit__s"].reshape(-1, 3)) < 1e-3 * sigma).all()


def test_a_masked_pixel_counts_for_nothing(golden):
    samples = sky(golden, "full_px")
    dead = np.repeat(np.arange(NPIX) == 3, NS)
    samples = samples._replace(invN=np.where(dead[:, None, None], 0, samples.invN))
    value, gradient = make_objective(samples, "dense").value_gradient(golden["beta"])
    require(log_likelihood(samples, value), golden["maskpx3__logL"])
    require(-gradient, golden["maskpx3__logL_dB"])
    s, _, _ = amplitudes(samples, "dense", golden["beta"])
    require(s, golden["maskpx3__Wd"].reshape(-1, 3))


def test_one_value_per_region(golden):
    """Four regions of beta_d, two of beta_pl, one temperature."""
    patch = np.stack(
        [golden["reg__ids_d"], np.zeros(NPIX, int), golden["reg__ids_s"]], 1
    )
    samples = sky(golden, "full_px", np.repeat(patch, NS, axis=0))
    x = np.concatenate([golden["reg__beta_d"], [20.0], golden["reg__beta_pl"]])
    A = np.repeat(golden["reg__A"][:, 0], NS, axis=0)
    np.testing.assert_allclose(samples.mix(x), A, rtol=1e-12)
    value, gradient = make_objective(samples, "dense").value_gradient(x)
    require(log_likelihood(samples, value), golden["reg__logL"])
    require(-gradient[[0, 1, 2, 3, 5, 6]], golden["reg__logL_dB"])


def test_the_oracle_of_these_tests_is_fgbusters_likelihood_too(golden):
    for case in HOW:
        samples = sky(golden, case)
        arguments = samples.mix, golden["beta"], samples.d, samples.invN
        value = log_likelihood(samples, dense.value(*arguments))
        np.testing.assert_allclose(value, golden[f"{case}__logL"], rtol=1e-12)
        require(-dense.gradient(*arguments), golden[f"{case}__logL_dB"], rtol=1e-11)
        require(dense.fisher(*arguments), golden[f"{case}__fisher"], rtol=1e-11)
