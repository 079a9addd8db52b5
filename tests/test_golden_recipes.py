"""Whole separations against fgbuster's recipes, nside 16, 15 LiteBIRD bands."""

from functools import cache

import numpy as np
import pytest
from conftest import shared_file

import distsep
from distsep.data.healpix import UNSEEN, nest_to_ring, ring_to_nest

START = {"Dust.beta_d": 1.6, "Synchrotron.beta_pl": -2.9}
BETA = tuple(START)


@cache
def golden(name):
    with np.load(shared_file("golden", f"recipes_n16_{name}.npz")) as file:
        return dict(file)


def observe(file, stokes, masked, weighted):
    letters = slice(1, None) if stokes == "QU" else slice(len(stokes))
    maps = file["in__data_inh" if weighted else "in__data_hom"][:, letters].copy()
    variance = file["in__cov"][:, letters].copy() if weighted else None
    if masked:
        maps[..., file["in__mask_bad"]] = UNSEEN
    return distsep.Observation(
        maps,
        distsep.instrument("LiteBIRD"),
        stokes=stokes,
        nside=16,
        noise_variance=variance,
    )


def components(temp=20.0):
    return [distsep.CMB(), distsep.Dust(150.0, temp=temp), distsep.Synchrotron(20.0)]


def seen(x):
    return np.where(x < -1e30, np.nan, x)


def require_maps(result, file, case, reach, compare=slice(None)):
    """Amplitudes within `reach` sigma and the sum of chi2, on the pixels to compare."""
    stokes = len(result.stokes)
    s = seen(file[f"{case}__s"]).reshape(3, stokes, -1)
    chi2 = seen(file[f"{case}__chi2"]).reshape(stokes, -1)
    np.testing.assert_array_equal(np.isnan(result.amplitudes), np.isnan(s))
    np.testing.assert_array_equal(np.isnan(result.chi2), np.isnan(chi2))
    sigma = np.sqrt(variances(file[f"{case}__invAtNA"]))
    off = np.abs(result.amplitudes - s) / sigma
    assert np.nanmax(off[..., compare]) < reach
    np.testing.assert_allclose(
        np.nansum(result.chi2[:, compare]), np.nansum(chi2[:, compare]), rtol=1e-6
    )
    np.testing.assert_allclose(result.chi2_total, np.nansum(result.chi2), rtol=1e-12)


def variances(invAtNA):
    """(comp, stokes, pix) of fgbuster's layouts: (3, 3, stokes, pix) where weighted,
    (stokes, 3, 3), (3, 3) or (pix, stokes, 3, 3) elsewhere.
    """
    if invAtNA.ndim == 4 and invAtNA.shape[:2] == (3, 3):
        return np.abs(np.einsum("ccsp->csp", invAtNA))  # UNSEEN where masked
    d = np.abs(np.einsum("...cc->c...", invAtNA))
    return d.swapaxes(1, 2) if d.ndim == 3 else d.reshape(3, -1, 1)


CONSTANT = {
    "basic_QU_mask": ("QU", True, False),
    "basic_I": ("I", False, False),
    "basic_IQU": ("IQU", False, False),
    "basic_IQU_T": ("IQU", False, False),
    "weighted_QU_mask": ("QU", True, True),
    "weighted_IQU": ("IQU", False, True),
}


@pytest.mark.parametrize("case", CONSTANT)
def test_constant_parameters(case):
    """Adam from the stated start, to the optimum."""
    file = golden("const")
    temp = None if case.endswith("T") else 20.0
    start = START if temp else {**START, "Dust.temp": 19.0}
    result = distsep.separate(
        components(temp), observe(file, *CONSTANT[case]), start=start
    )
    assert result.converged
    Sigma = file[f"{case}__Sigma"]
    sigma = np.sqrt(np.diag(Sigma))
    x = np.array([result.parameters[name] for name in result.names])
    assert (np.abs(x - file[f"{case}__x"]) < 1e-4 * sigma).all()
    if f"{case}__x_newton" in file:
        assert (np.abs(x - file[f"{case}__x_newton"]) < 1e-4 * sigma).all()
    scale = np.outer(sigma, sigma)
    np.testing.assert_allclose(result.fisher_inverse / scale, Sigma / scale, atol=1e-3)
    require_maps(result, file, case, 1e-4)


VARYING = {  # patches, masked, weighted
    "basic_QU_fit4": ((4, 4), False, False),
    "basic_QU_mask_fit4": ((4, 4), True, False),
    "basic_QU_mask_fit8": ((8, 8), True, False),
    "weighted_QU_mask_fit4": ((4, 4), True, True),
    "weighted_QU_mask_fit8": ((8, 8), True, True),
    "multires_QU_fit4_2": ((4, 2), False, False),
}


def ring(values):
    """One value per cell, NEST -> RING."""
    nside = int(np.sqrt(len(values) / 12))
    out = np.empty_like(values)
    out[nest_to_ring(nside, np.arange(len(values)))] = values
    return out


@pytest.mark.parametrize("case", VARYING)
def test_parameters_by_patch(case):
    file = golden("vary4")
    nsides, masked, weighted = VARYING[case]
    observation = observe(file, "QU", masked, weighted)
    result = distsep.separate(
        components(),
        observation,
        start=START,
        patches=dict(zip(BETA, nsides, strict=True)),
        bounds={"Dust.beta_d": (-60, 60)},  # the other code has none
        solver="newton",
    )
    sigma = {name: ring(result.sigma[name]) for name in BETA}
    # One patch at nside 8 has no dust, and its likelihood no optimum: the other code
    # gives up at beta_d = 35 +- 1600, this one at the bound, and both say so.
    fitted = np.isfinite(ring(result.parameters["Dust.beta_d"]))
    loose = fitted & ~np.isfinite(sigma["Dust.beta_d"])
    assert loose.sum() == ("fit8" in case)
    if loose.any():
        assert not file[f"{case}__patch_success"][loose]
        assert np.sqrt(file[f"{case}__Sigma"][0, 0, loose]) > 1000
        assert "1 of 544 independent blocks not converged" in result.message
    for k, name in enumerate(BETA):
        x = file[f"{case}__x"][k] if f"{case}__x" in file else file[f"{case}__x{k}"]
        x, mine = seen(x), ring(result.parameters[name])
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(x))
        off = np.abs(mine - x) / sigma[name]
        assert np.nanmax(np.where(loose, 0, off) if loose.any() else off) < 1e-4
    require_sigma(result, file, case, loose)
    cell = nest_to_ring(
        nsides[0], ring_to_nest(16, np.arange(3072)) // (16 // nsides[0]) ** 2
    )
    require_maps(result, file, case, 5e-3, ~loose[cell])


def require_sigma(result, file, case, loose):
    """Fisher's covariance of each patch, where fgbuster gives it."""
    if f"{case}__Sigma" not in file:
        return
    Sigma = seen(file[f"{case}__Sigma"])
    at = {name: i for i, name in enumerate(result.names)}
    n = Sigma.shape[-1]
    nside = int(np.sqrt(n / 12))
    to_ring = nest_to_ring(nside, np.arange(n))
    for nest in range(n):
        names = [f"{name}[{nest}]" for name in BETA]
        if names[0] not in at or loose[to_ring[nest]]:
            continue
        pick = np.ix_([at[i] for i in names], [at[i] for i in names])
        expected = Sigma[..., to_ring[nest]]
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        np.testing.assert_allclose(
            result.fisher_inverse[pick] / scale, expected / scale, rtol=0, atol=5e-3
        )


def test_clusters_of_their_own_for_each_parameter():
    file = golden("vary4")
    result = distsep.separate(
        components(),
        observe(file, "QU", True, False),
        start=START,
        patches={name: file[f"in__clusters{k}"] for k, name in enumerate(BETA)},
        solver="newton",
    )
    assert result.converged
    for k, name in enumerate(BETA):
        off = result.parameters[name] - file[f"adaptive_QU_mask__x{k}"]
        assert np.abs(off / result.sigma[name]).max() < 5e-3
    require_maps(result, file, "adaptive_QU_mask", 5e-3)
