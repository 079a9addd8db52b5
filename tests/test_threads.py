"""Cores of a process among the ranks of its node."""

import os

import pytest

from distsep.parallel import cores
from distsep.parallel.threads import share_cores

ENVIRONMENT = (
    "NPROC",
    "MPI_LOCALNRANKS",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "SLURM_STEP_TASKS_PER_NODE",
)


@pytest.fixture
def node(monkeypatch):
    """A node where this process may use `mine` cores, and its launcher `all_of_us`."""
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "")  # what a test sets is taken back
        monkeypatch.delenv(name)

    def make(mine, all_of_us, **environment):
        masks = {0: range(mine), os.getppid(): range(all_of_us)}
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(masks[pid]))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return make


@pytest.mark.parametrize(
    ("mine", "all_of_us", "environment", "expected"),
    [
        (8, 64, {}, 8),  # taskset, one process
        (64, 64, {"MPI_LOCALNRANKS": "4"}, 16),  # not bound
        (8, 8, {"MPI_LOCALNRANKS": "8"}, 1),  # not bound, in a job of 8 cores
        (1, 64, {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 1),  # bound to cores
        (32, 64, {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 16),  # bound to sockets
        (16, 64, {"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, 16),
        (16, 64, {"SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}, 16),
        (2, 2, {"MPI_LOCALNRANKS": "5"}, 1),  # more ranks than cores
        (64, 64, {"MPI_LOCALNRANKS": "4", "NPROC": "3"}, 3),
        (4, 4, {"NPROC": "many"}, 4),
    ],
)
def test_cores_of_a_process(node, mine, all_of_us, environment, expected):
    node(mine, all_of_us, **environment)
    assert cores() == expected


def test_a_process_alone_leaves_the_threads_of_xla_as_they_are(node):
    node(4, 8)
    share_cores()
    assert "NPROC" not in os.environ


def test_ranks_share_the_threads_of_xla(node):
    node(4, 8, MPI_LOCALNRANKS="4")
    share_cores()
    assert os.environ["NPROC"] == "2"
