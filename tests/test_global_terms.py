"""Global terms against the dense solve of the full system, at any number of ranks."""

from types import SimpleNamespace

import dense
import dense_global
import numpy as np
import pytest
from conftest import ROOT

import distsep
from distsep.config import read_config
from distsep.data import store
from distsep.data.healpix import ring_to_nest, unit_vectors
from distsep.data.observation import Observation
from distsep.data.source import ArraySource, placed
from distsep.flow import local_devices
from distsep.inference import solve
from distsep.inference.objective import Objective
from distsep.inference.passes import PoolSums
from distsep.inference.reduce import ReducedData, block_root, merge_roots
from distsep.parallel import serial
from distsep.problem import set_up
from distsep.table import text_table

NU = np.array([40.0, 60.0, 90.0, 120.0, 160.0, 240.0, 350.0])
NSIDE, NF = 2, len(NU)
NPIX = 12 * NSIDE**2
TRUTH = np.array([1.54, -3.0])
AWAY = np.array([1.62, -2.9])
KINDS = ("Dust.beta_d", "Synchrotron.beta_pl")
LAWS = [distsep.CMB(), distsep.Dust(150.0, temp=20.0), distsep.Synchrotron(20.0)]
INSTRUMENT = distsep.Instrument(NU)
LEAKAGE = np.random.default_rng(4).normal(size=(3, NPIX))
PRIOR = (0.0, 0.3)


def mix(beta):
    return dense.emission(NU, beta[0], 20.0, beta[1])


def sky(stokes, noise, regional=False, missing=False):
    """Maps of the three components with noise and something global in them.

    Returns:
        The arguments of an Observation of the whole sphere.
    """
    rng = np.random.default_rng(7)
    ns = len(stokes)
    s = rng.normal(size=(3, ns, NPIX)) * np.array([20.0, 30, 300])[:, None, None]
    if regional:
        s[2] = np.repeat(200 + 50 * rng.normal(size=(ns, 12)), NPIX // 12, axis=1)
    d = np.einsum("fc,csp->fsp", mix(TRUTH), s)
    d[1] += 2.0
    d[3] += 0.4 * LEAKAGE[-ns:]
    if noise == "dense":
        draws = rng.normal(size=(ns, NPIX, NF, 3 * NF))
        inverse = draws @ draws.swapaxes(-1, -2) / (3 * NF)
    else:
        shape = (NF, ns, NPIX) if noise == "pixel" else (NF, 1, 1)
        depth = rng.uniform(0.5, 2, shape) + np.zeros((NF, ns, NPIX))
        inverse = np.zeros((ns, NPIX, NF, NF))
        for f in range(NF):
            inverse[..., f, f] = depth[f] ** -2
    root = np.linalg.inv(np.linalg.cholesky(inverse))
    noisy = np.einsum("spgf,spg->fsp", root, rng.normal(size=(ns, NPIX, NF)))
    d = d + noisy
    if missing:
        d[2, :, ::5] = np.nan
    return {"maps": d, "inverse_noise": inverse, "stokes": stokes}


def share(comm, maps, inverse_noise, stokes, diagonal=True, templates=None):
    """This rank's pixels of a sky."""
    cells = np.array_split(np.arange(NPIX), comm.size)[comm.rank]
    noise = {"inverse_noise": inverse_noise[:, cells]}
    if diagonal:
        v = 1 / np.einsum("spff->fsp", inverse_noise[:, cells])
        # Uniform noise is said as such, so that pixels can be pooled.
        noise = {"noise_variance": v[:, :, :1] if (v == v[..., :1]).all() else v}
    return Observation(
        maps[..., cells],
        INSTRUMENT,
        stokes=stokes,
        nside=NSIDE,
        ordering="NEST",
        cell_ids=cells,
        **noise,
    )


def band_terms(stokes):
    """A monopole, a dipole, a template of two bands, a leakage map; their columns."""
    ns = len(stokes)
    x = unit_vectors(NSIDE, np.arange(NPIX))
    far = (x[:, 2] ** 2)[ring_to_nest(NSIDE, np.arange(NPIX))]  # in RING order
    leakage = LEAKAGE[-ns:]
    terms = [
        distsep.Monopole(bands=["60"], prior=PRIOR),
        distsep.Dipole(bands=["90"], stokes=stokes[-1]),
        distsep.Template(
            far, bands=[0, 6], stokes=stokes[0], common=True, ordering="RING"
        ),
        distsep.Template(leakage, bands=["120"], name="leakage", ordering="NEST"),
    ]
    columns = []

    def column(bands, maps):
        F = np.zeros((ns, NPIX, NF))
        F[..., bands] = np.broadcast_to(maps, (ns, NPIX))[..., None]
        columns.append(F.reshape(-1, NF))

    def only(k, m):
        return np.arange(ns)[:, None] == k, m

    for k in range(ns):
        column([1], np.where(*only(k, 1.0), 0.0))
    for axis in range(3):
        column([2], np.where(*only(ns - 1, x[:, axis]), 0.0))
    column([0, 6], np.where(*only(0, x[:, 2] ** 2), 0.0))
    column([3], leakage)
    F = np.stack(columns, -1)
    precision = np.zeros(F.shape[-1])
    precision[:ns] = PRIOR[1] ** -2
    return terms, lambda _beta: F, precision


def regional_terms(stokes):
    """Synchrotron with an amplitude in each of twelve regions, and monopoles."""
    ns = len(stokes)
    terms = [distsep.Monopole(bands=["60"]), distsep.Regional("Synchrotron", 1)]
    region = np.arange(NPIX) // (NPIX // 12)
    where = np.zeros((ns, NPIX, ns * 12))
    for k in range(ns):
        where[k, np.arange(NPIX), 12 * k + region] = 1.0
    one = np.zeros((ns, NPIX, NF, ns))
    for k in range(ns):
        one[k, :, 1, k] = 1.0
    one = one.reshape(-1, NF, ns)

    def shared(beta):
        law = mix(beta)[:, 2]
        F = where.reshape(-1, 1, ns * 12) * law[:, None]
        return np.concatenate([one, F], -1)

    return terms, shared, np.zeros(ns * 13)


def system(whole, shared, precision, columns=3):
    """The dense system of a sky."""
    d = np.moveaxis(whole["maps"], 0, -1).reshape(-1, NF)
    seen = ~np.isnan(d)
    invN = whole["inverse_noise"].reshape(-1, NF, NF)
    invN = np.where(seen[:, :, None] & seen[:, None], invN, 0.0)  # diagonal if missing
    d = np.where(seen, d, 0.0)
    return dense_global.System(
        d, invN, lambda b: mix(b)[:, :columns], shared, precision
    )


def objective(comm, obs, terms, reduce):
    """The objective of a separation, not minimised."""
    devices = local_devices()
    problem = set_up(
        LAWS,
        ArraySource(placed(obs, comm.rank, comm.allgather(obs.npix))),
        comm=comm,
        patches={},
        start={},
        fixed=None,
        priors={},
        bounds={},
        shared=None,
        bands=dict.fromkeys(("calibration", "band_shift", "angle")),
        global_terms=terms,
    )
    survey, pieces = problem.survey(devices), problem.plan.pieces
    sums = PoolSums(survey, problem.own, pieces, comm.sum)
    if reduce:
        roots = sums(block_root, None, merge_roots)
        template = problem.terms.template
        sums = ReducedData(roots, problem.model, template, devices.single)
    return Objective(problem.model, problem.parameters, sums)


CASES = {
    "QU reduced": ("QU", "uniform", True, band_terms),
    "QU streamed": ("QU", "uniform", False, band_terms),
    "QU a band missing": ("QU", "missing", True, band_terms),
    "IQU own noise in every pixel": ("IQU", "pixel", False, band_terms),
    "QU dense noise": ("QU", "dense", False, band_terms),
    "I reduced": ("I", "uniform", True, band_terms),
    "QU regions reduced": ("QU", "uniform", True, regional_terms),
    "QU regions, own noise": ("QU", "pixel", False, regional_terms),
}


# Under mpirun these: two ways of noise, and regions that ranks share.
DISTRIBUTED = ("QU reduced", "IQU own noise in every pixel", "QU regions reduced")


def make(name, comm):
    """A sky, its terms, this rank's maps of it, and the dense system."""
    stokes, noise, reduce, terms_of = CASES[name]
    regional = terms_of is regional_terms
    kind = "uniform" if noise == "missing" else noise
    whole = sky(stokes, kind, regional, noise == "missing")
    terms, shared, precision = terms_of(stokes)
    return SimpleNamespace(
        comm=comm,
        reduce=reduce,
        terms=terms,
        stokes=stokes,
        whole=whole,
        obs=share(comm, **whole, diagonal=noise != "dense"),
        dense=system(whole, shared, precision, 2 if regional else 3),
    )


@pytest.fixture(params=CASES)
def case(request):
    return make(request.param, serial())


@pytest.mark.parametrize("name", DISTRIBUTED)
def test_at_any_number_of_ranks(comm, name):
    if comm.size == 1:
        pytest.skip("one rank: the other tests of this file")
    case = make(name, comm)
    test_solution_value_and_gradient_anywhere(case)
    test_the_fit_and_everything_it_says(case)


def test_solution_value_and_gradient_anywhere(case):
    """At any beta: alpha, -ln L and its gradient are those of the full system."""
    f = objective(case.comm, case.obs, case.terms, case.reduce)
    linear = f.parameters.linear
    x = np.zeros(f.parameters.number)
    x[~linear] = AWAY
    x[linear] = 1.0  # from anywhere
    found = solve.solve_global(f, f.point(x))
    s, alpha = dense_global.solve(case.dense, AWAY)
    np.testing.assert_allclose(found.alpha, alpha, rtol=1e-9, atol=1e-9)
    assert found.null.shape[1] == 0

    x[linear] = found.alpha
    value, gradient = f.value_gradient(x)
    expected = dense_global.gradient(case.dense, AWAY)
    scale = np.abs(expected)
    np.testing.assert_allclose(gradient[~linear], expected, rtol=1e-8)
    assert np.abs(gradient[linear]).max() < 1e-6 * scale.max()
    if not case.reduce:
        assert value == pytest.approx(dense_global.value(case.dense, AWAY), rel=1e-10)
    # Differences of the reduced likelihood hold too, against finite differences.
    h = 1e-4
    for k in range(2):
        values = []
        for sign in (1, -1):
            y = x.copy()
            y[k] += sign * h
            y[linear] = solve.solve_global(f, f.point(y)).alpha
            values.append(f.value_gradient(y)[0])
        slope = (values[0] - values[1]) / (2 * h)
        assert gradient[k] == pytest.approx(slope, rel=1e-4)


def test_the_fit_and_everything_it_says(case):
    """Optimum, covariances, amplitudes, their errors, chi2 and residual maps."""
    comm, reduce = case.comm, case.reduce
    result = distsep.separate(
        LAWS,
        case.obs,
        global_terms=case.terms,
        reduce=reduce,
        solver="newton",
        tolerance=1e-5,
        start=dict(zip(KINDS, AWAY, strict=True)),
        residuals=True,
        amplitude_covariance=("CMB", "Dust"),
        comm=comm,
    )
    assert result.converged
    beta = np.array([float(result.parameters[k]) for k in KINDS])
    said = dense_global.errors(case.dense, beta)
    g = dense_global.gradient(case.dense, beta)
    assert np.sqrt(g @ said.hessian_inverse[:2, :2] @ g) < 1e-5
    s, alpha = dense_global.solve(case.dense, beta)

    found = np.concatenate([np.ravel(v) for v, _ in result.global_terms.values()])
    sigma = np.concatenate([np.ravel(e) for _, e in result.global_terms.values()])
    assert (np.abs(found - alpha) < 1e-4 * sigma).all()
    for name in ("covariance", "hessian_inverse", "fisher_inverse"):
        mine, other = getattr(result, name), getattr(said, name)
        unit = np.sqrt(np.diag(other))
        off = (mine - other) / np.outer(unit, unit)
        assert np.abs(off).max() < 1e-5, name
    np.testing.assert_allclose(sigma, np.sqrt(np.diag(said.covariance)[2:]), rtol=1e-5)

    n, ns = len(beta), len(case.stokes)
    cells = result.cell_ids.astype(int)

    def mine(x):  # (sample, ...) -> (stokes, pix of this rank, ...)
        return x.reshape(ns, NPIX, *x.shape[1:])[:, cells]

    np.testing.assert_allclose(
        result.amplitudes, np.moveaxis(mine(s), -1, 0), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        result.amplitude_covariance, mine(said.amplitudes)[..., :2, :2], rtol=1e-5
    )
    X = case.dense.design(beta)
    r = case.dense.d - X @ np.concatenate([s.ravel(), alpha])
    seen = np.isfinite(result.residuals)
    maps = np.moveaxis(mine(r), -1, 0)
    np.testing.assert_allclose(result.residuals[seen], maps[seen], atol=1e-5)
    np.testing.assert_array_equal(seen, np.isfinite(case.whole["maps"][..., cells]))
    chi2 = np.einsum("pr,prs,ps->p", r, case.dense.invN, r)
    np.testing.assert_allclose(result.chi2, mine(chi2), rtol=1e-6)
    assert result.chi2_total == pytest.approx(chi2.sum(), rel=1e-9)
    bands = np.isfinite(case.whole["maps"]).sum()
    # Of a coefficient with a prior, what the data decide: tr (F + P)^-1 F.
    held = case.dense.precision @ np.diag(said.fisher_inverse)[n:]
    assert result.dof == round(bands - s.size - n - len(alpha) + held)
    power = result.residual_power
    r = np.moveaxis(r.reshape(ns, NPIX, NF), -1, 0)
    r = np.where(np.isfinite(case.whole["maps"]), r, np.nan)
    np.testing.assert_allclose(power, np.nanmean(r**2, -1), rtol=1e-6)


def regional_fit():
    case = make("QU regions reduced", serial())
    return case, distsep.separate(
        LAWS, case.obs, global_terms=case.terms, solver="newton", residuals=True
    )


def test_conjugate_gradients_give_the_dense_solution(monkeypatch):
    """With thousands of regions; here with 26, where both can be had."""
    case, plain = regional_fit()
    monkeypatch.setattr(solve, "LARGEST_DENSE", 10)
    _, found = regional_fit()
    assert any("were not looked for" in w for w in found.warnings)
    for name, (value, sigma) in plain.global_terms.items():
        other, error = found.global_terms[name]
        assert (np.abs(np.subtract(other, value)) < 1e-6 * np.array(sigma)).all()
        np.testing.assert_allclose(error, sigma, rtol=1e-8)
    np.testing.assert_allclose(found.amplitudes, plain.amplitudes, atol=1e-6)
    monkeypatch.setattr(solve, "STEPS", 0)
    with pytest.raises(RuntimeError, match="max"):
        regional_fit()


def test_regions_in_the_store_and_in_the_report(tmp_path):
    _, result = regional_fit()
    store.save_result(result, tmp_path / "result.zarr")
    again = store.read(tmp_path / "result.zarr")
    for name, pair in result.global_terms.items():
        for one, other in zip(pair, again.global_terms[name], strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again.residual_power, result.residual_power)
    text = text_table(again)
    (line,) = [x for x in text.splitlines() if x.startswith("Synchrotron  ")]
    assert line.split()[-1] == "24"  # amplitudes, their median and range before
    assert "residual rms [uK_CMB], QU: 40 " in text


def test_the_example_of_run_toml(tmp_path, monkeypatch):
    """Prior, dipole, residuals and covariance, as `distsep run` asks for them."""
    monkeypatch.chdir(tmp_path)
    rng, npix = np.random.default_rng(9), 192
    instrument = distsep.instrument("LiteBIRD")
    s = rng.normal(size=(3, 2, npix)) * np.array([3.0, 300, 100])[:, None, None]
    A = dense.emission(instrument.nu, 1.54, 20.0, -3.0, nu_d=353.0, nu_s=23.0)
    d = np.einsum("fc,csp->fsp", A, s)
    d[instrument.bands.index("40")] += 0.7
    d[instrument.bands.index("60"), 1] += 0.4 * unit_vectors(4, np.arange(npix))[:, 2]
    d += 0.1 * rng.normal(size=d.shape)
    obs = Observation(
        d,
        instrument,
        stokes="QU",
        nside=4,
        ordering="NEST",
        noise_variance=np.full((15, 1, 1), 0.01),
    )
    store.save_observation(obs, "sky.zarr")
    config = read_config(ROOT / "launch" / "examples" / "monopole.toml")
    data = store.open_observation("sky.zarr")
    arguments = config.separate_arguments(nside=4, coordsys="G")
    result = distsep.separate(observation=data, **arguments)
    assert result.converged
    truth = {"monopole.40.Q": 0.7, "monopole.40.U": 0.7, "dipole.60.z.U": 0.4}
    assert len(result.global_terms) == 4 + 6
    for name, (value, sigma) in result.global_terms.items():
        assert abs(value - truth.get(name, 0.0)) < 4 * sigma
        assert sigma < 0.1
    assert result.residuals.shape == d.shape
    assert result.amplitude_covariance.shape == (2, npix, 1, 1)
