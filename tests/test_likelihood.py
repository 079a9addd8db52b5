"""One pass: value, gradient, Fisher matrix and Hessian against dense matrices."""

import dense
import numpy as np
import pytest
from problems import (
    TRUTH,
    amplitudes,
    draw,
    lay_out,
    make_model,
    make_objective,
    program,
)

from distsep.inference.likelihood import block_curvature, block_value_gradient

NOISES = [  # how the noise was drawn, how the samples are laid out
    ("unit", "whitened"),
    ("dense", "whitened"),
    ("pixel", "diagonal"),
    ("dense_pixel", "dense"),
]
each_noise = pytest.mark.parametrize(("kind", "how"), NOISES)
OFF = np.array([0.03, -0.4, 0.05])  # a few sigma
PATCHES = np.array([[p % 2, 0, p % 3] for p in range(30)])  # five samples a pool
X = np.repeat(TRUTH + OFF, PATCHES.max(0) + 1)


@pytest.fixture(scope="module", params=NOISES, ids="-".join)
def case(request):
    kind, how = request.param
    samples = draw(np.random.default_rng(1), PATCHES, kind)
    return samples, make_objective(samples, how)


def rows(kernel, samples, how, spare=0):
    """Sums of every tile at X."""
    block, pools, _ = lay_out(samples, how, spare)
    tables = make_model(samples, how, pools).tables(X, True)
    return np.asarray(program(kernel)(tables, block))


def require_value_gradient(objective, samples):
    value, gradient = objective.value_gradient(X)
    arguments = samples.mix, X, samples.d, samples.invN
    np.testing.assert_allclose(value, dense.value(*arguments), rtol=1e-10)
    expected = dense.gradient(*arguments)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-8 * scale)


def test_value_and_gradient(case):
    samples, objective = case
    require_value_gradient(objective, samples)


def test_the_two_passes_agree(case):
    _, objective = case
    value, gradient = objective.value_gradient(X)
    point = objective.point(X)
    np.testing.assert_allclose(objective.value(point).sum(), value, rtol=1e-12)
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(
        objective.gradient(point), gradient, rtol=1e-10, atol=1e-11 * scale
    )


def test_fisher_and_hessian(case):
    samples, objective = case
    point = objective.point(X)
    fisher = dense.fisher(samples.mix, X, samples.d, samples.invN)
    sigma = np.diag(fisher) ** -0.5
    unit = np.outer(sigma, sigma)
    found = objective.matrix(point, False).toarray()
    np.testing.assert_allclose(found * unit, fisher * unit, atol=1e-9)
    hessian = dense.hessian(samples.mix, X, samples.d, samples.invN, 0.01 * sigma)
    found = objective.matrix(point, True).toarray()
    np.testing.assert_allclose(found * unit, hessian * unit, rtol=0, atol=1e-6)
    # The residuals count: the two differ by far more than the test allows.
    assert np.abs((hessian - fisher) * unit).max() > 1e-3


@each_noise
def test_amplitudes_their_covariance_and_chi2(kind, how):
    samples = draw(np.random.default_rng(1), PATCHES, kind)
    found = amplitudes(samples, how, X)
    s, covariance, chi2 = dense.solve(samples.mix(X), samples.d, samples.invN)
    for mine, expected in zip(found, (s, chi2, covariance), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-7, atol=1e-9)


@each_noise
def test_what_uncertain_parameters_add_to_the_amplitudes(kind, how):
    """J C J^T, J = ds/dx; the covariance C is that of the kinds, in every patch."""
    samples = draw(np.random.default_rng(1), PATCHES, kind)
    root = np.random.default_rng(2).normal(size=(3, 3)) * [[0.01], [0.1], [0.02]]
    known, unsure = (amplitudes(samples, how, X, C)[2] for C in (None, root @ root.T))
    J = []
    for one in np.eye(3):  # all patches of a kind together
        shift = 1j * dense.STEP * np.repeat(one, PATCHES.max(0) + 1)
        A = samples.mix(X + shift)
        J.append(dense.solve(A, samples.d, samples.invN)[0].imag / dense.STEP)
    expected = np.einsum("knc,kr,mr,mne->nce", J, root, root, J)
    scale = np.sqrt(np.einsum("ncc->nc", expected))
    scale = scale[:, :, None] * scale[:, None, :]
    np.testing.assert_allclose((unsure - known) / scale, expected / scale, atol=1e-6)


@each_noise
def test_value_and_gradient_vanish_at_the_truth_without_noise(kind, how):
    samples = draw(np.random.default_rng(2), PATCHES, kind)
    truth = np.repeat(TRUTH, PATCHES.max(0) + 1)
    s = np.random.default_rng(3).normal(size=(len(PATCHES), 3)) * 30
    clean = samples._replace(d=np.einsum("nfc,nc->nf", samples.mix(truth), s))
    value, gradient = make_objective(clean, how).value_gradient(truth)
    sigma = np.diag(dense.fisher(samples.mix, truth, clean.d, samples.invN)) ** -0.5
    assert 0 <= value < 1e-20 * (clean.d**2).sum()
    assert np.abs(gradient * sigma).max() < 1e-9


@each_noise
def test_padding_changes_nothing(kind, how):
    samples = draw(np.random.default_rng(1), PATCHES, kind)
    tight = rows(block_curvature, samples, how)
    loose = rows(block_curvature, samples, how, spare=3)
    assert (loose[len(tight) :] == 0).all()  # tiles that hold no sample
    scale = np.abs(tight).max(0)
    np.testing.assert_allclose(
        loose[: len(tight)] / scale, tight / scale, rtol=0, atol=1e-11
    )


@pytest.mark.parametrize(
    ("kind", "how"),
    [("unit", "whitened"), ("pixel", "diagonal"), ("dense_pixel", "dense")],
)
def test_sums_of_the_whole_are_sums_of_the_parts(kind, how):
    """The property that ranks rely on, with no ranks."""
    samples = draw(np.random.default_rng(4), PATCHES, kind)

    def of(cut):
        return rows(block_curvature, samples.take(cut), how)

    whole, total = of(slice(None)), of(slice(15)) + of(slice(15, None))
    scale = np.abs(whole).max(0)
    np.testing.assert_allclose(whole / scale, total / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernel", [block_value_gradient, block_curvature])
@pytest.mark.parametrize("how", ["diagonal", "dense"])
def test_samples_without_weight_add_exactly_nothing(kernel, how):
    samples = draw(np.random.default_rng(5), PATCHES, "pixel")
    dead = np.arange(len(PATCHES)) % 7 == 0
    samples = samples._replace(invN=np.where(dead[:, None, None], 0, samples.invN))
    erased = samples._replace(d=np.where(dead[:, None], 0, samples.d))
    found = rows(kernel, samples, how)
    np.testing.assert_array_equal(found, rows(kernel, erased, how))
    kept = samples.take(~dead)
    expected = dense.value(kept.mix, X, kept.d, kept.invN)
    np.testing.assert_allclose(found[:, 0].sum(), expected, rtol=1e-10)


@pytest.mark.parametrize("how", ["diagonal", "dense"])
def test_missing_bands_leave_the_other_bands(how):
    """Any four of the seven bands fix three amplitudes: the dense answer."""
    rng = np.random.default_rng(6)
    samples = draw(rng, PATCHES, "pixel" if how == "diagonal" else "dense_pixel")
    invN = np.array(samples.invN)
    for p in range(len(PATCHES)):
        lost = rng.choice(7, rng.integers(0, 4), replace=False)
        invN[p, lost] = 0
        invN[p, :, lost] = 0
    samples = samples._replace(invN=invN)
    require_value_gradient(make_objective(samples, how), samples)


@pytest.mark.parametrize("how", ["whitened", "diagonal"])
def test_the_residuals_survive_a_signal_of_1e8_sigma(how):
    """1/2 d^T P d would lose every digit that matters here."""
    rng = np.random.default_rng(7)
    quiet = draw(rng, PATCHES, "unit")
    truth = np.repeat(TRUTH, PATCHES.max(0) + 1)
    A = quiet.mix(truth)
    noise = rng.normal(size=quiet.d.shape)
    loud = np.einsum("nfc,nc->nf", A, 1e8 * rng.normal(size=(len(A), 3)))
    value, _ = make_objective(quiet._replace(d=noise + loud), how).value_gradient(truth)
    expected = dense.value(quiet.mix, truth, noise, quiet.invN)
    np.testing.assert_allclose(value, expected, rtol=1e-7)
