"""`distsep doctor`: is everything there, and does it work together?"""

import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata, util

import numpy as np
from rich.text import Text

from distsep.cli.session import Session
from distsep.native import gpu, kernels
from distsep.parallel import cores

PACKAGES = (
    "jax",
    "jaxlib",
    "numpy",
    "sympy",
    "lineax",
    "optax",
    "zarr",
    "healpy",
    "astropy",
    "pydantic",
    "camb",
)
MPI_PACKAGES = ("mpi4py", "mpi4jax")


def examine(session: Session) -> None:
    """Run every check, say how each went, and leave 1 as exit code if one failed.

    Communication: collective.
    """
    voice = session.voice
    checks: list[tuple[str, Callable[[Session], str]]] = [
        ("versions", _versions),
        ("MPI", _mpi),
        ("ranks", _ranks),
        ("devices", _devices),
        ("kernels", _kernels),
        ("separation", _separation),
    ]
    good = True
    for name, check in checks:
        try:
            words, mark, colour = check(session), "OK", "green"
        except Exception as error:  # noqa: BLE001 - the doctor reports whatever it finds
            words, mark, colour = f"{type(error).__name__}: {error}", "FAILED", "red"
            good = False
        voice.answer(
            Text.assemble((f"{mark:<7}", colour), (f"{name:<11}", "bold"), words)
        )
    if all(session.comm.allgather(good)):
        voice.answer("Everything works.")
    else:
        session.code = 1


def _versions(_: Session) -> str:
    found, missing = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise RuntimeError(f"not installed: {', '.join(missing)}")
    python = f"distsep {_own_version()}, Python {platform.python_version()}"
    return f"{python}, {', '.join(found)}"


def _own_version() -> str:
    try:
        return metadata.version("distsep")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _mpi(_: Session) -> str:
    missing = [p for p in MPI_PACKAGES if util.find_spec(p) is None]
    if missing:
        what = " and ".join(missing)
        return f"{what} not installed: one process only (`pip install 'distsep[mpi]'`)"
    from distsep.parallel import library

    versions = ", ".join(f"{p} {metadata.version(p)}" for p in MPI_PACKAGES)
    return f"{library()}, {versions}"


def _ranks(session: Session) -> str:
    comm = session.comm
    total = float(comm.sum(np.array([float(comm.rank)]))[0])
    if total != comm.size * (comm.size - 1) / 2:
        raise RuntimeError(f"the sum of the ranks came out as {total}")
    hosts = comm.allgather(platform.node())
    if comm.size == 1:
        return f"1, {sys.executable}"
    places = ", ".join(f"{hosts.count(h)} on {h}" for h in sorted(set(hosts)))
    return f"{comm.size}, their sum is right ({places})"


def _devices(session: Session) -> str:
    import jax

    own = [f"{d.platform}:{d.id}" for d in jax.local_devices()]
    every = session.comm.allgather(", ".join(own))
    if jax.numpy.ones(1).dtype != np.float64:
        raise RuntimeError("JAX computes in float32")
    return (
        "; ".join(f"rank {r}: {words}" for r, words in enumerate(every)) + "; float64"
    )


def _kernels(session: Session) -> str:
    """Say what the passes run on; all ranks must run the same, for the same bits."""
    import jax

    every = session.comm.allgather(kernels.state()[1])
    if len(set(every)) > 1:
        raise RuntimeError(f"the ranks differ: {', '.join(sorted(set(every)))}")
    number = sorted(set(session.comm.allgather(cores())))
    words = f"{every[0]}, {' or '.join(map(str, number))} core(s) per rank"
    if kernels.usable():
        return words
    if kernels.asked() and jax.default_backend() == "gpu":
        return f"{words}; on the GPU {gpu.state()[1]}, beside programs of XLA"
    return f"{words}; programs of XLA are used"


def _separation(session: Session) -> str:
    """Separate a small sky without noise: the truth must come back."""
    import distsep

    comm = session.comm
    components = [
        distsep.CMB(),
        distsep.Dust(353.0, temp=20.0),
        distsep.Synchrotron(23.0),
    ]
    truth = {"Dust.beta_d": 1.6, "Synchrotron.beta_pl": -3.1}
    instrument = distsep.instrument("LiteBIRD")
    A = np.asarray(distsep.MixingMatrix(components, instrument)(truth))
    ids = np.array_split(np.arange(192), comm.size)[comm.rank]
    s = np.random.default_rng(1).normal(0, 50, (3, 2, 192))[..., ids]
    observation = distsep.Observation(
        np.einsum("fc,csp->fsp", A, s),
        instrument,
        stokes="QU",
        nside=4,
        ordering="NEST",
        cell_ids=ids,
    )
    began = time.perf_counter()
    result = distsep.separate(components, observation, solver="newton", comm=comm)
    seconds = time.perf_counter() - began
    for name, value in truth.items():
        off = abs(float(result.parameters[name]) - value) / float(result.sigma[name])
        if not result.converged or not off < 1e-2:
            raise RuntimeError(f"{name} came out {off:.2g} sigma off: {result.message}")
    worst = np.nanmax(np.abs(np.asarray(result.amplitudes) - s), initial=0)
    if not worst < 1.0:
        raise RuntimeError(f"an amplitude came out {worst:.2g} uK off")
    return f"{seconds:.1f} s, the truth comes back, {result.message}"
