"""The main job on a realistic sky: PySM's foregrounds, varying from pixel to pixel."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import shared_file

import distsep
from distsep.config import read_config, read_sky
from distsep.data.store import open_observation
from distsep.simulate import simulate
from distsep.table import text_table

EXAMPLES = Path(__file__).parents[1] / "launch" / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    files = [
        shared_file("sky", f"truth_{c}_nside64.fits") for c in ("cmb", "dust", "synch")
    ]
    folder = tmp_path_factory.mktemp("pysm")
    for file in (*files, *EXAMPLES.glob("pysm_*.toml")):
        shutil.copy(file, folder)
    return folder


def separated(folder, monkeypatch, *overrides):
    """Simulate and separate as the two commands do: the result and the CMB's error."""
    monkeypatch.chdir(folder)
    sky = read_sky("pysm_sky.toml", overrides)
    simulate(sky, sky.output.store, overwrite=True)
    data = open_observation(sky.output.store)
    run = read_config("pysm_run.toml")
    result = distsep.separate(
        observation=data,
        **run.separate_arguments(nside=data.nside, coordsys=data.coordsys),
    )
    assert result.amplitudes is not None
    error = result.amplitudes[0] - data.read_truth()[0]
    return result, data, float(np.sqrt(np.mean(error**2)))


def test_one_value_each_without_noise_leaves_the_known_bias(folder, monkeypatch):
    result, _, rms = separated(folder, monkeypatch, "sky.noise=false")
    assert result.converged
    assert rms == pytest.approx(0.0865, abs=0.001)


def test_with_noise_the_report_says_that_the_model_is_too_simple(folder, monkeypatch):
    result, data, rms = separated(folder, monkeypatch)
    assert result.converged
    assert rms == pytest.approx(0.103, abs=0.001)
    # The scatter of chi2/dof from noise alone is 0.0016.
    assert result.chi2_total / result.dof == pytest.approx(1.053, abs=0.005)
    text = text_table(result, data.truth.parameters)
    assert "z = +" in text
    assert "varies" in text
    assert "pull" not in text
