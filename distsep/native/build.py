"""Compile the kernels: once for each level of instructions a processor may have.

And once for GPUs, where there is CUDA's compiler. Run by `pip install` (see
`launch/build_hook.py`), or by hand. Imports nothing of distsep. Where there is no
compiler nothing is made, and distsep runs on the programs that XLA compiles.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
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
# Machine code for the first GPUs with float64 tensor cores and for those of today, and
# what a driver compiles for later ones.
GPUS = (
    *("-gencode", "arch=compute_80,code=[sm_80,compute_80]"),
    *("-gencode", "arch=compute_90,code=sm_90"),
)


def library(level: int | str) -> Path:
    """Where the library of a level of x86-64 is (0: any processor), or of `gpu`."""
    return HERE / f"kernels-{level}.so"


def compiler() -> str | None:
    """Return the C++ compiler: `CXX`, or the first of the usual names."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for n in names if n and (path := shutil.which(n))), None)


def gpu_compiler() -> str | None:
    """Return CUDA's compiler: of `CUDA_PATH`, or on the PATH. It needs its headers."""
    home = os.environ.get("CUDA_PATH")
    path = shutil.which("nvcc", path=f"{home}/bin" if home else None)
    if path is None:
        return None
    toolkit = Path(path).resolve().parents[1]
    return path if (toolkit / "include" / "cuda_runtime.h").exists() else None


def compile_kernels() -> list[Path]:
    """Compile the libraries of this kind of machine; none without a compiler.

    Raises:
        RuntimeError: the compiler's words, where it fails.
    """
    if (program := compiler()) is None:
        return []
    levels = LEVELS if platform.machine() == "x86_64" else {0: ()}
    source = str(HERE / "kernels.cpp")
    with ThreadPoolExecutor() as pool:
        made = pool.map(
            lambda level: _compile([program, *FLAGS, *levels[level], source], level),
            levels,
        )
        return [path for path in made if path is not None]


def compile_gpu_kernels() -> list[Path]:
    """Compile the library for GPUs; none without CUDA's compiler.

    Raises:
        RuntimeError: the compiler's words, where it fails.
    """
    program, host = gpu_compiler(), compiler()
    if program is None or host is None:
        return []
    flags = (
        *("-std=c++20", "-O3", "-shared", "-Xcompiler", "-fPIC", "-ccbin", host),
        *("--threads", "0"),  # one for each of `GPUS`, if there are so many
    )
    path = _compile([program, *flags, *GPUS, str(HERE / "kernels.cu")], "gpu")
    return [] if path is None else [path]


def _compile(call: list[str], level: int | str) -> Path | None:
    jaxlib = find_spec("jaxlib")
    if jaxlib is None or not sys.platform.startswith("linux"):
        return None
    headers = Path((jaxlib.submodule_search_locations or [""])[0]) / "include"
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        out = Path(folder) / "kernels.so"
        version = f'-DDISTSEP_JAXLIB="{metadata.version("jaxlib")}"'
        call = [*call, version, "-isystem", str(headers), "-o", str(out)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(call)} failed:\n{done.stderr[-4000:]}")
        # In one step: another process may be using the library it replaces.
        return out.replace(library(level))


if __name__ == "__main__":
    made = compile_kernels() + compile_gpu_kernels()
    sys.stdout.write("".join(f"{path}\n" for path in made))
