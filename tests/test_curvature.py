"""Block-sparse matrices of the parameters against dense numpy."""

from functools import partial

import numpy as np
import pytest
import scipy.sparse as sparse

from distsep.inference import curvature, uncertainty
from distsep.inference.curvature import (
    Factor,
    assemble,
    components,
    places,
    sandwich_diagonal,
)


def pools(rng, npatch, npool):
    """Parameter of each kind in each pool: kinds with `npatch` patches each."""
    first = np.concatenate([[0], np.cumsum(npatch)[:-1]])
    patch = np.stack([rng.integers(0, n, npool) for n in npatch], 1)
    for k, n in enumerate(npatch):
        patch[:n, k] = np.arange(n)  # every patch has data
    return first + patch


def positive(rng, npool, n, scale):
    """Positive matrices whose parameters differ by `scale` in size."""
    draws = rng.normal(size=(npool, n, n + 2)) * scale[:, None]
    return draws @ draws.swapaxes(1, 2)


NPATCH = {"joint": [6, 4, 1], "apart": [5, 5], "one": [1, 1, 1]}


@pytest.fixture(params=NPATCH)
def case(request):
    rng = np.random.default_rng(30)
    npatch = NPATCH[request.param]
    scale = np.array([1.0, 1e4, 1e-3])[: len(npatch)]
    if request.param == "apart":
        index = np.stack([np.arange(5), 5 + np.arange(5)], 1)
    else:
        index = pools(rng, npatch, 20)
    blocks = positive(rng, len(index), len(npatch), scale)
    H = assemble(index, blocks, np.full(sum(npatch), 1e-7))
    return rng, index, blocks, H


def test_assemble_adds_the_blocks_of_all_pools(case):
    _, index, blocks, H = case
    dense = np.diag(np.full(H.shape[0], 1e-7))
    for row, block in zip(index, blocks, strict=True):
        dense[np.ix_(row, row)] += block
    np.testing.assert_allclose(H.toarray(), dense, rtol=1e-13, atol=1e-30)


def test_components_are_what_no_pool_couples(case):
    _, index, _, H = case
    label = components(index, H.shape[0])
    linked = np.linalg.matrix_power((H.toarray() != 0).astype(float), 8) > 0
    np.testing.assert_array_equal(label[:, None] == label, linked)
    place = places(label)
    pairs = set(zip(label, place, strict=True))
    assert len(pairs) == len(label)
    assert all(place[label == b].max() + 1 == (label == b).sum() for b in set(label))


def test_solve(case):
    rng, _, _, H = case
    dense, factor = H.toarray(), Factor(H)
    assert not factor.bad.any()
    for b in (rng.normal(size=len(dense)), rng.normal(size=(len(dense), 3))):
        b = b / factor.scale if b.ndim == 1 else b / factor.scale[:, None]
        x, expected = factor.solve(b), np.linalg.solve(dense, b)
        np.testing.assert_allclose(
            x, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max()
        )


def test_whitened_coordinates(case):
    rng, index, _, H = case
    dense, factor = H.toarray(), Factor(H)
    n = len(dense)
    W = np.stack([factor.unwhiten(e) for e in np.eye(n)], 1)
    np.testing.assert_allclose(W.T @ dense @ W, np.eye(n), atol=1e-7)
    g = rng.normal(size=n) / factor.scale
    np.testing.assert_allclose(factor.whiten_gradient(g), W.T @ g, rtol=1e-8, atol=1e-9)
    label = components(index, n)
    assert (W[label[:, None] != label] == 0).all()  # couples only what H does


@pytest.mark.parametrize("probed", [True, False])
def test_diagonal_of_the_inverse_on_both_paths(case, probed, monkeypatch):
    rng, index, _, H = case
    monkeypatch.setattr(curvature, "_LARGEST_PROBED", 64 if probed else 0)
    found = Factor(H, components(index, H.shape[0])).inverse_diagonal()
    expected = np.diag(np.linalg.inv(H.toarray()))
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("probed", [True, False])
def test_diagonal_of_the_sandwich(case, probed, monkeypatch):
    rng, index, blocks, H = case
    monkeypatch.setattr(curvature, "_LARGEST_PROBED", 64 if probed else 0)
    n, k = len(H.toarray()), index.shape[1]
    scale = np.sqrt(np.diagonal(blocks, axis1=1, axis2=2).mean(0))
    F = assemble(index, positive(rng, len(index), k, scale), np.full(n, 1e-7))
    invert = partial(Factor, label=components(index, n))
    inverse, sandwich = sandwich_diagonal(H, F, invert)
    dense = np.linalg.inv(H.toarray())
    np.testing.assert_allclose(inverse, np.diag(dense), rtol=1e-7)
    expected = np.diag(dense @ F.toarray() @ dense)
    np.testing.assert_allclose(sandwich, expected, rtol=1e-6)


def test_a_large_sparse_problem_takes_the_second_path_by_itself():
    rng = np.random.default_rng(31)
    index = pools(rng, [300, 30, 10], 500)
    H = assemble(index, positive(rng, 500, 3, np.ones(3)), np.full(340, 1e-3))
    label = components(index, 340)
    assert np.bincount(label).max() > curvature._LARGEST_PROBED
    expected = np.diag(np.linalg.inv(H.toarray()))
    found = Factor(H, label).inverse_diagonal()
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize(
    "block",
    [[[1.0, 3.0], [3.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]],
    ids=["indefinite", "singular", "zero"],
)
def test_a_block_that_cannot_be_inverted_is_named_alone(block):
    rng = np.random.default_rng(32)
    index = np.stack([np.arange(5), 5 + np.arange(5)], 1)
    blocks = positive(rng, 5, 2, np.ones(2))
    blocks[3] = block
    H = assemble(index, blocks, np.zeros(10))
    factor, label = Factor(H), components(index, 10)
    assert set(label[factor.bad]) == {label[3]}
    good, b = label != label[3], rng.normal(size=10)
    expected = np.linalg.solve(H.toarray()[np.ix_(good, good)], b[good])
    np.testing.assert_allclose(factor.solve(b)[good], expected, rtol=1e-9)


@pytest.mark.parametrize("matrix", [np.ones((2, 2)), np.zeros((2, 2)), -np.eye(2)])
def test_a_singular_or_negative_matrix_is_bad(matrix):
    assert Factor(sparse.csc_matrix(matrix)).bad.any()


@pytest.mark.parametrize("how", ["blocks", "columns", "variances"])
def test_the_covariance_of_the_parameters_of_each_pool(case, how, monkeypatch):
    rng, index, blocks, H = case
    more = positive(rng, len(index), index.shape[1], np.ones(index.shape[1]))
    scale = np.sqrt(np.abs(blocks).mean((0, 1)))
    F = assemble(index, more * np.outer(scale, scale), np.full(H.shape[0], 1e-7))
    monkeypatch.setattr(uncertainty, "_DENSE", 64 if how == "blocks" else 0)
    monkeypatch.setattr(uncertainty, "_COLUMNS", 3)
    if how == "variances":
        monkeypatch.setattr(uncertainty, "LARGEST_COUPLED", 0)
    inverse = np.linalg.inv(H.toarray())
    whole = inverse @ F.toarray() @ inverse
    label = components(index, H.shape[0])
    found = uncertainty._selected(H, F, label, np.diag(whole), index)
    expected = whole[index[:, :, None], index[:, None, :]]
    if how == "variances":
        expected = expected * np.eye(index.shape[1])
    unit = np.sqrt(np.diag(whole))[index]
    off = (found - expected) / (unit[:, :, None] * unit[:, None, :])
    assert np.abs(off).max() < 1e-8
