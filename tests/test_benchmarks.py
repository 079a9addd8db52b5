"""The benchmarks run, check their answers, and write their sections."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = (
    "1_fit_global",
    "2_fit_patches",
    "3_value_gradient",
    "3_value_gradient_peers",
    "4_scaling",
    "5_end_to_end",
    "6_gpu_kernels",
)


@pytest.mark.slow
def test_every_benchmark_runs_small(tmp_path):
    results = tmp_path / "machine.md"
    folders = ["--results", results, "--work", tmp_path / "work"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/run.py", "--all", "--smoke", *folders],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    text = results.read_text()
    sections = re.findall(r"^<!-- (\w+) -->\n## ", text, flags=re.MULTILINE)
    assert tuple(sections) == QUESTIONS
    assert "wrong" not in text
    assert not list((tmp_path / "work").glob("*.zarr"))
    assert not list((tmp_path / "work").glob("*.npz"))


@pytest.mark.slow
def test_a_section_is_replaced_and_the_others_stay(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import argparse

    import bench  # pyright: ignore[reportMissingImports]

    args = argparse.Namespace(results=tmp_path / "machine.md")
    bench.publish(args, "1_one", "One", "first")
    bench.publish(args, "2_two", "Two", bench.table(["a"], [[1]]))
    bench.publish(args, "1_one", "One", "second")
    text = args.results.read_text()
    assert text.startswith("# machine\n")
    assert text.index("second") < text.index("| a |")
    assert "first" not in text
