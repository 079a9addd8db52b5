"""Requests that are degenerate or unphysical are named; nothing returns 1e16."""

import dense
import numpy as np
import pytest

import distsep
from distsep.data.samples import _whitener

NU = np.array([40.0, 60.0, 90.0, 120.0, 160.0, 240.0, 350.0])
NSIDE, NPIX = 2, 48
LAWS = [distsep.CMB(), distsep.Dust(150.0, temp=20.0), distsep.Synchrotron(20.0)]
DEPTH = 0.5


def observation(laws=3, extra=0.0, seed=1, depth=DEPTH, **more):
    rng = np.random.default_rng(seed)
    A = dense.emission(NU, 1.54, 20.0, -3.0)[:, :laws]
    s = rng.normal(size=(laws, 2, NPIX)) * np.array([20, 30, 300])[:laws, None, None]
    d = np.einsum("fc,csp->fsp", A, s) + extra
    d += depth * rng.normal(size=d.shape)
    return distsep.Observation(
        d,
        distsep.Instrument(NU),
        stokes="QU",
        nside=NSIDE,
        noise_variance=np.full((len(NU), 1, 1), depth**2),
        **more,
    )


def fit(laws=LAWS, obs=None, **more):
    obs = obs or observation(len(laws))
    return distsep.separate(laws, obs, solver="newton", **more)


def all_small(result):
    """Every number of a result is finite and of the size of the data."""
    assert np.nanmax(np.abs(result.amplitudes)) < 1e5
    values = [v for v, _ in result.global_terms.values()]
    assert np.isfinite(values).all()
    assert np.abs(values).max(initial=0) < 1e5


def test_two_components_of_one_law_are_named():
    twin = distsep.Dust(150.0, temp=20.0, beta_d=1.54, name="Twin")
    laws = [distsep.CMB(), distsep.Dust(353.0, temp=20.0, beta_d=1.54), twin]
    with pytest.raises(ValueError, match=r"Dust and Twin have the same emission law"):
        fit(laws)


def test_two_components_that_start_alike_are_named():
    """Their indices are free, but at one value the amplitudes are degenerate."""
    twin = distsep.Dust(150.0, temp=20.0, name="Twin")
    with pytest.raises(ValueError, match=r"Dust and Twin .*start them apart"):
        fit([*LAWS, twin], observation())


def test_a_law_that_is_a_sum_of_others_is_named():
    both = distsep.Component("1 + (nu/100)**2", name="Both", unit="K_CMB")
    square = distsep.Component("(nu/100)**2", name="Square", unit="K_CMB")
    with pytest.raises(ValueError, match="CMB and Both and Square have the same"):
        fit([distsep.CMB(), both, square])


def test_more_components_than_bands():
    laws = [
        *LAWS,
        *(
            distsep.Component(f"(nu/100)**{n}", name=f"X{n}", unit="K_CMB")
            for n in range(1, 7)
        ),
    ]
    with pytest.raises(ValueError, match="no pixel has the 9 bands that 9 amplitudes"):
        fit(laws, observation())


@pytest.mark.parametrize("kind", ["calibration", "angle"])
def test_all_bands_free_without_reference(kind):
    bands = [f"{nu:g}" for nu in NU]
    with pytest.raises(ValueError, match=f"`{kind}`: all 7 bands are free.*reference"):
        fit(**{kind: bands})


@pytest.mark.parametrize("noise", ["uniform", "pixel"])
def test_a_pixel_whose_q_has_too_few_bands_is_masked_with_angles(noise):
    """Its U has more than enough, but tells nothing of the amplitudes of Q."""
    whole = observation()
    d = np.array(whole.d)
    d[2:, 0, 5] = np.nan
    cells = np.arange(NPIX)
    variance = np.full((len(NU), 1, NPIX if noise == "pixel" else 1), DEPTH**2)

    def result(kept):
        obs = distsep.Observation(
            d[..., kept],
            distsep.Instrument(NU),
            stokes="QU",
            nside=NSIDE,
            ordering="NEST",
            cell_ids=cells[kept],
            noise_variance=variance if noise == "uniform" else variance[..., kept],
        )
        return fit(obs=obs, angle=["90"])

    found, other = result(cells >= 0), result(cells != 5)
    assert np.isnan(found.amplitudes[..., 5]).all()
    assert found.converged
    assert found.dof == other.dof
    for name in other.parameters:
        off = found.parameters[name] - other.parameters[name]
        assert abs(off) < 1e-6 * other.sigma[name]


@pytest.mark.parametrize("noise", ["uniform", "pixel"])
def test_a_pixel_without_the_band_of_a_line_is_masked(noise):
    """Never an amplitude of 0 with an error of 1 for what was not measured."""
    rng = np.random.default_rng(12)
    edges = [np.linspace(0.93 * nu, 1.07 * nu, 15) for nu in NU]
    instrument = distsep.Instrument(
        NU,
        bandpass=[(x, np.ones(15)) for x in edges],
        bands=[f"{nu:g}" for nu in NU],
    )
    laws = [*LAWS[:2], distsep.Line({"1": {"120": 1.0}}, name="CO")]
    A = np.asarray(distsep.MixingMatrix(laws, instrument)({"Dust.beta_d": 1.54}))
    variance = np.full((len(NU), 2, NPIX if noise == "pixel" else 1), 0.25)
    if noise == "pixel":
        variance = variance * rng.uniform(0.5, 2, variance.shape)
    d = np.einsum("fc,csp->fsp", A, 50 * rng.normal(size=(3, 2, NPIX)))
    d += np.sqrt(variance) * rng.normal(size=d.shape)
    d[3, :, :5] = np.nan
    obs = distsep.Observation(
        d, instrument, stokes="QU", nside=NSIDE, noise_variance=variance
    )
    result = fit(laws, obs, amplitude_covariance=["CO"])
    assert np.isnan(result.amplitudes[..., :5]).all()
    assert np.isfinite(result.amplitudes[..., 5:]).all()
    assert result.dof == (len(NU) - 3) * 2 * (NPIX - 5) - 1
    assert any("10 samples lack bands" in words for words in result.warnings)


def expected_of(invN, d, used):
    """Dust's index, its error, chi2 and degrees of freedom by dense matrices."""
    d = np.moveaxis(d, 0, -1)[used]

    def mix(x):
        A = dense.emission(NU, x[0], 20.0, -3.0)
        return np.broadcast_to(A, (len(d), *A.shape))

    x, invN = np.array([1.54]), invN[used]
    for _ in range(30):
        H = dense.hessian(mix, x, d, invN, np.array([1e-3]))
        x = x - np.linalg.solve(H, dense.gradient(mix, x, d, invN))
    rank = np.linalg.matrix_rank(invN, hermitian=True).sum()
    return x[0], 2 * dense.value(mix, x, d, invN), rank - 3 * len(d) - 1


def unlike_covariances(rng, mode=None):
    """An inverse covariance of its own for each sample, without some mode."""
    draws = rng.normal(size=(2, NPIX, len(NU), 3 * len(NU)))
    N = draws @ draws.swapaxes(2, 3) / (3 * len(NU)) / DEPTH**2
    if mode is None:
        return N
    P = np.eye(len(NU)) - np.outer(mode, mode) / (mode @ mode)
    N = P @ N @ P
    return (N + N.swapaxes(2, 3)) / 2


@pytest.mark.parametrize("what", ["a mode is lost", "two of three", "huge variances"])
@pytest.mark.parametrize("xla", [False, True], ids=["native", "xla"])
def test_samples_that_know_less_than_their_bands_say(what, xla, monkeypatch):
    """Counted for what they know; masked where that tells no amplitudes apart."""
    if xla:
        monkeypatch.setattr(distsep.native.kernels, "usable", lambda: False)
    rng = np.random.default_rng(17)
    s = rng.normal(size=(3, 2, NPIX)) * np.array([20, 300, 300])[:, None, None]
    d = np.einsum("fc,csp->fsp", dense.emission(NU, 1.54, 20.0, -3.0), s)
    d += DEPTH * rng.normal(size=d.shape)
    used, noise = np.ones((2, NPIX), bool), {}
    if what == "a mode is lost":
        invN = unlike_covariances(rng, rng.normal(size=len(NU)))
        noise["inverse_noise"] = invN
    elif what == "two of three":
        invN = unlike_covariances(rng)
        used[0, ::7] = False
        half = rng.normal(size=(np.count_nonzero(~used), len(NU), 2))
        invN[~used] = half @ half.swapaxes(1, 2)
        noise["inverse_noise"] = invN
    else:
        variance = DEPTH**2 * rng.uniform(0.5, 2, d.shape)
        used[:, ::5] = False
        variance[:5, :, ::5] = 1e20
        noise["noise_variance"] = variance
        invN = np.moveaxis(1 / variance, 0, -1)[..., None] * np.eye(len(NU))
    obs = distsep.Observation(
        d, distsep.Instrument(NU), stokes="QU", nside=NSIDE, ordering="NEST", **noise
    )
    result = fit(obs=obs, fixed={"Synchrotron.beta_pl": -3.0})
    beta, chi2, dof = expected_of(invN, d, used)
    assert result.converged
    off = float(result.parameters["Dust.beta_d"]) - beta
    assert abs(off) < 1e-4 * float(result.sigma["Dust.beta_d"])
    np.testing.assert_allclose(result.chi2_total, chi2, rtol=1e-6)
    assert result.dof == dof
    np.testing.assert_array_equal(np.isfinite(result.amplitudes).all(0), used)
    few = np.count_nonzero(~used)
    assert any(f"{few} samples" in w for w in result.warnings) == (few > 0)


def test_noise_without_an_inverse_whose_lost_mode_is_in_missing_bands():
    """The block of the missing bands has no inverse: the others keep all they know."""
    rng = np.random.default_rng(18)
    mode = np.zeros(len(NU))
    mode[:2] = rng.normal(size=2)
    for shape in unlike_covariances(rng, mode)[0, :20]:
        lost, kept = shape[:2, :2], shape[2:, 2:]
        known = kept - shape[2:, :2] @ np.linalg.pinv(lost, rcond=1e-10) @ shape[:2, 2:]
        W = _whitener(shape, np.arange(len(NU)) >= 2)
        size = np.abs(known).max()
        np.testing.assert_allclose((W.T @ W)[2:, 2:], known, atol=1e-12 * size)


def test_degrees_of_freedom_do_not_hang_on_the_sign_of_rounding():
    for seed in range(8):
        rng = np.random.default_rng(seed)
        N = unlike_covariances(rng, rng.normal(size=len(NU)))[0, 0]
        obs = distsep.Observation(
            observation().d,
            distsep.Instrument(NU),
            stokes="QU",
            nside=NSIDE,
            ordering="NEST",
            inverse_noise=N,
        )
        result = fit(obs=obs, fixed={"Dust.beta_d": 1.54, "Synchrotron.beta_pl": -3.0})
        assert result.dof == (len(NU) - 1 - 3) * 2 * NPIX


def test_noise_without_an_inverse_has_the_degrees_of_freedom_of_its_rank():
    rng = np.random.default_rng(13)
    mode = rng.normal(size=len(NU))
    N = np.eye(len(NU)) / DEPTH**2
    N -= np.outer(N @ mode, N @ mode) / (mode @ N @ mode)
    plain = observation()
    obs = distsep.Observation(
        plain.d, plain.instrument, stokes="QU", nside=NSIDE, inverse_noise=N
    )
    result = fit(obs=obs)
    assert result.dof == (len(NU) - 1 - 3) * 2 * NPIX - 2
    assert abs(result.chi2_total - result.dof) < 5 * np.sqrt(2 * result.dof)


def test_coefficients_of_global_terms_have_no_bounds_and_one_prior():
    """They are solved for: bounds would not hold."""
    for prior, given in (
        (None, {"bounds": {"monopole.60": (0, 1)}}),
        ((0.0, 0.1), {"priors": {"monopole.60": (5.0, 0.1)}}),
    ):
        term = distsep.Monopole(bands=["60"], prior=prior, stokes="Q")
        with pytest.raises(ValueError, match=r"of 'monopole.60'.*give"):
            fit(global_terms=[term], **given)


@pytest.mark.parametrize("stokes", ["Q", None])
def test_terms_beside_indices_of_each_stokes_parameter(stokes):
    """What joins no two parameters joins no two blocks of the errors."""
    result = fit(
        patches={"Dust.beta_d": {"stokes": ["Q", "U"]}},
        fixed={"Synchrotron.beta_pl": -3.0},
        global_terms=[distsep.Monopole(bands=["60"], stokes=stokes)],
    )
    assert result.converged
    q, u = (result.names.index(f"Dust.beta_d[{k}]") for k in (0, 1))
    assert result.covariance[q, u] == 0
    of_terms = [error for _, error in result.global_terms.values()]
    sigma = np.append(result.sigma["Dust.beta_d"], of_terms)
    np.testing.assert_allclose(np.sqrt(np.diag(result.covariance)), sigma, rtol=1e-12)


def test_a_band_that_no_pixel_observed_has_no_residual_power():
    d = np.array(observation().d)
    d[2, 1] = np.nan
    obs = distsep.Observation(
        d,
        distsep.Instrument(NU),
        stokes="QU",
        nside=NSIDE,
        noise_variance=np.full((len(NU), 1, 1), DEPTH**2),
    )
    power = fit(obs=obs, residuals=True).residual_power
    assert np.isnan(power[2, 1])
    assert np.isfinite(power).sum() == 2 * len(NU) - 1


def test_one_prior_is_a_reference():
    bands = [f"{nu:g}" for nu in NU]
    result = fit(calibration=bands, priors={"calibration.90": (1.0, 0.01)})
    assert result.converged
    all_small(result)


def test_a_template_that_is_zero():
    zero = distsep.Template(np.zeros(NPIX), bands=["40"], name="none")
    with pytest.raises(ValueError, match="Template.name='none'.* is zero everywhere"):
        fit(global_terms=[zero])


def test_a_template_of_a_masked_array_has_no_value_there():
    hidden = np.ma.array(np.full(NPIX, 50.0), mask=np.arange(NPIX) < 4)
    masked = distsep.Template(hidden, bands=["40"])
    with pytest.raises(ValueError, match="has no value in 4 observed pixels"):
        fit(global_terms=[masked])


def test_a_template_that_is_zero_where_observed():
    m = np.zeros(NPIX)
    m[0] = 1.0
    obs = observation(observed=np.arange(NPIX) > 3)
    terms = [distsep.Template(m, bands=["40"], name="away", stokes="Q")]
    for reduce in (True, False):
        with pytest.raises(ValueError, match=r"away\.40 multiplies zero"):
            fit(obs=obs, global_terms=terms, reduce=reduce)


@pytest.mark.parametrize("reduce", [True, False])
def test_a_template_that_is_cmb(reduce):
    """One coefficient for all bands: the CMB amplitudes are exactly that."""
    m = np.random.default_rng(3).normal(size=NPIX)
    terms = [
        distsep.Template(m, common=True, stokes="Q", name="like CMB"),
        distsep.Monopole(bands=["90"]),
    ]
    result = fit(global_terms=terms, reduce=reduce)
    all_small(result)
    (words,) = [w for w in result.warnings if "degenerate" in w]
    assert "like CMB: 1 direction is degenerate with the amplitudes of CMB" in words
    value, error = result.global_terms["like CMB"]
    assert value == pytest.approx(0, abs=1e-9)
    assert np.isnan(error)
    plain = fit(global_terms=terms[1:], reduce=reduce)
    np.testing.assert_allclose(result.amplitudes, plain.amplitudes, atol=1e-6)
    for name, sigma in plain.sigma.items():
        assert result.sigma[name] == pytest.approx(sigma, rel=1e-6)


def test_monopoles_of_all_bands():
    """Three null directions a Stokes parameter, the solution of minimum norm."""
    truth = 1.0 + np.arange(7.0)
    obs = observation(extra=truth[:, None, None])
    result = fit(obs=obs, global_terms=[distsep.Monopole()])
    assert result.converged
    all_small(result)
    (words,) = [w for w in result.warnings if "degenerate" in w]
    assert "monopole.40.Q" in words
    assert "6 directions" in words
    assert "CMB, Dust, Synchrotron" in words
    assert "minimum norm" in words
    A = dense.emission(
        NU,
        result.parameters["Dust.beta_d"],
        20.0,
        result.parameters["Synchrotron.beta_pl"],
    )
    values = np.array([float(v) for v, _ in result.global_terms.values()]).reshape(7, 2)
    errors = np.array([float(e) for _, e in result.global_terms.values()]).reshape(7, 2)
    np.testing.assert_allclose(A.T @ values, 0, atol=1e-6)
    # What can be estimated is: the part across the laws, within its errors.
    across = truth - A @ np.linalg.lstsq(A, truth, rcond=None)[0]
    assert (np.abs(values - across[:, None]) < 5 * errors).all()
    assert errors.max() < DEPTH


def test_two_equal_templates_share():
    m = np.random.default_rng(3).normal(size=NPIX)
    obs = observation(extra=np.outer(np.eye(7)[2], 0.8 * m)[:, None])
    terms = [
        distsep.Template(m, bands=["90"], name=name, common=True, stokes="Q")
        for name in ("one", "two")
    ]
    result = fit(obs=obs, global_terms=terms)
    all_small(result)
    (one, _), (two, _) = result.global_terms.values()
    assert one == pytest.approx(two, rel=1e-9)
    assert one + two == pytest.approx(0.8, abs=0.5)
    (words,) = [w for w in result.warnings if "degenerate" in w]
    assert "one.90, two.90: 1 direction is degenerate with one another" in words


def test_terms_of_different_sizes_share():
    """A monopole and a constant template: neither acts like an emission law."""
    obs = observation(extra=np.eye(7)[2][:, None, None] * 4.0)
    flat = distsep.Template(
        np.full(NPIX, 0.3), bands=["90"], name="flat", common=True, stokes="Q"
    )
    result = fit(
        obs=obs, global_terms=[distsep.Monopole(bands=["90"], stokes="Q"), flat]
    )
    all_small(result)
    (words,) = [w for w in result.warnings if "degenerate" in w]
    assert "1 direction is degenerate with one another" in words
    one, flat = (float(v) for v, _ in result.global_terms.values())
    assert one + 0.3 * flat == pytest.approx(4.0, abs=5 * DEPTH / NPIX**0.5)


def test_monopoles_inside_a_free_map():
    """One component: a monopole of all bands in its law is its own monopole."""
    truth = np.arange(7.0)
    obs = observation(1, extra=truth[:, None, None])
    result = fit(LAWS[:1], obs, global_terms=[distsep.Monopole(stokes="Q")])
    all_small(result)
    (words,) = [w for w in result.warnings if "degenerate" in w]
    assert "1 direction is degenerate with the amplitudes of CMB" in words
    values = np.array([float(v) for v, _ in result.global_terms.values()])
    assert values.sum() == pytest.approx(0, abs=1e-8)
    np.testing.assert_allclose(values, truth - truth.mean(), atol=5 * DEPTH / 48**0.5)


def test_data_that_say_little_do_not_contradict_a_prior():
    """A Hessian that is zero by chance is no knowledge: none of 3072 patches is."""
    rng, nside = np.random.default_rng(3), 16
    nu = np.array([30.0, 44, 70, 100, 143, 217, 280, 353])
    depth = np.array([100.0, 80, 40, 20, 15, 20, 40, 80])
    s = rng.normal(size=(3, 2, 12 * nside**2)) * np.array([1, 0.5, 10])[:, None, None]
    d = np.einsum("fc,csp->fsp", dense.emission(nu, 1.54, 20.0, -3.0, 353.0, 23.0), s)
    d += rng.normal(size=d.shape) * (depth / 219.9)[:, None, None]
    laws = [
        distsep.CMB(),
        distsep.Dust(353.0, temp=20.0),
        distsep.Synchrotron(23.0, beta_pl=-3.0),
    ]
    instrument = distsep.Instrument(nu, depth_p=depth)
    result = distsep.separate(
        laws,
        distsep.Observation(d, instrument, stokes="QU", nside=nside),
        patches={"Dust.beta_d": nside},
        priors={"Dust.beta_d": (1.54, 0.1)},
    )
    assert not any("contradict" in words for words in result.warnings)


def test_a_prior_contradicted_by_ten_sigma():
    free = fit()
    name = "Synchrotron.beta_pl"
    best, sigma = float(free.parameters[name]), float(free.sigma[name])
    assert not any("contradict" in w for w in free.warnings)
    for std in (0.1 * sigma, sigma, 10 * sigma):
        off = 10 * np.hypot(sigma, std)
        held = fit(priors={name: (best + off, std)})
        (words,) = [w for w in held.warnings if "contradict" in w]
        assert f"{name} by " in words
        said = float(words.split(" by ")[1].split()[0])
        assert said == pytest.approx(10, abs=2.5)  # the likelihood is not a Gaussian
        fine = fit(priors={name: (best + off / 10, std)})
        assert not any("contradict" in w for w in fine.warnings)


def test_an_index_too_uncertain_is_said():
    faint = fit(obs=observation(depth=150.0))
    sigma = faint.sigma["Synchrotron.beta_pl"]
    assert sigma > 0.3 or np.isnan(sigma)
    assert any(
        "beta_pl" in w and ("not known to hold" in w or "indefinite" in w)
        for w in faint.warnings
    )
    assert not any("not known to hold" in w for w in fit().warnings)


def test_a_template_that_the_cmb_absorbs_has_no_coefficient():
    """Common to all bands it is a CMB: named, and zero."""
    t = np.random.default_rng(5).normal(size=NPIX)
    result = fit(global_terms=[distsep.Template(t, common=True)])
    all_small(result)
    (value, _), *_ = result.global_terms.values()
    assert abs(value) < 1e-6
    assert any("degenerate" in w and "CMB" in w for w in result.warnings)


def test_nothing_but_regional_components_is_refused():
    regions = np.zeros(NPIX, int)
    terms = [distsep.Regional(law.name, regions) for law in LAWS]
    with pytest.raises(ValueError, match="every component is regional"):
        fit(global_terms=terms)


def test_more_templates_than_data_are_refused():
    rng = np.random.default_rng(6)
    terms = [distsep.Template(rng.normal(size=NPIX), name=f"t{k}") for k in range(100)]
    with pytest.raises(ValueError, match=r"global terms without a prior for 672 num"):
        fit(global_terms=terms)


def test_a_temperature_that_is_not_measured_is_said():
    """No index: its intervals are not known to hold when its error is large."""
    laws = [distsep.CMB(), distsep.Dust(150.0, beta_d=1.54), LAWS[2]]
    obs = observation(depth=20.0)
    result = fit(laws, obs, priors={"Dust.temp": (20.0, 5.0)})
    said = [w for w in result.warnings if "10% of the temperature" in w]
    assert float(result.sigma["Dust.temp"]) > 2
    assert said[0].startswith("Dust.temp: an error over 10%")
    near = fit(
        obs=obs, bounds={"Dust.beta_d": (1.0, 1.5401)}, start={"Dust.beta_d": 1.5}
    )
    words = "".join(near.warnings)
    assert "reaches a bound" in words or "stopped at a bound" in words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"start": {"Dust.beta_d": np.nan}}, "`start` of 'Dust.beta_d' should be fin"),
        ({"start": {"Dust.beta_d": "a"}}, "must be one number or 1, .* got 'a'"),
        ({"bounds": {"Dust.beta_d": (1.0,)}}, r"should be \(lower, upper\); got .1.0"),
        ({"bounds": {"Dust.beta_d": (1, 2, 3)}}, r"should be \(lower, upper\); got"),
        ({"bounds": {"Dust.beta_d": ("a", "b")}}, "must be one number or 1.* 'a'"),
        ({"priors": {"Dust.beta_d": (1.5,)}}, r"should be \(mean, std\); got .1.5"),
        ({"priors": {"Dust.beta_d": (1, 2, 3)}}, r"should be \(mean, std\); got .1, 2"),
        ({"priors": {"Dust.beta_d": (np.inf, 1.0)}}, "a finite mean and std"),
        ({"priors": {"Dust.beta_d": (1.5, 1e-300)}}, "to hold a parameter use `fixed`"),
        (
            {"global_terms": [distsep.Monopole(prior=(0.0, 0.0))]},
            r"`prior` should be \(mean",
        ),
        ({"global_terms": [distsep.Template("a")]}, r"`map` should be numbers, \(pix"),
        ({"global_terms": [distsep.Template(np.ones((1, 2, 3)))]}, "`map` should be"),
        ({"global_terms": ["monopole"]}, r"`global_terms\[0\]` should be a Monopole"),
        ({"global_terms": [distsep.Monopole(["40", 0])]}, "`bands` names 40 twice"),
        ({"global_terms": [distsep.Monopole(stokes="")]}, "`stokes` should be letters"),
        (
            {"global_terms": [distsep.Template(np.ones((2, NPIX)), stokes="Q")]},
            "`stokes` chooses those of a map that has none: leave it out",
        ),
    ],
)
def test_values_of_another_kind(arguments, words):
    with pytest.raises(ValueError, match=words):
        fit(**arguments)


def test_the_order_of_a_template_on_some_pixels_is_that_of_the_maps():
    """What is said of it would not be read."""
    obs = distsep.Observation(
        np.random.default_rng(3).normal(size=(len(NU), 2, 40)),
        distsep.Instrument(NU),
        stokes="QU",
        nside=NSIDE,
        ordering="NEST",
        cell_ids=np.arange(40),
        noise_variance=1.0,
    )
    terms = [distsep.Template(np.ones(40), bands=["40"], ordering="RING")]
    with pytest.raises(ValueError, match="has the 40 pixels of the maps, in their ord"):
        fit(obs=obs, global_terms=terms)


def test_a_template_is_in_the_convention_of_the_maps():
    rng = np.random.default_rng(4)
    leak, turned = rng.normal(size=(2, NPIX)), np.array([1.0, -1.0])[:, None]
    A = dense.emission(NU, 1.54, 20.0, -3.0)
    d = np.einsum("fc,csp->fsp", A, 30 * rng.normal(size=(3, 2, NPIX)))
    d[1] += 5 * leak
    found = {
        polcconv: distsep.separate(
            KNOWN,
            distsep.Observation(
                d * sign,
                distsep.Instrument(NU),
                stokes="QU",
                nside=NSIDE,
                polcconv=polcconv,
                noise_variance=1e-4,
            ),
            global_terms=[distsep.Template(leak * sign, bands=["60"])],
        )
        for polcconv, sign in (("COSMO", 1.0), ("IAU", turned))
    }
    for result in found.values():
        np.testing.assert_allclose(result.global_terms["template.60"][0], 5, atol=0.02)
    np.testing.assert_array_equal(found["COSMO"].amplitudes, found["IAU"].amplitudes)


KNOWN = [
    distsep.CMB(),
    distsep.Dust(150.0, temp=20.0, beta_d=1.54),
    distsep.Synchrotron(20.0, beta_pl=-3.0),
]


@pytest.mark.parametrize("std", [1.0, 1e3, 5e4])
def test_a_prior_counts_however_weak_it_is_beside_the_data(std):
    """Alone it says what amplitudes and monopoles could exchange."""
    obs = observation(extra=10.0)
    found = fit(
        KNOWN, obs, global_terms=[distsep.Monopole(stokes="Q", prior=(4.0, std))]
    )
    A = dense.emission(NU, 1.54, 20.0, -3.0)
    Q = NPIX * (np.eye(7) - A @ np.linalg.solve(A.T @ A, A.T)) / DEPTH**2
    C = np.linalg.inv(Q + np.eye(7) / std**2)
    alpha = C @ (Q @ obs.d[:, 0].mean(-1) + 4 / std**2)
    values, errors = np.array(list(found.global_terms.values())).T
    # 1e-12 of the data's information is as much as the reference can tell.
    np.testing.assert_allclose(errors, np.sqrt(np.diag(C)), rtol=1e-3)
    assert (np.abs(values - alpha) < 1e-3 * errors).all()
    assert found.warnings == ()


def test_a_prior_that_is_lost_beside_the_data_is_said():
    terms = [distsep.Monopole(stokes="Q", prior=(4.0, 1e7))]
    with pytest.raises(ValueError, match="prior of monopole.40, std = 1e.07.*lost"):
        fit(KNOWN, observation(extra=10.0), global_terms=terms)


@pytest.mark.parametrize("solver", ["adam", "lbfgs", "newton"])
def test_patches_that_start_alike_do_not_hide_what_is_degenerate(solver):
    """Of one law everywhere monopoles are degenerate in more directions."""
    beta = 1.54 + 0.2 * np.random.default_rng(5).normal(size=12)
    patch = np.arange(NPIX) // 4
    rng = np.random.default_rng(6)
    s = rng.normal(size=(3, 2, NPIX)) * np.array([20, 30, 300])[:, None, None]
    A = np.stack([dense.emission(NU, b, 20.0, -3.0) for b in beta])[patch]
    d = np.einsum("pfc,csp->fsp", A, s) + DEPTH * rng.normal(size=(7, 2, NPIX))
    obs = distsep.Observation(
        d,
        distsep.Instrument(NU),
        stokes="QU",
        nside=NSIDE,
        ordering="NEST",
        noise_variance=np.full((len(NU), 1, 1), DEPTH**2),
    )
    more = {"patches": {"Dust.beta_d": 1}, "global_terms": [distsep.Monopole()]}
    laws = [distsep.CMB(), distsep.Dust(150.0, temp=20.0), KNOWN[2]]
    found = distsep.separate(laws, obs, solver=solver, **more)
    start = {"Dust.beta_d": beta}
    wanted = distsep.separate(laws, obs, solver="newton", start=start, **more)
    assert found.converged
    assert wanted.converged
    off = found.parameters["Dust.beta_d"] - wanted.parameters["Dust.beta_d"]
    assert (np.abs(off) < 1e-3 * wanted.sigma["Dust.beta_d"]).all()
    assert found.neg_log_like == pytest.approx(wanted.neg_log_like, abs=1e-6)


def test_a_single_band_of_a_term():
    result = fit(global_terms=[distsep.Monopole(bands="90")])
    assert set(result.global_terms) == {"monopole.90.Q", "monopole.90.U"}


def test_a_bound_that_contradicts_both_is_not_blamed_on_the_prior():
    """Data and prior agree, and the bound keeps the parameter from either."""
    result = fit(
        priors={"Dust.beta_d": (1.54, 0.001)},
        bounds={"Dust.beta_d": (1.0, 1.2)},
        start={"Dust.beta_d": 1.1},
    )
    np.testing.assert_allclose(result.parameters["Dust.beta_d"], 1.2, atol=1e-9)
    assert any("stopped at a bound" in w for w in result.warnings)
    assert not any("contradict" in w for w in result.warnings)
