"""The scripts in launch/: one GPU per local rank, and words for what is missing."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import distsep
from distsep.config.run import read_config
from distsep.config.sky import read_sky
from distsep.data.store import save_observation

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
LAUNCHERS = {
    "mpich": ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "openmpi": ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    "srun": ("SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
}


def run(*command, drop=(), cwd=None, **env):
    keep = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("PMI", "MPI_", "OMPI", "SLURM", "CUDA", "XLA_PYTHON"))
        and k not in drop
    }
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=keep | env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )


def bound(**env):
    script = 'echo "${CUDA_VISIBLE_DEVICES-none} ${XLA_PYTHON_CLIENT_PREALLOCATE-own}"'
    return run(LAUNCH / "gpu-bind", "bash", "-c", script, **env).stdout.split()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_each_local_rank_has_its_gpu(launcher):
    rank, size = LAUNCHERS[launcher]
    gpus = [
        bound(CUDA_VISIBLE_DEVICES="4,5,7", **{rank: str(r), size: "3"})
        for r in range(3)
    ]
    assert gpus == [["4", "own"], ["5", "own"], ["7", "own"]]


def test_a_gpu_that_slurm_has_chosen_is_kept():
    assert bound(CUDA_VISIBLE_DEVICES="3", SLURM_LOCALID="2") == ["3", "own"]


def test_ranks_that_share_a_gpu_share_its_memory():
    env = {"MPI_LOCALRANKID": "3", "MPI_LOCALNRANKS": "4"}
    assert bound(CUDA_VISIBLE_DEVICES="0,1", **env) == ["1", "false"]


def test_the_gpus_of_the_node_are_counted(tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 0\necho 1\n")
    smi.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert bound(PATH=path, MPI_LOCALRANKID="1", MPI_LOCALNRANKS="2") == ["1", "own"]


def test_mpirun_and_slurm_scripts_say_what_they_need(tmp_path):
    done = run(LAUNCH / "mpirun.sh")
    assert done.returncode == 2
    assert "usage" in done.stderr
    done = run(LAUNCH / "slurm.sh", "distsep", cwd=tmp_path)
    assert done.returncode == 2
    assert "DISTSEP_ROOT" in done.stderr
    done = run(LAUNCH / "slurm.sh", cwd=LAUNCH.parent)
    assert done.returncode == 2
    assert "no command" in done.stderr


def test_setup_refuses_an_mpi_that_is_not_there():
    done = run(LAUNCH / "setup", MPICC="/no/such/mpicc", DISTSEP_ENV="/no/such/env")
    assert done.returncode == 1
    assert "load the MPI module" in done.stderr
    done = run(LAUNCH / "setup", DISTSEP_MPI="systen", DISTSEP_ENV="/no/such/env")
    assert done.returncode == 1
    assert "`embedded` or `system`, got `systen`" in done.stderr


def test_examples_are_good_configurations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sky = read_sky(LAUNCH / "examples" / "sky.toml")
    assert sky.sky.nside == 64
    observation = distsep.Observation(
        np.ones((15, 2, 12)), distsep.instrument("LiteBIRD"), stokes="QU", nside=1
    )
    save_observation(observation, "sky.zarr")
    config = read_config(LAUNCH / "examples" / "litebird.toml")
    kinds = ["CMB", "Dust", "Synchrotron"]
    assert [c.kind for c in sky.component] == kinds
    assert [c.kind for c in config.component] == kinds
