"""Run benchmarks one after the other; their sections go into one results file.

    python benchmarks/run.py --all              hours: takes the whole machine
    python benchmarks/run.py --all --smoke      a minute: does everything run?
    python benchmarks/run.py fit_global scaling --repeats 9

Options beside the names are given to each benchmark.
"""

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = (
    "fit_global",
    "fit_patches",
    "value_gradient",
    "scaling",
    "end_to_end",
    "gpu_kernels",
)


def run(name: str, options: list[str]) -> int:
    """Run one benchmark; small ones share this process and what it has imported."""
    script = str(HERE / f"{name}.py")
    if "--smoke" not in options:
        return subprocess.run(
            [sys.executable, script, *options], check=False
        ).returncode
    sys.argv = [script, *options]
    sys.path.insert(0, str(HERE))
    try:
        runpy.run_path(script, run_name="__main__")
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Run what is asked for; 1 if any failed."""
    words = sys.argv[1:]
    names = [w for w in words if w in NAMES] or (NAMES if "--all" in words else ())
    if not names:
        print(__doc__, file=sys.stderr)
        return 2
    # On a processor the last one says little: its numbers are for a GPU.
    options = [w for w in words if w not in NAMES and w != "--all"]
    failed = []
    for name in names:
        start = time.perf_counter()
        if run(name, options):
            failed.append(name)
        print(f"{name}: {time.perf_counter() - start:.0f} s\n", file=sys.stderr)
    print(f"{len(names) - len(failed)} of {len(names)} ran", *failed, file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    os.chdir(HERE.parent)
    sys.exit(main())
