"""Derivatives of A without the columns that are zero, against whole arrays."""

import jax.numpy as jnp
import numpy as np
import pytest

from distsep.model.entries import Entries

K, NROW, NCOLUMN, NPOOL = 3, 5, 4, 2


def some(order, seed=0):
    """Entries at a third of the places, and the whole array."""
    rng = np.random.default_rng(seed)
    shape = (*(K,) * order, NCOLUMN)
    chosen = rng.random(shape) < 1 / 3
    columns = {
        (*p,): jnp.asarray(rng.normal(size=(NPOOL, NROW)))
        for p in np.argwhere(chosen).tolist()
    }
    whole = np.zeros((NPOOL, *shape[:-1], NROW, NCOLUMN))
    for (*kinds, c), x in columns.items():
        if kinds == sorted(kinds):
            for one in (kinds, kinds[::-1]):
                whole[(slice(None), *one, slice(None), c)] = x
    return Entries.of(columns, (K, NCOLUMN), (NPOOL, NROW)), whole


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_the_whole_arrays(order, seed):
    found, whole = some(order, seed)
    assert 0 < len(found.places) < np.prod((*(K,) * order, NCOLUMN))
    np.testing.assert_array_equal(found.dense(order), whole)
    again = Entries.full(jnp.asarray(whole[1]))
    np.testing.assert_array_equal(again.dense(order), whole[1])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("nmoved", [0, 2, NCOLUMN])
def test_products_with_a_triangle(order, nmoved):
    found, whole = some(order)
    R = np.triu(np.random.default_rng(1).normal(size=(NPOOL, nmoved, nmoved)))
    every = np.tile(np.eye(NCOLUMN), (NPOOL, 1, 1))
    every[:, :nmoved, :nmoved] = R
    product = found.times(jnp.asarray(R)).dense(order)
    expected = np.einsum("p...c,pcd->p...d", whole, every)
    np.testing.assert_allclose(product, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("order", [1, 2])
def test_columns_in_another_order_and_rows_of_another_kind(order):
    found, whole = some(order)
    new = [2, 0, 3, 1]
    np.testing.assert_array_equal(found.reordered(new).dense(order), whole[..., new])
    twice = found.rows(lambda x: jnp.concatenate([x, 2 * x], -2)).dense(order)
    np.testing.assert_array_equal(twice[..., NROW:, :], 2 * whole)


def test_nothing_moves():
    nothing = Entries.of({}, (0, NCOLUMN), (NPOOL, NROW))
    assert nothing.value.shape == (NPOOL, 0, NROW)
    assert nothing.dense(1).shape == (NPOOL, 0, NROW, NCOLUMN)
    assert nothing.times(jnp.ones((NPOOL, 2, 2))).dense(2).shape[1:3] == (0, 0)
