"""Ranks, devices and files that the tests use.

The suite runs serially (`pytest`) and, for the tests marked `mpi`, on several ranks
(`mpirun -n N python -m mpi4py -m pytest -m mpi`): see `launch/test`.
"""

import atexit
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

# Two local devices, before jax is imported: the whole suite sees a sharded machine.
DEVICES = 2
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + f" --xla_force_host_platform_device_count={DEVICES}"
)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

_outcomes: Counter[str] = Counter()


def shared_file(*parts: str) -> Path:
    """Path of a reference file; the test is skipped, with the reason, without it."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs the reference file shared/{'/'.join(parts)}")
    return path


def example(name: str):
    """The module of one of `launch/examples`."""
    path = ROOT / "launch" / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _world():
    from distsep.parallel import launched_by_mpi, serial, world

    return world() if launched_by_mpi() else serial()


@pytest.fixture(scope="session")
def comm():
    """All ranks of this run; one without mpirun."""
    return _world()


@pytest.fixture
def shared_tmp_path(comm, tmp_path):
    """A temporary directory that all ranks share."""
    yield Path(comm.bcast(str(tmp_path)))
    comm.barrier()


@pytest.fixture
def mpirun():
    """Start a Python program on several ranks: `mpirun(n, *arguments, env={})`."""
    from distsep.parallel import launched_by_mpi

    if launched_by_mpi():
        pytest.skip("starts mpirun itself")
    pytest.importorskip("mpi4jax")

    # The embedded MPI stands beside this Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    launcher = shutil.which("mpirun", path=path)
    if launcher is None:
        pytest.skip("needs mpirun")

    def run(n, *arguments, timeout=180, env=None, cwd=None):
        command = [launcher, "-n", str(n), sys.executable, *map(str, arguments)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return run


def pytest_configure(config):
    """Ranks have a cache of compiled programs each, and rank 0 speaks."""
    comm = _world()
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if cache:
        jax.config.update("jax_compilation_cache_dir", f"{cache}/rank-{comm.rank}")
    if comm.rank > 0:
        # The terminal reporter, configured after this, keeps the stream it finds.
        sys.stdout = open(os.devnull, "w")


def pytest_sessionstart():
    """Each rank has temporary files of its own: pytest deletes those of other runs."""
    from distsep.parallel import launched_by_mpi

    if launched_by_mpi():
        root = tempfile.mkdtemp(prefix="distsep-tests-")
        os.environ["PYTEST_DEBUG_TEMPROOT"] = root
        atexit.register(shutil.rmtree, root, ignore_errors=True)


def pytest_report_header():
    lines = [f"jax {jax.__version__}, {jax.local_device_count()} local devices"]
    comm = _world()
    if comm.size > 1:
        from mpi4py import MPI

        vendor, version = MPI.get_vendor()
        lines.append(
            f"MPI: {vendor} {'.'.join(map(str, version))}, {comm.size} ranks, this is "
            f"rank {comm.rank}"
        )
    return lines


def pytest_collection_modifyitems(items):
    for item in items:
        if {"comm", "shared_tmp_path"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("mpi")


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.outcome] += 1
    # The other ranks may be waiting for this one in a collective call: a failure ends
    # the job. The lowest failing rank speaks.
    comm = _world()
    if report.failed and comm.size > 1:
        time.sleep(0.8 * min(comm.rank, 4))
        sys.stderr.write(
            f"\nrank {comm.rank} of {comm.size} failed: {report.nodeid}\n"
            f"{report.longreprtext}\n"
        )
        comm.abort(1)


def pytest_sessionfinish(session):
    """Leave this rank's counts where `launch/test` compares them."""
    directory = os.environ.get("DISTSEP_TEST_COUNTS")
    if directory and not session.config.option.collectonly:
        comm = _world()
        counts = {name: _outcomes[name] for name in ("passed", "failed", "skipped")}
        path = Path(directory) / f"rank-{comm.rank}.json"
        path.write_text(json.dumps({"size": comm.size, **counts}))


def pytest_unconfigure(config):
    """The launcher drops the last words of a job that ends with an error."""
    if _world().size > 1:
        sys.stdout.flush()
        time.sleep(0.5)
