"""The fit: it gets there from far, says when it does not, and patches stay apart."""

import dense
import numpy as np
import pytest
from problems import TRUTH, draw, make_objective

from distsep.inference.fit import fit, setting_mistakes
from distsep.inference.sky_start import sky_start
from distsep.inference.uncertainty import uncertainty

N = 30
ONE = np.zeros((N, 3), int)
FOUR = np.repeat(np.arange(4), N)[:, None] * [1, 1, 1]  # four skies, nothing shared
BRIGHT = 0.01  # of the noise: 350 sigma must stay where the laws make sense


def run(objective, solver="newton", tolerance=1e-3, max_steps=1000):
    return fit(objective, solver=solver, tolerance=tolerance, max_steps=max_steps)


def objective_at(samples, x, **more):
    """With x as start of the three kinds."""
    start = dict(
        zip(("Dust.beta_d", "Dust.temp", "Synchrotron.beta_pl"), x, strict=True)
    )
    return make_objective(samples, "diagonal", start=start, **more)


def distance(x, optimum, fisher):
    """Mahalanobis, in sigma."""
    return np.sqrt((x - optimum) @ fisher @ (x - optimum))


@pytest.fixture(scope="module")
def bright():
    """A bright sky, its optimum and the Fisher matrix there."""
    samples = draw(np.random.default_rng(50), ONE, "pixel", depth=BRIGHT)
    optimum = run(objective_at(samples, TRUTH)).x
    return samples, optimum, dense.fisher(samples.mix, optimum, samples.d, samples.invN)


def test_the_optimum_is_that_of_the_dense_likelihood(bright):
    samples, x, fisher = bright
    g = dense.gradient(samples.mix, x, samples.d, samples.invN)
    H = dense.hessian(
        samples.mix, x, samples.d, samples.invN, 0.01 * np.diag(fisher) ** -0.5
    )
    assert np.sqrt(g @ np.linalg.solve(H, g)) < 1e-4
    assert distance(x, TRUTH, fisher) < 5  # the truth is within its errors


def directions():
    """Along every principal axis, both ways, and ten others."""
    axes = np.vstack([np.eye(3), -np.eye(3)])
    others = np.random.default_rng(51).normal(size=(10, 3))
    return np.vstack([axes, others / np.linalg.norm(others, axis=1)[:, None]])


@pytest.mark.parametrize("along", range(16))
def test_starts_350_sigma_away_in_every_direction(bright, along):
    samples, optimum, fisher = bright
    values, vectors = np.linalg.eigh(fisher)
    start = optimum + 350 * vectors @ (directions()[along] / np.sqrt(values))
    assert distance(start, optimum, fisher) == pytest.approx(350)
    solver = ("adam", "lbfgs", "newton")[along % 3]
    found = run(objective_at(samples, start), solver)
    assert found.converged.all()
    assert distance(found.x, optimum, fisher) < 1e-3


@pytest.mark.parametrize("off", [-0.5, 0.5])
def test_a_start_with_beta_d_off_by_a_half(bright, off):
    samples, optimum, fisher = bright
    found = run(objective_at(samples, optimum + [off, 0, 0]), "adam")
    assert found.converged.all()
    assert distance(found.x, optimum, fisher) < 1e-3


def test_a_step_to_where_the_laws_overflow_is_not_taken(bright):
    """From 0.2 K the first steps lead to NaN: the fit goes on from where it was."""
    samples, _, _ = bright
    found = run(objective_at(samples, TRUTH + [0.5, -19.8, 0]), max_steps=50)
    assert np.isfinite(found.x).all()
    assert np.isfinite(found.local.distance).all()


def test_a_start_without_a_finite_likelihood_is_refused_by_name(bright):
    objective = objective_at(bright[0], TRUTH * [1, 0, 1])
    with pytest.raises(FloatingPointError, match=r"Dust\.temp=0,.*bounds"):
        run(objective)


@pytest.mark.parametrize("solver", ["adam", "lbfgs", "newton"])
def test_too_few_steps_is_not_converged(bright, solver):
    samples, optimum, fisher = bright
    found = run(objective_at(samples, optimum + [0.3, 0, 0]), solver, max_steps=3)
    assert not found.converged.any()
    assert sum(found.passes) <= 3 + 1
    assert found.local.distance[0] > 1e-3


def test_the_distance_it_reports_is_the_distance(bright):
    samples, optimum, fisher = bright
    found = run(objective_at(samples, optimum + [0.1, 1, 0.1]), max_steps=4)
    here = distance(found.x, optimum, fisher)
    assert found.local.distance[0] == pytest.approx(here, rel=0.05)


def test_the_solvers_agree():
    samples = draw(np.random.default_rng(52), ONE, "pixel", depth=0.3)
    found = [run(objective_at(samples, TRUTH), s) for s in ("adam", "lbfgs", "newton")]
    fisher = dense.fisher(samples.mix, found[0].x, samples.d, samples.invN)
    assert all(f.converged.all() for f in found)
    assert distance(found[0].x, found[2].x, fisher) < 1e-3
    assert distance(found[1].x, found[2].x, fisher) < 1e-3


@pytest.mark.parametrize("solver", ["adam", "lbfgs", "newton"])
def test_a_bound_holds_and_is_not_called_converged(solver):
    samples = draw(np.random.default_rng(53), ONE, "pixel", depth=0.3)
    bounds = {"Dust.temp": (10.0, 19.0)}  # the truth is 20
    x = TRUTH + [0, -2, 0]
    found = run(objective_at(samples, x, bounds=bounds), solver)
    assert found.x[1] == 19.0
    np.testing.assert_array_equal(found.local.held, [False, True, False])
    assert not found.converged.any()
    # The others are at their optimum on the bound.
    free = [0, 2]
    g = dense.gradient(samples.mix, found.x, samples.d, samples.invN)
    F = dense.fisher(samples.mix, found.x, samples.d, samples.invN)
    assert g[1] < 0  # it would go on
    assert np.sqrt(g[free] @ np.linalg.solve(F[np.ix_(free, free)], g[free])) < 1e-3


def test_a_prior_adds_its_precision_and_pulls():
    samples = draw(np.random.default_rng(54), ONE, "pixel", depth=0.3)
    arguments = samples.d, samples.invN
    free = run(objective_at(samples, TRUTH))
    sigma = np.linalg.inv(dense.fisher(samples.mix, free.x, *arguments))[1, 1] ** 0.5
    mean, std = free.x[1] + 5 * sigma, 0.5 * sigma
    objective = objective_at(samples, TRUTH, priors={"Dust.temp": (mean, std)})
    found = run(objective)
    assert found.converged.all()
    g = dense.gradient(samples.mix, found.x, *arguments)
    F = dense.fisher(samples.mix, found.x, *arguments)
    H = dense.hessian(samples.mix, found.x, *arguments, 0.01 * np.diag(F) ** -0.5)
    precision = np.diag([0, std**-2.0, 0])
    g += precision @ (found.x - mean)
    assert np.sqrt(g @ np.linalg.solve(H + precision, g)) < 1e-4
    errors = uncertainty(objective, found.local)
    np.testing.assert_allclose(
        errors.hessian_inverse, np.linalg.inv(H + precision), rtol=1e-5
    )
    np.testing.assert_allclose(
        errors.fisher_inverse, np.linalg.inv(F + precision), rtol=1e-6
    )


@pytest.fixture(scope="module")
def patches():
    truth = np.concatenate(
        [TRUTH[0] + [-0.1, 0, 0.1, 0.2], [20.0, 18, 21, 22], [-3.0, -3.1, -2.9, -3.2]]
    )
    return draw(np.random.default_rng(55), FOUR, "pixel", depth=0.3, truth=truth)


def alone(samples, p):
    """The samples of one patch as a sky of their own."""
    mine = samples.patch[:, 0] == p
    return samples.take(mine)._replace(patch=ONE)


@pytest.mark.parametrize("solver", ["newton", "adam"])
def test_a_joint_fit_of_equal_patches_is_that_of_each_alone(patches, solver):
    joint = run(objective_at(patches, TRUTH), solver)
    assert joint.converged.shape == (4,)
    assert joint.converged.all()
    for p in range(4):
        sky = alone(patches, p)
        single = run(objective_at(sky, TRUTH), solver)
        fisher = dense.fisher(sky.mix, single.x, sky.d, sky.invN)
        reach = 1e-6 if solver == "newton" else 1e-4  # Adam stops within 1e-5 sigma
        assert distance(joint.x.reshape(3, 4)[:, p], single.x, fisher) < reach


def test_the_distance_is_the_largest_of_any_patch_never_their_sum(patches):
    x = run(objective_at(patches, TRUTH)).x
    off = x.reshape(3, 4) + np.array([0.5, 0, 0])[:, None] * [0, 0, 1, 0]
    found = run(objective_at(patches, off), max_steps=1)
    np.testing.assert_array_equal(found.converged, [True, True, False, True])


def common(samples, x, **more):
    """Where patches that start at x are sent, and the number of passes."""
    objective = objective_at(samples, x, **more)
    return sky_start(objective, objective.parameters.start, 40, lambda *_: None)


FAR = TRUTH + [-0.3, -6.0, 0.3]


def test_patches_start_at_the_one_value_that_suits_the_whole_sky(patches):
    """Within a sigma of what the fit of a single patch finds."""
    whole = patches._replace(patch=np.zeros_like(patches.patch))
    single = run(objective_at(whole, TRUTH)).x
    fisher = dense.fisher(whole.mix, single, whole.d, whole.invN)
    point, passes = common(patches, FAR)
    x = point.x.reshape(3, 4)
    assert (x == x[:, :1]).all()
    assert distance(x[:, 0], single, fisher) < 1
    assert 2 < passes < 15
    own = np.broadcast_to(FAR[:, None], (3, 4)) * [1, 1, 1, 1.001]
    np.testing.assert_array_equal(common(patches, own)[0].x, own.ravel())
    assert common(whole, FAR)[1] == 1  # nothing to do


def test_the_one_value_is_within_the_bounds_of_every_patch(patches):
    bounds = {"Dust.beta_d": (np.array([1.0, 1.0, 1.0, 1.6]), 2.0)}
    start = [1.7, *FAR[1:]]
    x = common(patches, start, bounds=bounds)[0].x.reshape(3, 4)
    assert x[0, 3] >= 1.6
    assert run(objective_at(patches, start, bounds=bounds)).converged[:3].all()


def test_a_patch_with_another_sky_does_not_draw_the_others_away(patches):
    bad = patches.patch[:, 0] == 1
    odd = patches._replace(d=np.where(bad[:, None], 1e4 * patches.d[::-1], patches.d))
    point, _ = common(odd, TRUTH)
    x = point.x.reshape(3, 4)
    for p in (0, 2, 3):
        sky = alone(patches, p)
        at = [dense.value(sky.mix, y, sky.d, sky.invN) for y in (x[:, p], TRUTH)]
        assert at[0] <= at[1] * (1 + 1e-12)


def test_faint_patches_end_alike_wherever_they_start():
    """Far away, each for itself may end in another hollow."""
    ids = np.repeat(np.arange(60), 8)[:, None] * [1, 1, 1]
    samples = draw(np.random.default_rng(57), ids, depth=20.0)
    more = {
        "bounds": {"Dust.beta_d": (0.0, 4.0), "Synchrotron.beta_pl": (-5.0, -1.0)},
        "priors": {"Dust.temp": (20.0, 2.0)},
    }
    near, far = (run(objective_at(samples, x, **more)) for x in (TRUTH, FAR))
    np.testing.assert_array_equal(near.converged, far.converged)
    assert near.converged.sum() == 58  # the two are at a bound
    np.testing.assert_allclose(near.x, far.x, atol=1e-6)


SPOILED = {
    "no weight": lambda s, bad: s._replace(
        invN=np.where(bad[:, None, None], 0, s.invN)
    ),
    "only noise": lambda s, bad: s._replace(
        d=np.where(bad[:, None], np.random.default_rng(56).normal(size=s.d.shape), s.d)
    ),
    "another sky": lambda s, bad: s._replace(d=np.where(bad[:, None], -1e4, s.d)),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_patch_that_fails_harms_no_other(patches, how):
    bad = patches.patch[:, 0] == 1
    bounds = {
        "Dust.beta_d": (0.0, 4.0),
        "Dust.temp": (5, 60),
        "Synchrotron.beta_pl": (-6, 0),
    }
    good = run(objective_at(patches, TRUTH, bounds=bounds))
    objective = objective_at(SPOILED[how](patches, bad), TRUTH, bounds=bounds)
    found = run(objective)
    rest = [0, 2, 3]
    assert found.converged[rest].all()
    if how == "no weight":
        assert not found.converged[1]
        assert found.local.held.reshape(3, 4)[:, 1].all()
    errors = uncertainty(objective, found.local)
    for p in rest:
        sky = alone(patches, p)
        mine, other = (f.x.reshape(3, 4)[:, p] for f in (found, good))
        fisher = dense.fisher(sky.mix, other, sky.d, sky.invN)
        assert distance(mine, other, fisher) < 1e-6
        at = np.arange(3) * 4 + p
        np.testing.assert_allclose(
            errors.fisher_inverse[np.ix_(at, at)], np.linalg.inv(fisher), rtol=1e-5
        )


def test_errors_are_the_sandwich_of_hessian_and_fisher():
    """At low signal to noise the three differ, and all are those of the formulas."""
    samples = draw(np.random.default_rng(57), ONE, "pixel", depth=8.0)
    objective = objective_at(samples, TRUTH, priors={"Dust.temp": (20.0, 1.0)})
    found = run(objective)
    errors = uncertainty(objective, found.local)
    x, arguments = found.x, (samples.d, samples.invN)
    precision = np.diag([0, 1.0, 0])
    F = dense.fisher(samples.mix, x, *arguments)
    H = dense.hessian(samples.mix, x, *arguments, 1e-3 * np.diag(F) ** -0.5)
    Finv, Hinv = np.linalg.inv(F + precision), np.linalg.inv(H + precision)
    C = Hinv @ (F + precision) @ Hinv
    for mine, expected in (
        (errors.fisher_inverse, Finv),
        (errors.hessian_inverse, Hinv),
        (errors.covariance, C),
    ):
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        np.testing.assert_allclose(mine / scale, expected / scale, rtol=0, atol=1e-5)
    np.testing.assert_allclose(errors.sigma, np.sqrt(np.diag(C)), rtol=1e-5)
    np.testing.assert_allclose(errors.sigma_hessian, np.sqrt(np.diag(Hinv)), rtol=1e-5)
    assert np.abs(np.diag(Hinv) / np.diag(Finv) - 1).max() > 0.02


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"solver": "bfgs"}, "`solver` should be one of ('adam', 'lbfgs', 'newton')"),
        ({"tolerance": 0.0}, "`tolerance` should be positive"),
        ({"max_steps": 0}, "`max_steps` should be a whole number, at least 1"),
        ({"reduce": "yes"}, "`reduce` should be True, False or None, got 'yes'"),
        ({"reduce": np.ones(2)}, "`reduce` should be True, False or None"),
    ],
)
def test_settings_that_are_none_are_said(wrong, words):
    good = {"solver": "adam", "tolerance": 1e-3, "max_steps": 10}
    assert setting_mistakes(**good) == []
    (line,) = setting_mistakes(**{**good, **wrong})
    assert line.startswith(words)
