"""Ranks: the sums are those of numpy on the whole, and a failure ends all ranks."""

import os
import re
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distsep.parallel import comm as comm_module
from distsep.parallel import guard, launched_by_mpi, serial, world


def share(rank, shape):
    """What rank `rank` holds; every rank can make everyone's."""
    return np.random.default_rng(rank).normal(size=shape)


@pytest.mark.parametrize("shape", [(), (1,), (101,), (3, 5, 7), (0,)])
def test_sum_is_the_sum_over_all_ranks(comm, shape):
    total = comm.sum(share(comm.rank, shape))
    expected = sum(share(rank, shape) for rank in range(comm.size))
    np.testing.assert_allclose(total, expected, rtol=1e-13, atol=1e-15)
    assert total.dtype == np.float64
    assert type(total) is np.ndarray


def test_sum_of_a_tree_is_one_message_per_call(comm, monkeypatch):
    messages = []
    if comm.size > 1:
        send = comm._allreduce
        note = lambda x: messages.append(x.size) or send(x)  # noqa: E731
        monkeypatch.setattr(comm, "_allreduce", note)
    tree = {"a": share(comm.rank, (4, 3)), "b": [jnp.float64(comm.rank), np.ones(2)]}
    total = comm.sum(tree)
    ranks = range(comm.size)
    np.testing.assert_allclose(total["a"], sum(share(r, (4, 3)) for r in ranks))
    assert messages == ([15] if comm.size > 1 else [])
    assert total["b"][0] == sum(ranks)
    np.testing.assert_array_equal(total["b"][1], np.full(2, comm.size))


def test_sum_accepts_sharded_and_numpy_arrays_and_leaves_them_alone(comm):
    from distsep.parallel import device_mesh, spread

    x = share(comm.rank, (8, 2))
    kept = x.copy()
    sharded = spread(device_mesh(), x)
    np.testing.assert_array_equal(comm.sum(sharded), comm.sum(x))
    np.testing.assert_array_equal(x, kept)


def test_a_table_filled_by_one_rank_per_row_has_exact_bits(comm):
    rows = np.random.default_rng(5).normal(size=(13, 6)) * 1e10
    mine = np.zeros_like(rows)
    mine[comm.rank :: comm.size] = rows[comm.rank :: comm.size]
    np.testing.assert_array_equal(comm.sum(mine), rows)


def test_integers_are_summed_exactly(comm):
    big = np.int64(2**60 + 1)
    total = comm.sum(np.array([big if comm.rank == 0 else 3]))
    assert int(total[0]) == int(big) + 3 * (comm.size - 1)


def test_a_tree_of_two_types_is_refused(comm):
    """In one message the integers would be rounded."""
    with pytest.raises(TypeError, match=r"float64, int64.*Sum each type by itself"):
        comm.sum({"a": np.ones(2), "b": np.array([2**60 + 1])})


def test_long_arrays_go_in_several_messages(comm, monkeypatch):
    monkeypatch.setattr(comm_module, "_LARGEST_MESSAGE", 10)
    x = share(comm.rank, (33,))
    expected = sum(share(rank, (33,)) for rank in range(comm.size))
    np.testing.assert_allclose(comm.sum(x), expected, rtol=1e-13, atol=1e-15)


def test_sum_refuses_single_precision_and_traced_arrays(comm):
    with pytest.raises(TypeError, match=r"expected float64 or integers, got float32"):
        comm.sum(np.ones(3, np.float32))
    with pytest.raises(TypeError, match="traced"):
        jax.jit(comm.sum)(jnp.ones(3))


def test_max_bcast_and_gathers(comm):
    last = comm.size - 1
    np.testing.assert_array_equal(
        comm.max(np.array([comm.rank, -comm.rank], float)), [last, 0]
    )
    assert np.isnan(comm.max(np.nan if comm.rank == last else 1.0))
    assert comm.bcast({"rank": comm.rank}, root=last) == {"rank": last}
    np.testing.assert_array_equal(comm.bcast(share(comm.rank, 5)), share(0, 5))
    assert comm.allgather(comm.rank) == list(range(comm.size))
    assert comm.gather(comm.rank) == (
        list(range(comm.size)) if comm.rank == 0 else None
    )
    comm.barrier()


def test_ranks_out_of_step_are_found_on_every_rank(comm):
    comm.require_same("beta", np.array([1.54, 20.0]))
    if comm.size > 1:
        odd = np.nextafter(1.54, 2) if comm.rank == comm.size - 1 else 1.54
        with pytest.raises(RuntimeError, match=r"`beta`.*ranks \[\d\] differ"):
            comm.require_same("beta", np.array([odd]))


def test_split_gives_groups_that_sum_alone(comm):
    part = comm.split(comm.rank % 2)
    members = [rank for rank in range(comm.size) if rank % 2 == comm.rank % 2]
    assert part.size == len(members)
    assert float(part.sum(np.float64(comm.rank))) == sum(members)


def test_world_is_one_object_and_has_the_launched_size(comm):
    if comm.size > 1:
        assert world() is comm
        assert launched_by_mpi()
    else:
        assert not launched_by_mpi()


def test_gradient_through_an_allreduce_is_only_a_share(comm):
    """The trap for which `sum` refuses tracers, on purpose."""
    if comm.size == 1:
        pytest.skip("needs several ranks")
    total = lambda x: comm._allreduce(x * (comm.rank + 1.0))
    gradient = jax.grad(total)(jnp.float64(1.0))
    assert float(gradient) == comm.rank + 1
    assert float(comm.sum(gradient)) == comm.size * (comm.size + 1) / 2


def test_serial_needs_no_mpi():
    """The debugging door: one process works where mpi4py and mpi4jax are absent."""
    program = textwrap.dedent(
        """
        import sys
        sys.modules["mpi4py"] = sys.modules["mpi4jax"] = None
        import jax, numpy as np
        jax.config.update("jax_enable_x64", True)
        from distsep.parallel import serial, world, launched_by_mpi
        comm = serial()
        assert comm.sum(np.ones(3)).tolist() == [1.0, 1.0, 1.0]
        assert not launched_by_mpi() and comm.bcast(3) == 3 and comm.split(1).size == 1
        try:
            world()
        except ImportError as error:
            print(error)
        """
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "SLURM"))}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=clean
    )
    assert done.returncode == 0, done.stderr
    assert "distsep[mpi]" in done.stdout


def test_several_processes_without_a_common_world_are_refused(mpirun):
    """`srun --mpi=none` starts n lone processes that see only SLURM's variables."""
    program = "from distsep.parallel import world; world()"
    env = {k: v for k, v in os.environ.items() if not k.startswith("PMI")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=env | {"SLURM_STEP_NUM_TASKS": "2"},
    )
    assert done.returncode != 0
    assert "launcher started 2 processes but MPI sees 1" in done.stderr
    assert "--mpi=pmi2" in done.stderr


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("raise RuntimeError('broken detector')", "broken detector"),
        ("sys.exit(5)", "SystemExit: 5"),
        ("sys.exit(0)", "SystemExit: 0"),
    ],
)
def test_a_failure_on_one_rank_ends_all_ranks(mpirun, tmp_path, failure, words):
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            import numpy as np
            from distsep.parallel import guard, world

            comm = world()
            with guard(comm):
                comm.sum(np.ones(3))
                sys.stdout.write(f"start {{time.time()}}\\n")  # one write: whole lines
                sys.stdout.flush()
                if comm.rank == 1:
                    {failure}
                comm.sum(np.ones(3))
                time.sleep(60)
            """
        )
    )
    done = mpirun(3, program, timeout=60)
    end = time.time()
    started = max(map(float, re.findall(r"start (\d+\.\d+)", done.stdout)))
    assert end - started < 8
    assert done.returncode != 0
    assert done.stderr.count("Traceback") == 1
    assert "rank 1 of 3 failed" in done.stderr
    assert words in done.stderr


def test_a_failure_on_all_ranks_is_told_once(mpirun, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from distsep.parallel import guard, world\n"
        "comm = world()\n"
        "with guard(comm):\n"
        "    comm.barrier()\n"
        "    raise ValueError('no such map')\n"
    )
    done = mpirun(3, program, timeout=60)
    assert done.returncode != 0
    assert done.stderr.count("ValueError: no such map") == 1


def test_guard_lets_exceptions_of_one_process_pass():
    with pytest.raises(ValueError, match="as it was"), guard(serial()):
        raise ValueError("as it was")
