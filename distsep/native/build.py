"""Compile the kernels: once for each level of instructions a processor may have.

Run by `pip install` (see `launch/build_hook.py`), or by hand. Imports nothing of
distsep. Where there is no C++ compiler nothing is made, and distsep
runs on the programs that XLA compiles.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
# No -ffast-math: NaN is how a map says that a band did not observe.
FLAGS = (
    *("-std=c++20", "-O3", "-shared", "-fPIC", "-Wall", "-Wno-psabi"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)
LEVELS = {
    0: (),
    3: ("-march=x86-64-v3",),
    4: ("-march=x86-64-v4", "-mprefer-vector-width=512"),
}


def library(level: int) -> Path:
    """Where the library of a level of x86-64 is (0: any processor)."""
    return HERE / f"kernels-{level}.so"


def compiler() -> str | None:
    """Return the C++ compiler: `CXX`, or the first of the usual names."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for n in names if n and (path := shutil.which(n))), None)


def compile_kernels() -> list[Path]:
    """Compile the libraries of this kind of machine; none without a compiler.

    Raises:
        RuntimeError: the compiler's words, where it fails.
    """
    program, jaxlib = compiler(), find_spec("jaxlib")
    if program is None or jaxlib is None or not sys.platform.startswith("linux"):
        return []
    headers = Path((jaxlib.submodule_search_locations or [""])[0]) / "include"
    levels = LEVELS if platform.machine() == "x86_64" else {0: ()}

    def one(level: int) -> Path:
        with tempfile.TemporaryDirectory(dir=HERE) as folder:
            out = Path(folder) / "kernels.so"
            call = [program, *FLAGS, *LEVELS[level], "-isystem", str(headers)]
            done = subprocess.run(
                [*call, str(HERE / "kernels.cpp"), "-o", str(out)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{' '.join(call)} failed:\n{done.stderr[-4000:]}")
            # In one step: another process may be using the library it replaces.
            return out.replace(library(level))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, levels))


if __name__ == "__main__":
    sys.stdout.write("".join(f"{path}\n" for path in compile_kernels()))
