"""The project itself: what is declared in two places agrees, and nothing is unsaid."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import distsep

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = sorted((ROOT / "distsep").rglob("*.py"))
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCES
]


def requirements(lines):
    """Name -> the rest, of lines such as `jax[cuda]>=0.10,<0.12`."""
    split = (re.fullmatch(r"([\w.-]+)(?:\[[\w,]*\])?(.*)", line) for line in lines)
    return {m[1].lower(): m[2] for m in split if m}


def conda_requirements():
    text = (ROOT / "environment.yml").read_text()
    return requirements(re.findall(r"^  - (\S+)$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("extra", [None, "mpi-system", "sampling", "test"])
def test_conda_has_the_requirements_of_pyproject(extra):
    project = PROJECT["project"]
    lines = (
        project["optional-dependencies"][extra] if extra else project["dependencies"]
    )
    conda = conda_requirements()
    for name, version in requirements(lines).items():
        assert conda.get(name) == version, name


def test_conda_has_nothing_that_pyproject_does_not_know():
    extras = PROJECT["project"]["optional-dependencies"]
    known = {"python", "pip", "conda-forge", "nodefaults"}
    for lines in (PROJECT["project"]["dependencies"], *extras.values()):
        known |= set(requirements(lines))
    assert set(conda_requirements()) <= known
    assert conda_requirements()["python"] == PROJECT["project"]["requires-python"]


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_public_names_have_docstrings(name):
    if name == "distsep.__main__":
        return
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what the room is for"
    for public, thing in vars(module).items():
        ours = getattr(thing, "__module__", None) == name
        if ours and callable(thing) and not public.startswith("_"):
            assert thing.__doc__, f"{name}.{public}"


def test_public_names_exist():
    for name in getattr(distsep, "__all__", ()):
        assert getattr(distsep, name) is not None


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_enough_to_be_read(path):
    assert len(path.read_text().splitlines()) <= 400


def test_prints_only_through_the_command():
    for path in SOURCES:
        calls = (
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        )
        assert "print" not in calls, path


def test_importing_distsep_starts_neither_mpi_nor_the_command():
    program = "import sys, distsep; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = ast.literal_eval(done.stdout)
    for library in ("mpi4py", "mpi4jax", "typer", "matplotlib", "camb", "sklearn"):
        assert library not in loaded


def test_imports_go_down_and_through_one_door():
    """The contracts of pyproject.toml, where the linters are installed."""
    pytest.importorskip("importlinter")
    program = "from importlinter.cli import lint_imports_command as c; c()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_every_door_is_a_file():
    """A lint exception for a file that has moved would let anything through."""
    ignores = PROJECT["tool"]["ruff"]["lint"]["per-file-ignores"]
    for pattern in ignores:
        if pattern.startswith("distsep/"):
            assert list(ROOT.glob(pattern)), pattern


def test_the_tree_has_its_papers():
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"):
        assert (ROOT / name).stat().st_size > 100, name
    version = PROJECT["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
