"""What the benchmarks share: their command line, their workers, their results file.

Import this first: it sets the threads of the numerical libraries before they start.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# One thread for BLAS: cores are given to devices, ranks and workers, and counted.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A worker's share of the processor, before any thread is started. Where memory is short
# the system ends the worker, and the benchmark says so.
if "BENCH_CORES" in os.environ:
    os.sched_setaffinity(0, json.loads(os.environ["BENCH_CORES"]))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PACKAGES = ("jax", "numpy", "scipy", "zarr", "optax", "lineax", "mpi4jax", "mpich")


def arguments(
    doc: str, nside: Sequence[int] = (), smoke: Sequence[int] = (8,), **options: Any
) -> argparse.Namespace:
    """Read the command line all benchmarks have; `--smoke` chooses small sizes.

    Args:
        doc: Docstring of the benchmark.
        nside: Resolutions by default.
        smoke: With `--smoke`.
        options: More options of this benchmark, by name: their defaults.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--smoke", action="store_true", help="small sizes, one repeat: does it run?")
    add("--nside", type=int, nargs="+", default=None)
    add("--repeats", type=int, default=None)
    add("--peers", default="furax,fgbuster", help="names, or none")
    add("--peer-seconds", type=float, default=900.0, help="end a peer after these")
    add("--results", type=Path, default=None, help="file whose section is replaced")
    add("--work", type=Path, default=HERE / "work", help="folder for large files")
    for name, default in options.items():
        kind = type(default)
        more = {"action": "store_true"} if kind is bool else {"type": kind}
        add(f"--{name.replace('_', '-')}", default=default, **more)
    args = parser.parse_args()
    args.nside = args.nside or list(smoke if args.smoke else nside)
    args.repeats = args.repeats or (1 if args.smoke else 5)
    args.peers = [] if args.smoke or args.peers == "none" else args.peers.split(",")
    if args.results is None and not args.smoke:
        args.results = HERE / "results" / f"{machine_name()}.md"
    args.work.mkdir(parents=True, exist_ok=True)
    return args


def worker(script: str, task: dict[str, Any], *, cores: int | None = None, **how: Any):
    """Run a task in a process of its own and return what it printed.

    The process gets `--worker JSON`; the last line it prints is its answer, as JSON.

    Args:
        script: File of this folder.
        task: What to do.
        cores: Processor cores it may use; all by default.
        how: `python` (of another environment), `ranks` of it, `timeout` [s], `env`.

    Returns:
        The answer, or `{"failed": why}`.
    """
    allowed = sorted(os.sched_getaffinity(0))[: cores or None]
    launcher: list[str] = []
    if how.get("ranks", 1) > 1:
        folder = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        mpirun = shutil.which("mpirun", path=folder)
        if mpirun is None:
            return {"failed": "no mpirun"}
        launcher = [mpirun, "-n", str(how["ranks"])]
    command = [
        *launcher,
        str(how.get("python", sys.executable)),
        *(["-m", "mpi4py"] if launcher else []),
        str(HERE / script),
        "--worker",
        json.dumps(task),
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=how.get("timeout"),
            env={
                **os.environ,
                **how.get("env", {}),
                "BENCH_CORES": json.dumps(allowed),
            },
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {how['timeout']:.0f} s"}
    lines = [x for x in done.stdout.splitlines() if x.startswith("{")]
    if done.returncode == -signal.SIGKILL:
        return {"failed": "killed: not enough memory"}
    if done.returncode or not lines:
        words = done.stderr.strip().splitlines() or ["no answer"]
        named = [x for x in words if re.match(r"\w*(Error|Exception)\b", x)]
        return {"failed": f"exit {done.returncode}: {(named or words)[-1][:200]}"}
    return json.loads(lines[-1])


def asked() -> dict[str, Any] | None:
    """Return the task of this process, if it is a worker."""
    if len(sys.argv) == 3 and sys.argv[1] == "--worker":
        return json.loads(sys.argv[2])
    return None


def answer(**values: Any) -> None:
    """Print the answer of a worker."""
    print(json.dumps(values, default=float), flush=True)


def use_devices(n: int) -> None:
    """Make `n` devices of the processor, before JAX computes anything."""
    import distsep  # noqa: F401
    from distsep.parallel.mesh import set_host_devices

    set_host_devices(n)


# ---------------------------------------------------------------- numbers in tables


def seconds(t: float | None) -> str:
    """Three digits and a unit."""
    if t is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if t >= size:
            return f"{t / size:.3g} {unit}"
    return f"{t / 1e-6:.3g} us"


def spread(t: Any) -> str:
    """Median, and in brackets the smallest and largest."""
    return f"{seconds(t.median)} ({seconds(t.low)}..{seconds(t.high)})"


def ratio(theirs: float | None, ours: float) -> str:
    """How many times slower they are, in two digits."""
    return "-" if theirs is None else f"{float(f'{theirs / ours:.2g}'):g}x"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in lines) + "\n"


# ---------------------------------------------------------------- results


def publish(args: argparse.Namespace, key: str, title: str, *parts: str) -> None:
    """Print a section, and put it in its place in the results file."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_words()])
    body = "\n".join(
        [f"## {title}\n", f"`{command}`  \n{commit()}; {_versions()}\n", *parts]
    )
    print(body)
    if args.results is None:
        return
    path = Path(args.results)
    path.parent.mkdir(parents=True, exist_ok=True)
    sections = _sections(path.read_text()) if path.exists() else {}
    sections[key] = body.strip()
    text = [f"# {path.stem}\n\n{hardware()}\n"]
    text += [f"<!-- {k} -->\n{sections[k]}\n" for k in sorted(sections)]
    path.write_text("\n".join(text))


def _words() -> list[str]:
    """Options of this command, without the names of folders."""
    words, skip = [], False
    for word in sys.argv[1:]:
        if not skip and word not in ("--results", "--work"):
            words.append(word)
        skip = word in ("--results", "--work")
    return words


def _sections(text: str) -> dict[str, str]:
    parts = re.split(r"^<!-- (\w+) -->\n", text, flags=re.MULTILINE)[1:]
    return {k: v.strip() for k, v in zip(parts[::2], parts[1::2], strict=True)}


def commit() -> str:
    """Commit of the sources, and whether they were changed since."""

    def git(*words):
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "distsep", "benchmarks/*.py")
    return f"commit {git('rev-parse', '--short', 'HEAD')}" + (
        " and uncommitted changes" if changed else ""
    )


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([*found, f"on {time.strftime('%Y-%m-%d')}"])


def _cpu_model() -> str:
    if not Path("/proc/cpuinfo").exists():
        return platform.processor() or platform.machine()
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return names[0].strip() if names else platform.machine()


def _gpu() -> str:
    """Name of the first GPU that JAX uses, or nothing; does not start JAX."""
    jax = sys.modules.get("jax")
    device = jax.devices()[0] if jax is not None else None
    return "" if device is None or device.platform == "cpu" else device.device_kind


def machine_name() -> str:
    """Name of the results file: the processor and its cores, or the GPU."""
    name = _gpu() or f"{_cpu_model()} {len(os.sched_getaffinity(0))} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def hardware() -> str:
    """One paragraph on the machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    caches = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = (index.joinpath(f).read_text().strip() for f in ("level", "type"))
        if kind != "Instruction":
            caches.append(f"L{level} {index.joinpath('size').read_text().strip()}")
    words = [
        f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores",
        f"{pages / 2**30:.0f} GiB of memory",
        *(["caches " + ", ".join(caches)] if caches else []),
        *([_gpu()] if _gpu() else []),
        f"Linux {platform.release().split('-')[0]}",
    ]
    return "; ".join(words) + "."
