"""Newton-CG: blocks too wide to factor, against dense numpy and against the factor."""

from dataclasses import replace

import bits
import dense
import numpy as np
import pytest
import scipy.sparse as sparse
from problems import TRUTH, draw, make_objective

import distsep
from distsep.inference import curvature, fill, newton, quadratic, schur
from distsep.inference.curvature import Factor, assemble, components
from distsep.inference.fit import fit
from distsep.inference.quadratic import Quadratic
from distsep.inference.uncertainty import uncertainty
from distsep.parallel import serial

NPATCH = np.array([9, 4, 3])
START = TRUTH + [0.2, -1.0, 0.1]
KINDS = ("Dust.beta_d", "Dust.temp", "Synchrotron.beta_pl")


@pytest.fixture
def cg(monkeypatch):
    """Every block is wide."""
    monkeypatch.setattr(fill, "WIDEST", -1)


@pytest.fixture
def factored(monkeypatch):
    """No factor of a wide block may be asked for."""

    def refuse(self):
        raise AssertionError("a wide block was factored")

    monkeypatch.setattr(Quadratic, "factor", property(refuse))


def scattered(rng, depth=0.3):
    """Patches of three kinds that all overlap."""
    patch = rng.integers(0, NPATCH, (150, 3))
    patch[:9] = np.arange(9)[:, None] % NPATCH
    return draw(rng, patch, "pixel", depth=depth)


def two_blocks(rng):
    """Two such sets of patches that share no pool."""
    one, other = scattered(rng), scattered(rng)
    return one._replace(
        d=np.concatenate([one.d, other.d]),
        invN=np.concatenate([one.invN, other.invN]),
        patch=np.concatenate([one.patch, NPATCH + other.patch]),
    )


@pytest.fixture(scope="module")
def samples():
    return scattered(np.random.default_rng(80))


def objective_at(samples, x, **more):
    start = dict(zip(KINDS, x, strict=True))
    return make_objective(samples, "diagonal", start=start, **more)


def dense_matrix(objective, point, hessian, extra=0.0):
    """What the pools add, one after the other, with priors and gauge."""
    n = objective.parameters.number
    M = np.diag(objective.parameters.prior_precision + np.zeros(n) + extra)
    blocks = point.pool_hessian if hessian else point.pool_fisher
    for row, block in zip(objective.index, blocks, strict=True):
        M[np.ix_(row, row)] += block
    return M + objective.gauge @ objective.gauge.T


def at_start(samples, **more):
    objective = objective_at(samples, TRUTH, **more)
    return objective, objective.point(objective.parameters.start)


@pytest.mark.parametrize("hessian", [True, False])
def test_the_step_is_the_dense_newton_step(samples, cg, factored, hessian):
    rng = np.random.default_rng(81)
    objective, point = at_start(samples, priors={"Dust.temp": (20.0, 0.5)})
    n = objective.parameters.number
    assert objective.nblocks == 1
    assert objective.wide.all()
    diagonal = np.diag(dense_matrix(objective, point, False))
    objective.gauge = 0.3 * rng.normal(size=(n, 2)) * np.sqrt(diagonal)[:, None]
    held = np.zeros(n, bool)
    held[[2, 11]] = True
    extra = 1e-2 * diagonal
    found = Quadratic(objective, point, np.array([hessian]), held, extra)
    assert not found.bad.any()
    free = np.flatnonzero(~held)
    M = dense_matrix(objective, point, hessian, extra)[np.ix_(free, free)]
    b = np.where(held, 0.0, objective.gradient(point))
    x, expected = found.solve(b), np.linalg.solve(M, b[free])
    np.testing.assert_array_equal(x[held], 0.0)
    assert np.linalg.norm(x[free] - expected) < 1e-8 * np.linalg.norm(expected)
    np.testing.assert_allclose(b[free] @ x[free], b[free] @ expected, rtol=1e-12)


def test_the_step_of_the_fit_is_the_dense_newton_step(samples, cg, factored):
    objective, point = at_start(samples)
    local = newton.local_model(objective, point, near=np.inf)
    assert local.hessian.all()
    H, g = dense_matrix(objective, point, True), objective.gradient(point)
    expected = -np.linalg.solve(H, g)
    step = local.step(objective, np.zeros(1))
    assert np.linalg.norm(step - expected) < 1e-8 * np.linalg.norm(expected)
    assert local.distance[0] == pytest.approx(np.sqrt(-g @ expected), rel=1e-10)
    F = np.diag(dense_matrix(objective, point, False))
    expected = -np.linalg.solve(H + 0.1 * np.diag(F), g)
    step = local.step(objective, np.array([0.1]))
    assert np.linalg.norm(step - expected) < 1e-8 * np.linalg.norm(expected)


@pytest.mark.parametrize("off", [-1e-1, -1e-3, 1e-3, 1e-1])
def test_a_matrix_is_proved_positive_definite_or_not(samples, cg, off):
    """The smallest eigenvalue is moved to just above or just below 0."""
    objective, point = at_start(samples)
    H = dense_matrix(objective, point, True)
    F = np.diag(dense_matrix(objective, point, False))
    scaled = H / np.sqrt(np.outer(F, F))
    smallest = np.linalg.eigvalsh(scaled)[0]
    held = np.zeros(len(F), bool)
    extra = -(smallest - off * abs(smallest)) * F
    found = Quadratic(objective, point, np.array([True]), held, extra)
    assert found.bad.all() == found.bad.any() == (off < 0)


def test_an_indefinite_hessian_gives_way_to_fishers_matrix(samples, cg, factored):
    objective, point = at_start(samples)
    bent = point.pool_hessian.copy()
    bent[3] -= 3 * dense_matrix(objective, point, False)[0, 0] * np.eye(3)
    point = replace(point, pool_hessian=bent)
    assert np.linalg.eigvalsh(dense_matrix(objective, point, True))[0] < 0
    local = newton.local_model(objective, point)
    assert local.indefinite.all()
    assert not local.hessian.any()
    F, g = dense_matrix(objective, point, False), objective.gradient(point)
    np.testing.assert_allclose(local.newton, np.linalg.solve(F, g), rtol=1e-7)


def test_where_conjugate_gradients_find_no_end_the_block_is_factored(
    samples, cg, monkeypatch
):
    objective, point = at_start(samples)
    monkeypatch.setattr(quadratic, "_MOST", 2)
    g = objective.gradient(point)
    held = np.zeros(len(g), bool)
    found = Quadratic(objective, point, np.array([True]), held)
    assert not found.bad.any()
    expected = np.linalg.solve(dense_matrix(objective, point, True), g)
    np.testing.assert_allclose(found.solve(g), expected, rtol=1e-8)
    bent = replace(point, pool_hessian=-point.pool_hessian)
    assert Quadratic(objective, bent, np.array([True]), held).bad.any()


def test_wide_and_narrow_blocks_stand_side_by_side():
    objective, point = at_start(two_blocks(np.random.default_rng(82)))
    assert objective.nblocks == 2
    assert not objective.wide.any()
    g, held = objective.gradient(point), np.zeros(32, bool)
    held[5] = True
    g[held] = 0.0
    use = np.array([True, False])
    expected = Quadratic(objective, point, use, held).solve(g)
    for wide in ([True, False], [False, True], [True, True]):
        objective.wide = np.array(wide)
        found = Quadratic(objective, point, use, held).solve(g)
        np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_errors_of_wide_blocks_are_the_dense_ones(monkeypatch):
    objective, point = at_start(two_blocks(np.random.default_rng(83)))
    H = dense_matrix(objective, point, True)
    F = dense_matrix(objective, point, False)
    inverse = np.linalg.inv(H)
    expected = (
        np.diag(inverse @ F @ inverse),
        np.diag(inverse),
        np.diag(np.linalg.inv(F)),
    )
    for wide in ([True, False], [True, True]):
        objective.wide = np.array(wide)
        local = newton.local_model(objective, point)
        local = replace(local, indefinite=np.zeros(2, bool))
        found = uncertainty(objective, local)
        sigma = found.sigma, found.sigma_hessian, found.sigma_fisher
        for one_sigma, variance in zip(sigma, expected, strict=True):
            np.testing.assert_allclose(one_sigma**2, variance, rtol=1e-8)
    # Nothing of a wide block is factored.
    monkeypatch.setattr(curvature, "_lu", None)
    np.testing.assert_allclose(uncertainty(objective, local).sigma, found.sigma)


def test_rows_that_are_apart_share_no_pool(samples):
    objective, point = at_start(samples)
    matrix = objective.matrix(point, False)
    first = schur.apart(matrix)
    own = matrix[np.flatnonzero(first)][:, np.flatnonzero(first)].toarray()
    assert (own == np.diag(np.diag(own))).all()
    assert first.sum() >= NPATCH.max()


def test_wide_blocks_whiten_and_solve_as_dense_matrices_do():
    rng = np.random.default_rng(84)
    objective, point = at_start(two_blocks(rng))
    objective.wide = np.array([False, True])
    held = np.zeros(32, bool)
    held[[4, 30]] = True
    factor = Quadratic(objective, point, np.zeros(2, bool), held).factor
    assert isinstance(factor, quadratic.Factors)
    assert not factor.bad.any()
    M = dense_matrix(objective, point, False)
    M[held] = M[:, held] = 0.0
    M[held, held] = 1.0
    b = rng.normal(size=32) * np.sqrt(np.diag(M))
    z, x = factor.whiten_gradient(b), np.linalg.solve(M, b)
    assert z @ z == pytest.approx(b @ x, rel=1e-10)
    for found in (factor.unwhiten(z), factor.solve(b)):
        np.testing.assert_allclose(M @ found, b, rtol=1e-7)


def test_a_complement_that_is_too_large_gives_way_to_the_sparse_factor(
    samples, cg, monkeypatch
):
    objective, point = at_start(samples)
    local = newton.local_model(objective, point)
    expected = uncertainty(objective, local).sigma
    monkeypatch.setattr(schur, "LARGEST", 3)
    assert isinstance(newton.local_model(objective, point).factor, Factor)
    found = uncertainty(objective, local).sigma
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("off", [-1e-3, 1e-3])
def test_a_schur_complement_knows_whether_it_is_positive(samples, off):
    objective, point = at_start(samples)
    F = dense_matrix(objective, point, False)
    scale = np.sqrt(np.diag(F))
    smallest = np.linalg.eigvalsh(F / np.outer(scale, scale))[0]
    shift = sparse.diags_array((off - smallest) * scale**2)
    matrix = (objective.matrix(point, False) + shift).tocsc()
    found = schur.Schur(matrix, schur.apart(matrix))
    assert found.positive == (off > 0)
    b = scale * np.arange(len(scale))
    np.testing.assert_allclose(matrix @ found.solve(b), b, rtol=1e-6, atol=1e-6)


def run(samples, solver, **more):
    return fit(
        objective_at(samples, START, **more),
        solver=solver,
        tolerance=1e-3,
        max_steps=1000,
    )


def distance(samples, x, optimum):
    F = dense.fisher(samples.mix, optimum, samples.d, samples.invN)
    return np.sqrt((x - optimum) @ F @ (x - optimum))


def test_the_solvers_end_where_they_do_with_a_factor(samples, monkeypatch):
    factor = run(samples, "newton")
    monkeypatch.setattr(fill, "WIDEST", -1)
    adam = run(samples, "adam")
    assert factor.converged.all()
    assert adam.converged.all()
    assert distance(samples, adam.x, factor.x) < 1e-3
    monkeypatch.setattr(Quadratic, "factor", None)  # newton asks for none
    found = run(samples, "newton")
    assert found.converged.all()
    assert found.passes == factor.passes
    assert distance(samples, found.x, factor.x) < 1e-6
    # The gradient of the dense likelihood is zero there too, within its errors.
    g = dense.gradient(samples.mix, found.x, samples.d, samples.invN)
    F = dense.fisher(samples.mix, found.x, samples.d, samples.invN)
    assert np.sqrt(g @ np.linalg.solve(F, g)) < 1e-4


def test_bounds_hold(samples, cg, factored):
    found = run(samples, "newton", bounds={"Dust.temp": (10.0, 19.0)})  # truth: 20
    x = found.x[9:13]
    assert (x <= 19.0).all()
    assert found.local.held[9:13].any()
    np.testing.assert_array_equal(x[found.local.held[9:13]], 19.0)
    assert not found.converged.any()
    g = dense.gradient(samples.mix, found.x, samples.d, samples.invN)
    F = dense.fisher(samples.mix, found.x, samples.d, samples.invN)
    free = ~found.local.held
    assert (g[~free] < 0).all()  # they would go on
    assert np.sqrt(g[free] @ np.linalg.solve(F[np.ix_(free, free)], g[free])) < 1e-3


def sky_of_squares(side, widths):
    """Pools of a square sky: patches are squares that do not line up."""
    i, j = np.indices((side, side)).reshape(2, -1)
    return [
        np.unique((i + 3 * k) // w * side + (j + 5 * k) // w, return_inverse=True)[1]
        for k, w in enumerate(widths)
    ]


def pools_of(kinds):
    first = np.cumsum([0, *[k.max() + 1 for k in kinds]])[:-1]
    index = np.unique(first + np.stack(kinds, 1), axis=0)
    return index, components(index, int(index.max()) + 1)


def test_the_width_tells_regions_from_scattered_patches():
    rng = np.random.default_rng(83)
    kinds = sky_of_squares(96, (3, 7, 7))
    mixed = [k if n == 0 else rng.permutation(k) for n, k in enumerate(kinds)]
    found = {}
    for name, patches in (("regions", kinds), ("scattered", mixed)):
        index, label = pools_of(patches)
        (width,) = fill.widths(index, label, 0)
        rest = len(label) - kinds[0].max() - 1
        found[name] = width / rest
        ones = np.ones((len(index), 3, 3)) + 2 * np.eye(3)
        matrix = assemble(index, ones, np.ones(len(label)))
        size = Factor(matrix)._lu.L.nnz - len(label)
        assert 0.2 * width**2 < size < 20 * width**2 + 3 * matrix.nnz
    assert found["regions"] < 0.2
    assert found["scattered"] > 0.6


def test_kinds_of_few_patches_do_not_count():
    kinds = [np.arange(500), np.arange(500) % 40, np.zeros(500, int)]
    assert fill.widths(*pools_of(kinds), 0) == [0]


def test_a_fit_of_regions_is_factored(samples):
    assert not objective_at(samples, TRUTH).wide.any()


@pytest.mark.usefixtures("cg", "factored")
def test_the_same_bits_on_any_number_of_ranks(comm):
    def found(comm):
        part = bits.part("pixel", comm)
        # Seven groups of pixels from all over the sky, coupled by every region.
        scattered = {"map": np.arange(12 * 64**2) % 7, "ordering": "NEST"}
        result = distsep.separate(
            bits.laws(),
            part,
            patches={"Dust.beta_d": scattered, "Synchrotron.beta_pl": 1},
            solver="newton",
            comm=comm,
        )
        assert result.converged
        return np.concatenate([np.ravel(v) for v in result.parameters.values()])

    assert found(comm).tobytes() == found(serial()).tobytes()
