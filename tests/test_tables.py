"""Tables of the pools: in batches, and on each rank of its own samples alone."""

import bits
import dense
import jax
import numpy as np
import pytest
from problems import NU, TRUTH, components

import distsep
from distsep.inference.model import Model, in_batches
from distsep.maps import source_of
from distsep.problem import set_up

FEW, MANY = 128, 700


def drawn(npool, white=None):
    """A model of pools that each have parameters of their own, and their values."""
    rng = np.random.default_rng(260)
    bandpass = [(nu * np.linspace(0.9, 1.1, 7), np.ones(7)) for nu in NU]
    bands = distsep.Instrument(NU, bandpass=bandpass if white == "bands" else None)
    mixing = distsep.MixingMatrix(components(), bands)
    spread = np.array([0.1, 2.0, 0.1])
    values = TRUTH + spread * rng.uniform(-1, 1, (npool, 3))
    table = None
    if white == "diagonal":
        table = rng.uniform(1, 2, (2, len(NU)))
    elif white == "dense":
        table = rng.normal(size=(2, len(NU), len(NU))) / 9 + np.eye(len(NU))
    index = np.arange(3 * npool).reshape(npool, 3)
    classes = rng.integers(0, 2, npool)
    return Model(mixing, index, classes, table), values


@pytest.mark.parametrize("npool", [5, FEW, FEW + 1, MANY])
def test_A_is_that_of_the_formulas(npool):
    model, values = drawn(npool)
    A = np.asarray(model.tables(values.ravel()).A)
    assert A.shape == (npool, len(NU), 3)
    for found, x in zip(A, values, strict=True):
        np.testing.assert_allclose(found, dense.emission(np.array(NU), *x), rtol=1e-12)


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("white", [None, "diagonal", "dense", "bands"])
def test_some_of_many_pools_have_the_bits_they_have_among_all(white, second):
    model, values = drawn(MANY, white)
    x = values.ravel()
    every, rows = model.tables(x, second), model.rows(x)
    rng = np.random.default_rng(261)
    for count in (1, 129, 300):
        pools = np.sort(rng.choice(MANY, count, replace=False))
        some = model.of(pools)
        same(some.tables(x, second), every, pools)
        same(some.rows(x), rows, pools)


def same(some, every, pools):
    a, b = jax.tree.leaves(some), jax.tree.leaves(every)
    assert len(a) == len(b)
    for mine, whole in zip(a, b, strict=True):
        assert np.asarray(mine).tobytes() == np.asarray(whole)[pools].tobytes()


def test_few_pools_are_not_parted():
    assert not in_batches(FEW)
    assert in_batches(FEW + 1)
    with pytest.raises(ValueError, match="too few"):
        drawn(FEW)[0].of(np.arange(3))


def test_a_rank_has_the_tables_of_its_own_samples(comm):
    """What it finds with them has the bits of one process: `test_bits.py`."""
    source = source_of(bits.part("pixel", comm), None, comm)
    problem = set_up(bits.laws(), source, comm=comm, patches={"Dust.beta_d": 16})
    plan, index = problem.plan, np.asarray(problem.model.index)
    assert in_batches(plan.pools.number)
    sample = plan.sample(0)
    np.testing.assert_array_equal(plan.own, np.unique(sample[sample >= 0]))
    np.testing.assert_array_equal(np.asarray(problem.own.index), index[plan.own])
    share = source.header.npix / source.header.grid.npix
    assert len(plan.own) / plan.pools.number == pytest.approx(share, abs=0.02)
