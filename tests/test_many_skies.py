"""Many simulated skies, shared out over the ranks: the example, on coarse ones."""

import numpy as np
import pytest
from conftest import example

NSIDE, NUMBER = 16, 9


@pytest.fixture(scope="module")
def skies():
    return example("many_skies")


def test_the_ranks_share_the_skies_and_the_errors_are_right(skies, comm):
    """chi2 of all pulls, and of all skies, at five standard deviations."""
    rows = skies.separate_all(NUMBER, comm, NSIDE)
    assert (rows is None) == (comm.rank > 0)
    if rows is None:
        return
    assert [row["seed"] for row in rows] == list(range(NUMBER))
    assert all(row["converged"] for row in rows)
    found = skies.pulls(rows)
    assert found.shape == (NUMBER, len(skies.TRUTH))
    z = (np.sum(found**2) - found.size) / np.sqrt(2 * found.size)
    assert abs(z) < 5
    chi2, dof = (sum(row[k] for row in rows) for k in ("chi2", "dof"))
    assert abs(chi2 - dof) < 5 * np.sqrt(2 * dof)


def test_a_sky_is_the_same_on_whichever_rank(skies, comm):
    mine = skies.separate(3, NSIDE)
    assert all(theirs == mine for theirs in comm.allgather(mine))
