"""Whole separations of small skies against dense matrices, for every kind of noise."""

import gc
import weakref
from functools import cache

import dense
import healpy
import jax
import numpy as np
import pytest
from problems import NU, TRUTH, components

import distsep
import distsep.flow
from distsep.data.healpix import UNSEEN, nest_to_ring
from distsep.inference import uncertainty
from distsep.inference.passes import Survey
from distsep.problem import misfit

NSIDE, NPIX, NF = 4, 192, len(NU)
DEPTH = np.array([30.0, 20.0, 12.0, 8.0, 9.0, 14.0, 40.0]) * 40  # uK arcmin: few pixels
SIGMA = DEPTH / np.sqrt(4 * np.pi / NPIX * np.degrees(60.0) ** 2)
INS = distsep.Instrument(nu=NU, depth_p=DEPTH, depth_i=DEPTH)
BETA = TRUTH[[0, 2]]
NAMES = ("Dust.beta_d", "Synchrotron.beta_pl")


def emission(x):
    return dense.emission(np.array(NU), x[0], 20.0, x[1])


@cache
def sky(stokes="QU"):
    """Maps (freq, stokes, pix) with white noise of the depths, RING."""
    rng = np.random.default_rng(60)
    s = rng.normal(size=(3, len(stokes), NPIX)) * [[[50.0]], [[100.0]], [[500.0]]]
    noise = rng.normal(size=(NF, len(stokes), NPIX)) * SIGMA[:, None, None]
    return np.einsum("fc,csp->fsp", emission(BETA), s) + noise


def observe(maps=None, ins=INS, **changes):
    maps = sky() if maps is None else maps
    return distsep.Observation(maps, ins, **{"stokes": "QU", "nside": NSIDE, **changes})


def separate(observation, **changes):
    given = {"start": {"Dust.beta_d": 1.6}, "solver": "newton", **changes}
    return distsep.separate(components(20.0), observation, **given)


@cache
def plain():
    return separate(observe())


def values(result):
    return np.array([result.parameters[name] for name in NAMES])


def in_sigma(result, other):
    return np.abs((values(result) - values(other)) / np.sqrt(np.diag(other.covariance)))


def holes(rng):
    """True where a band of a pixel was not observed; 10 pixels keep two bands."""
    lost = rng.random((NF, 2, NPIX)) < 0.1
    lost[2:, :, :10] = True
    lost[:2, :, :10] = False
    lost[0, 0, 50:90] = True  # a pattern that many samples share
    return lost


def marginal(invN, seen):
    """Inverse covariance of the bands seen, zeros elsewhere."""
    out = np.zeros_like(invN)
    both = np.ix_(seen, seen)
    out[both] = np.linalg.inv(np.linalg.inv(invN)[both])
    return out


def noise(kind, rng):
    """Keywords of Observation, and inverse covariances (stokes, pix, freq, freq)."""
    unit = np.diag(SIGMA**-2.0)
    if kind == "depths":
        return {}, np.broadcast_to(unit, (2, NPIX, NF, NF))
    if kind == "hits":
        hits = rng.uniform(0.3, 2, NPIX)
        return {"hits": hits, "hits_norm": 1}, hits[:, None, None] * np.stack(
            [unit] * 2
        )[:, None]
    if kind == "pixel":
        variance = (SIGMA**2)[:, None, None] * rng.uniform(0.5, 2, (NF, 2, NPIX))
        per = np.moveaxis(1 / variance, 0, -1)
        return {"noise_variance": variance}, per[..., None] * np.eye(NF)
    shape = (2, NPIX) if kind == "dense_pixel" else (2,)
    draws = rng.normal(size=(*shape, NF, 3 * NF)) / SIGMA[:, None] / np.sqrt(3 * NF)
    invN = draws @ draws.swapaxes(-1, -2)
    full = invN if kind == "dense_pixel" else invN[:, None]
    return {"inverse_noise": invN}, np.broadcast_to(full, (2, NPIX, NF, NF))


def require_dense(result, d, invN, mix=None, prior=None):
    """The result is that of dense matrices; samples without weight are not used.

    Args:
        d, invN: (sample, freq) and (sample, freq, freq), Stokes first.
    """
    x = np.array(
        [
            v
            for name in result.parameters
            for v in np.atleast_1d(result.parameters[name])
        ]
    )
    n = len(d)
    mix = mix or (lambda x: np.broadcast_to(emission(x), (n, NF, 3)))
    used = (np.einsum("nff->nf", invN) > 0).sum(1) >= 3
    d, invN = d[used], invN[used]

    def model(x):
        return mix(x)[used]

    precision, mean = (np.zeros(len(x)), x) if prior is None else prior
    F = dense.fisher(model, x, d, invN)
    step = 1e-3 * np.diag(F) ** -0.5
    H = dense.hessian(model, x, d, invN, step) + np.diag(precision)
    F = F + np.diag(precision)
    g = dense.gradient(model, x, d, invN) + precision * (x - mean)
    assert np.sqrt(g @ np.linalg.solve(H, g)) < 1e-3
    Finv, Hinv = np.linalg.inv(F), np.linalg.inv(H)
    for mine, expected in (
        (result.fisher_inverse, Finv),
        (result.hessian_inverse, Hinv),
        (result.covariance, Hinv @ F @ Hinv),
    ):
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        np.testing.assert_allclose(mine / scale, expected / scale, rtol=0, atol=1e-4)
    s, covariance, chi2 = dense.solve(model(x), d, invN)
    mine = result.amplitudes.reshape(3, -1)
    np.testing.assert_array_equal(np.isnan(mine), np.broadcast_to(~used, mine.shape))
    sigma = np.sqrt(np.einsum("ncc->nc", covariance))
    assert (np.abs(mine[:, used].T - s) < 1e-6 * sigma).all()
    np.testing.assert_allclose(result.chi2.ravel()[used], chi2, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(result.chi2_total, chi2.sum(), rtol=1e-9)
    bands = (np.einsum("nff->nf", invN) > 0).sum()
    # Of a parameter with a prior, what the data decide: tr (F + P)^-1 F.
    held = precision @ np.diag(Finv)
    assert result.dof == round(bands - 3 * used.sum() - len(x) + held)


@pytest.mark.parametrize(
    ("kind", "reduce"),
    [
        ("depths", False),
        ("depths", True),
        ("hits", True),
        ("pixel", None),
        ("dense", True),
        ("dense_pixel", None),
    ],
)
def test_missing_bands_and_every_kind_of_noise(kind, reduce):
    """NaN in some bands: the others are used, as dense generalised least squares do."""
    rng = np.random.default_rng(61)
    keywords, invN = noise(kind, rng)
    lost = holes(rng)
    maps = np.where(lost, np.where(rng.random(lost.shape) < 0.5, np.nan, UNSEEN), sky())
    result = separate(observe(maps, **keywords), reduce=reduce)
    assert result.converged
    assert (result.reduced is not None) == bool(reduce)
    seen = np.moveaxis(~lost, 0, -1).reshape(-1, NF)
    full = np.reshape(invN, (-1, NF, NF))
    invN = np.array([marginal(N, k) for N, k in zip(full, seen, strict=True)])
    require_dense(result, np.moveaxis(sky(), 0, -1).reshape(-1, NF), invN)
    few = (seen.sum(1) < 3).sum()
    assert few >= 20
    assert any(f"{few} samples lack bands" in w for w in result.warnings)


def test_rows_of_zeros_in_the_inverse_covariance_are_missing_bands():
    """Whatever the maps hold there; a pixel with too few bands left is not invented."""
    rng = np.random.default_rng(62)
    keywords, invN = noise("dense_pixel", rng)
    lost = np.moveaxis(holes(rng), 0, -1)
    invN = np.where(lost[..., :, None] | lost[..., None, :], 0, invN)
    result = separate(observe(inverse_noise=invN))
    d = np.moveaxis(sky(), 0, -1).reshape(-1, NF)
    require_dense(result, d, invN.reshape(-1, NF, NF))


def test_the_sky_is_found_within_its_errors():
    result = plain()
    assert result.converged
    assert (
        np.abs(values(result) - BETA) < 4 * np.sqrt(np.diag(result.covariance))
    ).all()
    z = (result.chi2_total - result.dof) / np.sqrt(2 * result.dof)
    assert abs(z) < 4
    np.testing.assert_allclose(result.chi2_total, result.chi2.sum(), rtol=1e-12)
    assert result.dof == NF * 2 * NPIX - 3 * 2 * NPIX - 2
    assert result.neg_log_like == result.chi2_total / 2


def test_amplitude_covariance_has_both_its_parts():
    """(A^T N^-1 A)^-1, and what the uncertainty of beta adds."""
    result = separate(observe(), amplitude_covariance=("CMB", "Dust", "Synchrotron"))
    d = np.moveaxis(sky(), 0, -1).reshape(-1, NF)
    invN = np.broadcast_to(np.diag(SIGMA**-2.0), (len(d), NF, NF))

    def solved(x):
        return dense.solve(np.broadcast_to(emission(x), (len(d), NF, 3)), d, invN)

    x = values(result)
    J = np.array([solved(x + 1j * dense.STEP * e)[0].imag for e in np.eye(2)])
    J /= dense.STEP
    expected = solved(x)[1] + np.einsum("knc,km,mne->nce", J, result.covariance, J)
    found = result.amplitude_covariance.reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("coupled", [20_000, 0])
def test_amplitude_covariance_of_very_many_parameters(coupled, monkeypatch):
    """Without their full matrix; only what is all coupled is left out, and said."""
    asked = {"amplitude_covariance": ["Dust"], "patches": {"Dust.beta_d": 2}}
    whole = separate(observe(), **asked)
    monkeypatch.setattr(uncertainty, "LARGEST_MATRIX", 0)
    monkeypatch.setattr(uncertainty, "LARGEST_COUPLED", coupled)
    monkeypatch.setattr(uncertainty, "_DENSE", 0)
    found = separate(observe(), **asked)
    assert found.covariance is None
    off = found.amplitude_covariance / whole.amplitude_covariance - 1
    said = [w for w in found.warnings if "correlations" in w]
    assert (np.abs(off).max() < 1e-8) == (coupled > 0) == (not said)


def test_residuals_are_what_the_amplitudes_leave():
    result = separate(observe(), residuals=True)
    model = np.einsum("fc,csp->fsp", emission(values(result)), result.amplitudes)
    np.testing.assert_allclose(result.residuals, sky() - model, atol=1e-8)
    chi2 = ((result.residuals / SIGMA[:, None, None]) ** 2).sum(0)
    np.testing.assert_allclose(chi2, result.chi2, rtol=1e-8)


def test_the_reduced_data_have_the_same_fit():
    reduced, full = separate(observe(), reduce=True), separate(observe(), reduce=False)
    assert reduced.reduced == (NF, 2 * NPIX)
    assert in_sigma(reduced, full).max() < 1e-6
    np.testing.assert_allclose(reduced.covariance, full.covariance, rtol=1e-7)
    np.testing.assert_allclose(
        reduced.amplitudes, full.amplitudes, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("solver", ["adam", "newton"])
def test_maps_in_kelvin_give_the_same_beta(solver):
    result = separate(observe(sky() * 1e-6, unit="K_CMB"), solver=solver)
    other = plain() if solver == "newton" else separate(observe(), solver=solver)
    assert result.converged
    assert np.abs(values(result) - values(other)).max() < 1e-8
    np.testing.assert_allclose(
        result.amplitudes, other.amplitudes, rtol=1e-6, atol=1e-6
    )


def test_float32_maps():
    result = separate(observe(sky().astype(np.float32)))
    assert in_sigma(result, plain()).max() < 0.01
    np.testing.assert_allclose(result.chi2_total, plain().chi2_total, rtol=1e-4)


def test_pixels_with_too_few_bands_are_masked_and_counted():
    maps = sky().copy()
    maps[2:, :, :10] = np.nan
    result = separate(observe(maps))
    masked = separate(observe(observed=np.arange(NPIX) >= 10))
    assert in_sigma(result, masked).max() < 1e-6
    assert np.isnan(result.amplitudes[..., :10]).all()
    assert np.isnan(result.chi2[..., :10]).all()
    assert result.dof == masked.dof
    assert any("20 samples lack bands" in w for w in result.warnings)


def test_ring_and_nest_are_the_same_to_the_last_bit():
    to_ring = nest_to_ring(NSIDE, np.arange(NPIX))
    nest = separate(observe(sky()[..., to_ring], ordering="NEST"))
    np.testing.assert_array_equal(values(nest), values(plain()))
    np.testing.assert_array_equal(nest.amplitudes, plain().amplitudes[..., to_ring])
    np.testing.assert_array_equal(nest.chi2, plain().chi2[..., to_ring])


def test_a_part_of_the_sky_by_mask_or_by_cells_in_any_order():
    rng = np.random.default_rng(63)
    cells = rng.permutation(NPIX)[:100]
    mask = np.isin(np.arange(NPIX), cells)
    by_cell = separate(observe(sky()[..., cells], cell_ids=cells))
    by_mask = separate(observe(observed=mask))
    np.testing.assert_array_equal(values(by_cell), values(by_mask))
    np.testing.assert_array_equal(by_cell.amplitudes, by_mask.amplitudes[..., cells])
    assert np.isnan(by_mask.amplitudes[..., ~mask]).all()


@pytest.mark.parametrize("ordering", ["RING", "NEST"])
def test_a_mask_is_of_the_maps_in_their_order(ordering):
    """That of `separate` too: in another order it would fit other pixels."""
    rng = np.random.default_rng(64)
    cells = rng.permutation(NPIX)[:150]
    mask = rng.random(150) < 0.6
    maps = {"maps": sky()[..., cells], "cell_ids": cells, "ordering": ordering}
    before = separate(observe(**maps, observed=mask))
    after = separate(observe(**maps), observed=mask)
    np.testing.assert_array_equal(values(after), values(before))
    np.testing.assert_array_equal(after.amplitudes, before.amplitudes)
    np.testing.assert_array_equal(np.isnan(after.chi2), [~mask] * 2)


def test_a_second_separation_compiles_nothing():
    """Of a new observation, laws and instrument that are equal to those before."""
    compiled = []

    def listen(event, _seconds, **_):
        if "backend_compile" in event:
            compiled.append(event)

    def again():
        separate(observe(2 * sky(), distsep.Instrument(nu=NU, depth_p=DEPTH)))

    again()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        again()
        assert compiled == []
        jax.jit(lambda x: x + 3.25)(1.0)
        assert compiled  # what is listened to is said
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_one_device_or_two_are_the_same_to_the_last_bit():
    one = separate(observe(), devices=1)
    assert (one.devices, plain().devices) == (1, 2)
    for name in ("covariance", "amplitudes", "chi2", "chi2_total"):
        np.testing.assert_array_equal(getattr(one, name), getattr(plain(), name))
    np.testing.assert_array_equal(values(one), values(plain()))


def test_a_prior_pulls_and_adds_its_precision():
    sigma = plain().sigma[NAMES[0]]
    mean, std = values(plain())[0] + 3 * sigma, sigma
    result = separate(observe(), priors={NAMES[0]: (mean, std)})
    shift = (result.parameters[NAMES[0]] - plain().parameters[NAMES[0]]) / sigma
    assert 1 < shift < 2  # half way
    d = np.moveaxis(sky(), 0, -1).reshape(-1, NF)
    invN = np.broadcast_to(np.diag(SIGMA**-2.0), (len(d), NF, NF))
    prior = np.array([std**-2.0, 0.0]), np.array([mean, 0.0])
    require_dense(result, d, invN, prior=prior)


def test_fixed_by_name_or_in_the_component_is_the_same():
    result = distsep.separate(
        components(), observe(), fixed={"Dust.temp": 20.0}, solver="newton"
    )
    assert result.names == NAMES
    assert in_sigma(result, plain()).max() < 1e-4


@pytest.mark.parametrize("reduce", [True, False])
def test_a_result_does_not_hold_the_packed_maps(monkeypatch, reduce):
    """Nor wait for the collector of garbage: a campaign would need twice the memory."""
    seen, make = [], Survey.__init__

    def watched(self, *args, **kwargs):
        make(self, *args, **kwargs)
        seen.append(weakref.ref(self))

    monkeypatch.setattr(Survey, "__init__", watched)
    gc.disable()
    try:
        result = separate(observe(), reduce=reduce)
        assert [survey() for survey in seen] == [None]
    finally:
        gc.enable()
    assert result.converged


def test_what_distsep_offers_is_listed():
    assert {"separate", "parallel", "presets", "CMB"} <= set(dir(distsep))
    assert not {"os", "sys", "Any"} & set(dir(distsep))
    assert distsep.parallel.serial().size == 1


def test_all_fixed_is_generalised_least_squares():
    fixed = dict(zip(NAMES, BETA, strict=True))
    result = distsep.separate(components(20.0), observe(), fixed=fixed)
    assert result.converged
    assert result.names == ()
    d = np.moveaxis(sky(), 0, -1).reshape(-1, NF)
    A = np.broadcast_to(emission(BETA), (len(d), NF, 3))
    s, _, chi2 = dense.solve(
        A, d, np.broadcast_to(np.diag(SIGMA**-2.0), (len(d), NF, NF))
    )
    np.testing.assert_allclose(
        result.amplitudes.reshape(3, -1).T, s, rtol=1e-7, atol=1e-7
    )
    np.testing.assert_allclose(result.chi2.ravel(), chi2, rtol=1e-9)


def test_a_parameter_that_two_components_share():
    warm = distsep.Dust(150.0, temp=20.0)
    cold = distsep.Dust(150.0, temp=8.0, name="Cold")

    def laws(x):
        A, B = (dense.emission(np.array(NU), x[0], temp, -3.0) for temp in (20.0, 8.0))
        return np.column_stack([A[:, :2], B[:, 1]])

    rng = np.random.default_rng(64)
    s = rng.normal(size=(3, 2, NPIX)) * [[[50.0]], [[200.0]], [[200.0]]]
    maps = np.einsum("fc,csp->fsp", laws([1.5]), s)
    maps += rng.normal(size=maps.shape) * SIGMA[:, None, None]
    result = distsep.separate(
        [distsep.CMB(), warm, cold],
        observe(maps),
        shared={"beta": ["Dust.beta_d", "Cold.beta_d"]},
        solver="newton",
    )
    assert result.names == ("beta",)
    d = np.moveaxis(maps, 0, -1).reshape(-1, NF)
    invN = np.broadcast_to(np.diag(SIGMA**-2.0), (len(d), NF, NF))
    require_dense(result, d, invN, lambda x: np.broadcast_to(laws(x), (len(d), NF, 3)))


def test_patches_of_minus_one_are_not_used():
    ids = np.arange(NPIX) // 48 - 1  # -1, 0, 1, 2
    result = separate(observe(), patches={NAMES[0]: ids, NAMES[1]: np.zeros(NPIX, int)})
    masked = separate(
        observe(observed=ids >= 0),
        patches={NAMES[0]: ids, NAMES[1]: np.zeros(NPIX, int)},
    )
    assert result.parameters[NAMES[0]].shape == (3,)
    np.testing.assert_allclose(
        result.parameters[NAMES[0]], masked.parameters[NAMES[0]], rtol=1e-8
    )
    np.testing.assert_array_equal(
        np.isnan(result.amplitudes), np.broadcast_to(ids < 0, (3, 2, NPIX))
    )
    assert result.dof == masked.dof
    np.testing.assert_allclose(result.chi2_total, masked.chi2_total, rtol=1e-12)


def test_patches_without_data_are_nan_and_harm_no_other():
    result = separate(observe(observed=np.arange(NPIX) < 96), patches={NAMES[0]: 2})
    assert result.converged
    beta = result.parameters[NAMES[0]]
    assert beta.shape == (48,)
    assert 0 < np.isnan(beta).sum() < 48
    np.testing.assert_array_equal(np.isnan(beta), np.isnan(result.sigma[NAMES[0]]))
    assert len(result.names) == np.isfinite(beta).sum() + 1


def test_more_combinations_of_patches_than_an_integer_counts():
    """9 kinds x 400 patches: what the patches are called does not matter."""
    rng, bands = np.random.default_rng(67), ("40", "60", "90", "120", "240", "350")
    kinds = ["Dust.beta_d", "Dust.temp", "Synchrotron.beta_pl"]
    kinds += [f"calibration.{band}" for band in bands]
    few = {kind: rng.permutation(NPIX) % 2 for kind in kinds}
    far = {kind: np.array([17, 399])[ids] for kind, ids in few.items()}
    given = {
        "calibration": bands,
        "priors": {f"calibration.{band}": (1.0, 0.01) for band in bands},
        "solver": "newton",
    }
    near, wide = (
        distsep.separate(components(), observe(), patches=patches, **given)
        for patches in (few, far)
    )
    assert len(near.names) == 2 * 9
    for kind in kinds:
        assert wide.parameters[kind].shape == (400,)
        np.testing.assert_array_equal(
            wide.parameters[kind][[17, 399]], near.parameters[kind]
        )
    np.testing.assert_array_equal(wide.amplitudes, near.amplitudes)
    np.testing.assert_array_equal(wide.covariance, near.covariance)


@pytest.mark.parametrize(
    "cells", [{}, {"nside": 1}, {"map": np.arange(12) % 3}, {"kmeans": 4, "seed": 1}]
)
def test_intensity_and_polarisation_with_parameters_of_their_own(cells):
    """One run with `stokes` groups is two runs, with patches or without."""
    groups = {**cells, "stokes": ["I", "QU"]}
    together = separate(
        observe(sky("IQU"), stokes="IQU"), patches=dict.fromkeys(NAMES, groups)
    )
    for place, (letters, axis) in enumerate((("I", slice(0, 1)), ("QU", slice(1, 3)))):
        alone = separate(
            observe(sky("IQU")[:, axis], stokes=letters),
            patches=dict.fromkeys(NAMES, cells or 0),
        )
        for name in NAMES:
            mine = np.reshape(together.parameters[name], (2, -1))[place]
            off = mine - alone.parameters[name]
            assert (np.abs(off) < 1e-5 * alone.sigma[name]).all()
        np.testing.assert_allclose(
            together.amplitudes[:, axis], alone.amplitudes, rtol=1e-6, atol=1e-5
        )


def test_too_few_steps_is_said():
    result = separate(observe(), start={"Dust.beta_d": 1.2}, max_steps=2)
    assert not result.converged
    assert "1 of 1 independent blocks not converged" in result.message
    assert result.distance > 1e-3


def test_it_tells_how_it_goes():
    told = []
    separate(observe(), solver="adam", tell=lambda *a: told.append(a))
    assert {phase for phase, _, _ in told} >= {"warm start", "adam"}


def test_a_mask_of_a_store_is_in_ring_order_as_maps_are(tmp_path):
    mask = healpy.pix2ang(NSIDE, np.arange(NPIX), lonlat=True)[1] > 20
    wanted = separate(observe(observed=mask))
    observe().save(tmp_path / "sky.zarr")
    nest = {"map": healpy.reorder(mask, r2n=True), "ordering": "NEST"}
    for stored in (distsep.open_observation, distsep.read):
        for given in (mask, nest, {"map": mask}):
            found = separate(stored(tmp_path / "sky.zarr"), observed=given)
            assert (in_sigma(found, wanted) < 1e-6).all()
            assert found.dof == wanted.dof
    with pytest.raises(
        ValueError, match=r"expected \{'map': ..., 'ordering': 'NEST'\}"
    ):
        separate(distsep.read(tmp_path / "sky.zarr"), observed={"mask": mask})


def test_a_patch_without_data_keeps_its_number():
    """As in maps of the sphere: a start per patch fits whatever is masked."""
    ids = np.arange(NPIX) % 3
    start = np.array([1.5, 1.5, np.nan])
    for spec in (ids, {"map": ids}):
        found = separate(
            observe(),
            patches={"Dust.beta_d": spec},
            start={"Dust.beta_d": start},
            observed=ids < 2,
        )
        assert np.isnan(found.parameters["Dust.beta_d"]).tolist() == [
            False,
            False,
            True,
        ]


def test_the_arrays_of_the_caller_are_not_changed():
    maps, hits = sky().copy(), np.linspace(0, 2, NPIX)
    ids, mask = np.arange(NPIX) % 2, np.arange(NPIX) > 5
    start = {"Dust.beta_d": np.array([1.5, 1.6])}
    before = [a.copy() for a in (maps, hits, ids, mask, start["Dust.beta_d"])]
    separate(
        observe(maps, hits=hits, hits_norm=1, observed=mask),
        patches={NAMES[0]: ids},
        start=start,
    )
    for a, b in zip((maps, hits, ids, mask, start["Dust.beta_d"]), before, strict=True):
        np.testing.assert_array_equal(a, b)


WRONG = {
    "patches": ({"patches": {"Dust.beta": 4}}, r"Dust\.beta\b.*Dust\.beta_d"),
    "nside": ({"patches": {"Dust.beta_d": 8}}, r"Dust\.beta_d.*at most 4"),
    "not a power": ({"patches": {"Dust.beta_d": 3}}, r"Dust\.beta_d.*power"),
    "patch map": ({"patches": {"Dust.beta_d": np.zeros(5, int)}}, r"Dust\.beta_d"),
    "patch type": ({"patches": {"Dust.beta_d": np.zeros(NPIX)}}, r"integers"),
    "start": ({"start": {"Dust.temp": 20.0}}, r"`start` names 'Dust.temp'"),
    "start shape": ({"start": {"Dust.beta_d": [1.5, 1.6]}}, r"one number or 1"),
    "bounds": (
        {"bounds": {"Dust.beta_d": (0.0, 1.0)}},
        r"`start` of 'Dust.beta_d', 1.6, is outside its bounds",
    ),
    "bounds order": ({"bounds": {"Dust.beta_d": (3.0, 1.0)}}, r"lower 3.0.*upper 1.0"),
    "prior name": ({"priors": {"beta_d": (1.5, 0.1)}}, r"`priors` names 'beta_d'"),
    "prior width": ({"priors": {"Dust.beta_d": (1.5, 0.0)}}, r"std > 0.*`fixed`"),
    "fixed": ({"fixed": {"Dust.beta": 1.5}}, r"Dust\.beta\b.*Dust\.beta_d"),
    "shared": ({"shared": {"b": ["Dust.x", "Dust.beta_d"]}}, r"Dust\.x"),
    "solver": ({"solver": "lm"}, r"`solver`.*'adam', 'lbfgs', 'newton'"),
    "tolerance": ({"tolerance": -1.0}, r"`tolerance`.*positive"),
    "no tolerance": ({"tolerance": np.inf}, r"`tolerance`.*below 1.*inf"),
    "max_steps": ({"max_steps": 0}, r"`max_steps`.*at least 1"),
    "devices": ({"devices": 9}, r"2 device\(s\)"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_are_refused_before_anything_is_computed(wrong, monkeypatch):
    changes, match = WRONG[wrong]
    monkeypatch.setattr(distsep.flow, "PoolSums", None)  # no pass is made
    with pytest.raises(ValueError, match=match):
        separate(observe(), **changes)


def test_all_mistakes_of_the_parameters_are_told_at_once():
    with pytest.raises(ValueError, match=r"(?s)Dust\.temp.*outside.*std > 0"):
        separate(
            observe(),
            start={"Dust.temp": 20.0, "Dust.beta_d": 1.6},
            priors={"Synchrotron.beta_pl": (-3.0, -1.0)},
            bounds={"Dust.beta_d": (2.0, 3.0)},
        )


def test_reduction_of_noise_of_every_pixel_its_own_is_refused():
    keywords, _ = noise("pixel", np.random.default_rng(65))
    with pytest.raises(ValueError, match=r"reduce=True.*own noise shape"):
        separate(observe(**keywords), reduce=True)


@pytest.mark.parametrize(
    "observed",
    [np.ones(768, bool), np.full(NPIX, 0.3), np.full(NPIX, np.nan), "mask.fits"],
    ids=["another nside", "fractions", "nan", "file"],
)
def test_what_is_no_mask_is_refused(observed):
    with pytest.raises(ValueError, match=r"observed=.*192 values True"):
        separate(observe(), observed=observed)


def test_a_mask_that_hides_values_is_refused():
    hidden = np.ma.array(np.ones(NPIX), mask=np.arange(NPIX) < 90)
    with pytest.raises(
        ValueError, match=r"separate\(observed=...\)` has masked values"
    ):
        separate(observe(), observed=hidden)


@pytest.mark.parametrize("what", [sky(), None, "sky.zarr"])
def test_what_is_no_observation_is_refused(what):
    with pytest.raises(TypeError, match=r"observation=.*open_observation"):
        separate(what)


def test_a_model_that_cannot_be_right_is_said():
    other = sky() + 100 * np.random.default_rng(3).normal(size=sky().shape)
    result = separate(observe(other))
    assert any("does not describe the data" in w for w in result.warnings)
    assert not any("describe the data" in w for w in plain().warnings)


def test_noise_that_is_smaller_than_stated_is_said():
    """Maps in K that are called uK fit any model."""
    result = separate(observe(1e-6 * sky()))
    assert any("in the unit that was given" in w for w in result.warnings)
    assert not any("in the unit that was given" in w for w in plain().warnings)


def test_a_sky_without_an_observed_pixel_is_refused():
    nothing = observe(observed=np.zeros(NPIX, bool))
    assert nothing.npix == 0
    with pytest.raises(ValueError, match="no pixel is observed"):
        separate(nothing)


def test_too_few_bands_for_the_components_is_refused():
    with pytest.raises(ValueError, match=r"no pixel has the 3 bands that 3"):
        separate(
            observe(sky()[:2], ins=distsep.Instrument(nu=NU[:2], depth_p=DEPTH[:2]))
        )


@pytest.mark.parametrize(
    "twin", [distsep.CMB(name="Twin"), distsep.Dust(150.0, temp=20.0, name="Twin")]
)
def test_two_components_of_one_law_are_refused_by_name(twin):
    """Others return |s| = 1e16 without a word."""
    other = "CMB" if twin.parameters == () else "Dust"
    with pytest.raises(
        ValueError, match=f"{other} and Twin have the same emission law"
    ):
        distsep.separate([*components(20.0)[:2], twin], observe())


def test_components_that_become_one_law_are_not_called_converged():
    """B, which is flatter than A, may only come as near to A as its bound lets it."""
    pair = [distsep.CMB(), *(distsep.Dust(150.0, temp=20.0, name=n) for n in "AB")]
    rng = np.random.default_rng(66)
    s = rng.normal(size=(3, 2, NPIX)) * np.array([50.0, 300.0, 300.0])[:, None, None]
    flatter = emission((1.2, BETA[1]))[:, 1:2]
    A = np.concatenate([emission(BETA)[:, :2], flatter], axis=1)
    maps = np.einsum("fc,csp->fsp", A, s)
    maps += rng.normal(size=maps.shape) * SIGMA[:, None, None]
    result = distsep.separate(
        pair,
        observe(maps),
        fixed={"A.beta_d": BETA[0]},
        start={"B.beta_d": 1.7},
        bounds={"B.beta_d": (BETA[0], 1.8)},
        solver="newton",
    )
    assert not result.converged
    assert any("A and B cannot be told apart" in words for words in result.warnings)


def test_a_map_of_a_parameter_is_in_the_order_of_the_maps():
    """Whatever the order, and whichever pixels were used."""
    rng = np.random.default_rng(67)
    used = rng.random(NPIX) < 0.7
    result = separate(observe(observed=used), patches={"Dust.beta_d": 1})
    found = result.parameter_map("Dust.beta_d")
    assert found.shape == (1, NPIX)
    assert (np.isfinite(found[0]) == used).all()
    patch = healpy.ring2nest(NSIDE, np.arange(NPIX)) // NSIDE**2
    expected = result.parameters["Dust.beta_d"][patch]
    np.testing.assert_array_equal(found[0, used], expected[used])
    whole = result.parameter_map("Synchrotron.beta_pl")
    assert (whole[0, used] == result.parameters["Synchrotron.beta_pl"]).all()
    with pytest.raises(ValueError, match="expected one of Dust.beta_d"):
        result.parameter_map("beta_d")


def test_a_map_of_a_parameter_knows_which_samples_were_used(tmp_path):
    """Not those that lack bands, nor those of a store that a mask leaves out."""
    maps = sky().copy()
    maps[1:, :, 5] = np.nan
    mask = np.arange(NPIX) > 3
    observe(maps).save(tmp_path / "sky.zarr")
    given = {"patches": {"Dust.beta_d": 1}, "observed": mask}
    for found, cells in (
        (separate(observe(maps), **given), np.arange(NPIX)),
        (
            separate(distsep.open_observation(tmp_path / "sky.zarr"), **given),
            healpy.nest2ring(NSIDE, np.arange(NPIX)),
        ),
    ):
        expected = (mask & (np.arange(NPIX) != 5))[cells]
        for name in NAMES:
            known = np.isfinite(found.parameter_map(name)[0])
            np.testing.assert_array_equal(known, expected)


@pytest.mark.parametrize("unit", ["uK_RJ", "mK_CMB", "kJy/sr"])
def test_a_law_in_another_unit_gives_the_same_amplitudes(unit):
    cmb, dust, synchrotron = components(20.0)
    other = distsep.Dust(dust.nu0, temp=20.0, units=unit)
    found = distsep.separate([cmb, other, synchrotron], observe(), solver="newton")
    expected = separate(observe())
    assert found.units == expected.units
    np.testing.assert_allclose(found.amplitudes, expected.amplitudes, rtol=1e-6)


def test_what_chi2_says_is_said():
    """From five standard deviations on; and that it says nothing."""
    assert misfit(1000.0, 1000, 3) == []
    assert misfit(3.0, 3, 3) == []
    (words,) = misfit(1.02e6, 1_000_000, 3)
    assert "z = +14" in words
    (words,) = misfit(400.0, 1000, 3)
    assert "smaller than stated" in words
    assert misfit(0.0, 0, 0) == []
    for dof in 0, -1:
        (words,) = misfit(0.0, dof, 1)
        assert f"dof = {dof}: with as many unknowns" in words
