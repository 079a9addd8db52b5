"""The exact reduction: the same likelihood, up to a signal of 1e7 times the noise.

Value, gradient and Hessian of the reduced data against those of the samples, and the
gradient against dense matrices; in units of the errors of the parameters.
"""

import dense
import numpy as np
import pytest

import distsep
from distsep.data.source import ArraySource
from distsep.flow import local_devices
from distsep.inference.objective import Objective
from distsep.inference.passes import PoolSums
from distsep.inference.reduce import ReducedData, block_root, merge_roots
from distsep.native import kernels as native
from distsep.parallel import serial
from distsep.parallel.mesh import single
from distsep.problem import set_up

NU = np.array([40.0, 60.0, 90.0, 120.0, 160.0, 240.0, 350.0])
NSIDE = 16
NPIX = 12 * NSIDE**2
TRUTH = {"Dust.beta_d": 1.54, "Dust.temp": 20.0, "Synchrotron.beta_pl": -3.0}
CASES = ["uniform", "hits", "missing", "patches", "IQU", "dense"]
SIGNALS = [1.0, 1e4, 1e7]  # of a sample, in units of its noise


def draw(case, size):
    """An observation, and the arguments of the fit; noise of 1 uK in every band."""
    rng = np.random.default_rng(90)
    stokes = "IQU" if case == "IQU" else "QU"
    laws = [distsep.CMB(), distsep.Dust(150.0), distsep.Synchrotron(20.0)]
    instrument = distsep.Instrument(nu=NU)
    A = np.asarray(distsep.MixingMatrix(laws, instrument)(TRUTH))
    shape = len(NU), len(stokes), NPIX
    s = size * rng.normal(size=(3, *shape[1:]))
    maps = np.einsum("fc,csp->fsp", A, s) + rng.normal(size=shape)
    noise = {"noise_variance": np.ones((len(NU), 1, 1))}
    if case == "hits":
        noise = {"noise_variance": rng.uniform(0.5, 4, NPIX)}
    elif case == "dense":
        root = rng.normal(size=(len(NU), 3 * len(NU)))
        noise = {"inverse_noise": root @ root.T / (3 * len(NU))}
    elif case == "missing":
        for band in range(3):
            maps[band, :, rng.random(NPIX) < 0.3] = np.nan
    observation = distsep.Observation(
        maps, instrument, stokes=stokes, nside=NSIDE, ordering="NEST", **noise
    )
    patches = {"Dust.beta_d": 1, "Synchrotron.beta_pl": 2} if case == "patches" else {}
    return laws, observation, patches


def prepare(laws, observation, patches):
    """The problem, its likelihood, and that of its reduced data."""
    problem = set_up(
        laws,
        ArraySource(observation),
        comm=serial(),
        patches=patches,
        start=TRUTH,
    )
    devices, pieces = local_devices(1), problem.plan.pieces
    total = serial().sum
    full = PoolSums(problem.survey(devices, often=True), problem.own, pieces, total)
    once = PoolSums(problem.survey(devices), problem.own, pieces, total)
    roots = once(block_root, None, merge_roots)
    small = ReducedData(roots, problem.model, (), single)
    return [Objective(problem.model, problem.parameters, p) for p in (full, small)]


@pytest.fixture(params=["native", "xla"])
def kernels(request, monkeypatch):
    if request.param == "xla":
        monkeypatch.setattr(native, "usable", lambda: False)
    elif not native.usable():
        pytest.skip(native.state()[1])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("size", SIGNALS, ids="{:g}".format)
@pytest.mark.parametrize("case", CASES)
def test_the_likelihood_is_the_same(case, size):
    full, small = prepare(*draw(case, size))
    x0 = full.parameters.start
    sigma = np.diag(np.linalg.inv(full.matrix(full.point(x0), False).toarray())) ** 0.5
    rng = np.random.default_rng(91)
    x1 = x0 + sigma * rng.normal(size=len(x0))
    a, b = ([o.point(x) for x in (x0, x1)] for o in (full, small))
    hessian = full.matrix(a[1], True).toarray() * np.outer(sigma, sigma)
    found = small.matrix(b[1], True).toarray() * np.outer(sigma, sigma)
    np.testing.assert_allclose(found, hessian, rtol=0, atol=1e-9 * abs(hessian).max())
    # The step to the optimum: how far apart the two optima are, in sigma.
    off = (full.gradient(a[1]) - small.gradient(b[1])) * sigma
    # The last bits of a root, whose entries are the signal of all samples together, in
    # units of the noise: 1e-7 each at the largest signal. Which way they are rounded
    # is up to the libraries.
    last_bit = np.finfo(float).eps * size * NPIX**0.5
    assert np.abs(np.linalg.solve(hessian, off)).max() < 1e-9 + 10 * last_bit
    value, reduced = (
        o.value(p[1]).sum() - o.value(p[0]).sum() for o, p in ((full, a), (small, b))
    )
    # A large signal leaves 1e-16 of its square in each value.
    assert abs(value - reduced) < max(1e-9, 1e-5 * (size / 1e7)) * len(x0)


@pytest.mark.parametrize("size", SIGNALS, ids="{:g}".format)
def test_the_gradient_is_that_of_dense_matrices(size):
    laws, observation, _ = draw("uniform", size)
    _, small = prepare(laws, observation, {})
    x = small.parameters.start
    sigma = np.diag(np.linalg.inv(small.matrix(small.point(x), False).toarray())) ** 0.5
    _, found = small.value_gradient(x)
    d = observation.d.reshape(len(NU), -1).T
    invN = np.broadcast_to(np.eye(len(NU)), (len(d), len(NU), len(NU)))

    def mix(y):
        return np.broadcast_to(dense.emission(NU, *y, nu_s=20.0), (len(d), len(NU), 3))

    expected = dense.gradient(mix, np.asarray(x), d, invN)
    # The complex steps through dense solves keep fewer digits.
    limit = max(1e-7, 1e-6 * size / 1e4)
    assert np.abs((found - expected) * sigma).max() < limit
