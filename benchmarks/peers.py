"""Runs the peers in their own environment (`peers.sh`), one process per question."""

from pathlib import Path
from typing import Any

import bench

PYTHON = bench.HERE / ".venv-peers" / "bin" / "python"

# Measured before with fgbuster 2.0.0 (40ef92c) on 2 cores of this kind of processor:
# QU, 15 LiteBIRD bands, float64, the same three components; CPU seconds. Quoted beside
# what is measured.
QUOTED_FIT = {64: 3.8, 128: 19.5, 256: 276.0}
QUOTED_FIT_PATCHES = {64: 11.0, 128: 22.7, 256: 55.0}
QUOTED_VALUE_GRADIENT = {64: 0.74, 128: 3.3, 256: 17.7}

# Seconds after which no further repeat is begun.
MOST = 200.0


def run(
    args: Any, name: str, task: str, data: Path, *, cores: int = 1, repeats: int = 3
) -> dict:
    """Ask a peer.

    Args:
        args: Command line; says which peers are wanted and for how long.
        name: "furax" or "fgbuster".
        task: One of the tasks of `peer_<name>.py`.
        data: npz file of a sky.
        cores: Processor cores it may use.
        repeats: At most so many.

    Returns:
        Its answer, or `{"failed": why}`.
    """
    if name not in args.peers:
        return {"failed": "not asked"}
    if not PYTHON.exists():
        return {"failed": "not installed: benchmarks/peers.sh"}
    threads = {k: str(cores) for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return bench.worker(
        f"peer_{name}.py",
        {"task": task, "data": str(data), "repeats": repeats, "most": MOST},
        python=PYTHON,
        cores=cores,
        timeout=args.peer_seconds,
        env=threads,
    )


def version(args: Any, name: str) -> str:
    """Name and version of a peer, for the results."""
    found = run(args, name, "version", Path())
    return f"{name} {found['version']}" if "version" in found else f"{name}: not run"
