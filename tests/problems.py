"""Small skies for the tests: drawn, and laid out for the likelihood by hand."""

import functools
from typing import NamedTuple

import dense
import jax
import jax.numpy as jnp
import numpy as np

import distsep
from distsep.inference.likelihood import Block
from distsep.inference.model import Model
from distsep.inference.objective import Objective
from distsep.inference.pixels import WithCovariance, block_amplitude_errors
from distsep.model.parameters import make_parameters

NU = (40.0, 60.0, 90.0, 120.0, 160.0, 240.0, 350.0)
KINDS = ("Dust.beta_d", "Dust.temp", "Synchrotron.beta_pl")
TRUTH = np.array([1.54, 20.0, -3.0])


def components(temp=None, nu_s=20.0):
    """The three components of the tests; `temp=20.0` fixes the temperature."""
    return [distsep.CMB(), distsep.Dust(150.0, temp=temp), distsep.Synchrotron(nu_s)]


def random_invN(rng, n, kind, depth=1.0):
    """Inverse covariances of n samples: (n, freq, freq), of mean size 1 / depth^2."""
    nf = len(NU)
    if kind == "unit":
        one = np.eye(nf)
        return np.broadcast_to(one, (n, nf, nf)) / depth**2
    if kind == "pixel":
        return np.array([np.diag(v) for v in rng.uniform(0.5, 2, (n, nf))]) / depth**2
    draws = rng.normal(size=(n if kind == "dense_pixel" else 1, nf, 3 * nf))
    full = draws @ draws.swapaxes(1, 2) / (3 * nf)
    return np.broadcast_to(full, (n, nf, nf)) / depth**2


class Samples(NamedTuple):
    """Samples with their noise and their patches, one per kind of parameter."""

    d: np.ndarray  # (sample, freq)
    invN: np.ndarray  # (sample, freq, freq)
    patch: np.ndarray  # (sample, 3)
    nu: tuple = NU
    nu_s: float = 20.0  # where the amplitude of synchrotron is

    def take(self, which):
        """Some of the samples."""
        return self._replace(
            d=self.d[which], invN=self.invN[which], patch=self.patch[which]
        )

    def mix(self, x):
        """Mixing matrices of the samples; x: the values of the kinds, joined."""
        npatch = self.patch.max(0) + 1
        first = np.concatenate([[0], np.cumsum(npatch)[:-1]])
        values = x[first + self.patch]
        rows, inverse = np.unique(self.patch, axis=0, return_inverse=True)
        of_pool = [
            dense.emission(
                np.array(self.nu), *values[inverse.ravel() == i][0], nu_s=self.nu_s
            )
            for i in range(len(rows))
        ]
        return np.array(of_pool)[inverse.ravel()]


def draw(rng, patch, kind="unit", depth=1.0, truth=None):
    """Draw samples of the three components with noise of the given kind."""
    n = len(patch)
    truth = np.repeat(TRUTH, patch.max(0) + 1) if truth is None else truth
    invN = random_invN(rng, n, kind, depth)
    empty = Samples(np.zeros((n, len(NU))), invN, patch)
    s = rng.normal(size=(n, 3)) * [30.0, 50.0, 1000.0]
    noise = np.array(
        [
            np.linalg.solve(np.linalg.cholesky(N).T, rng.normal(size=len(NU)))
            for N in invN
        ]
    )
    return empty._replace(d=np.einsum("nfc,nc->nf", empty.mix(truth), s) + noise)


def lay_out(samples, how, spare=0):
    """One tile per pool: the block, the patches of every pool, the sample of each lane.

    Args:
        samples: The samples.
        how: "whitened" (noise one for all), "diagonal" or "dense".
        spare: Empty lanes at the end of every tile, and empty tiles.
    """
    pools, inverse, counts = np.unique(
        samples.patch, axis=0, return_inverse=True, return_counts=True
    )
    inverse, width = inverse.ravel(), counts.max() + spare
    lane = np.full((len(pools) + spare, width), -1)
    for i in range(len(pools)):
        lane[i, : counts[i]] = np.flatnonzero(inverse == i)
    lane = lane.ravel()

    def put(x):  # (sample, ...) -> (..., lane)
        return jnp.asarray(
            np.moveaxis(
                np.where(lane.reshape(-1, *[1] * (x.ndim - 1)) < 0, 0, x[lane]), 0, -1
            )
        )

    d, w, invN = samples.d, None, None
    if how == "whitened":
        d = d @ np.linalg.cholesky(samples.invN[0])
    elif how == "diagonal":
        w = put(np.einsum("nff->nf", samples.invN))
    else:
        invN = put(samples.invN)
    pool = np.concatenate([np.arange(len(pools)), np.zeros(spare, int)])
    block = Block(
        put(d), jnp.zeros((0, len(lane))), jnp.asarray(pool, jnp.int32), w, invN
    )
    return block, pools, lane


@functools.cache
def _mixing(nu, nu_s):
    return distsep.MixingMatrix(components(nu_s=nu_s), distsep.Instrument(nu))


@functools.cache
def program(kernel):
    """A kernel, compiled once for all tests."""
    return jax.jit(kernel)


_models: dict = {}


def make_model(samples, how, pools):
    """Tables of the pools, whitened where the samples are; compiled once for all."""
    white = np.linalg.cholesky(samples.invN[0]).T[None] if how == "whitened" else None
    bits = None if white is None else white.tobytes()
    key = samples.nu, samples.nu_s, pools.tobytes(), bits
    if key not in _models:
        first = np.cumsum([0, *(samples.patch.max(0) + 1)])[:-1]
        mixing = _mixing(samples.nu, samples.nu_s)
        _models[key] = Model(mixing, first + pools, np.zeros(len(pools), int), white)
    return _models[key]


def make_objective(samples, how, start=None, bounds=None, priors=None):
    """The objective of samples, without observation, ranks or devices."""
    block, pools, _ = lay_out(samples, how)
    parameters = make_parameters(
        KINDS,
        list(samples.patch.max(0) + 1),
        pools,
        start=start or {},
        bounds=bounds or {},
        priors=priors or {},
        defaults=dict(zip(KINDS, TRUTH, strict=True)),
        default_bounds={},
    )

    model = make_model(samples, how, pools)

    def passes(kernel, x):
        return np.asarray(program(kernel)(model.tables_for(kernel, x), block))

    return Objective(model, parameters, passes)


def amplitudes(samples, how, x, C=None):
    """Amplitudes, chi2 and amplitude covariance of every sample.

    Args:
        samples, how: See `lay_out`.
        x: Parameters.
        C: (kind, kind) covariance of the parameters; none: they are known.
    """
    block, pools, lane = lay_out(samples, how)
    tables = make_model(samples, how, pools).tables(x, True)
    C = jnp.zeros((len(pools), 3, 3)) if C is None else jnp.stack([C] * len(pools))
    both = WithCovariance(tables, C, jnp.ones(len(pools)))
    found = np.empty((13, len(samples.d)))
    found[:, lane[lane >= 0]] = program(block_amplitude_errors)(both, block)[
        :, lane >= 0
    ]
    return found[:3].T, found[3], found[4:].T.reshape(-1, 3, 3)
