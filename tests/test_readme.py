"""What the README shows is accepted and runs, on a smaller sky."""

import re
from pathlib import Path

import healpy
import numpy as np

import distsep
from distsep.config.run import read_config
from distsep.data.store import save_observation

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def block(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return text


def sky(nside):
    """CMB, dust and synchrotron in the bands of LiteBIRD, without noise."""
    components = [distsep.CMB(), distsep.Dust(nu0=353.0), distsep.Synchrotron(nu0=23.0)]
    truth = {"Dust.beta_d": 1.6, "Dust.temp": 20.0, "Synchrotron.beta_pl": -3.1}
    A = distsep.MixingMatrix(components, distsep.instrument("LiteBIRD"))(truth)
    s = np.random.default_rng(1).normal(0, 50, (3, 2, 12 * nside**2))
    return np.einsum("fc,csp->fsp", np.asarray(A), s), s, truth


def test_the_run_toml_is_a_good_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nside = 8
    observation = distsep.Observation(
        sky(nside)[0], distsep.instrument("LiteBIRD"), stokes="QU", nside=nside
    )
    save_observation(observation, "sky.zarr")
    mask = np.ones(12 * nside**2, np.float32)
    healpy.write_map("mask.fits", mask, dtype=np.float32)
    Path("run.toml").write_text(block("toml"))
    config = read_config("run.toml")
    assert [c.label for c in config.component] == ["CMB", "Dust", "AME"]
    assert config.global_[0].bands == ["40", "50"]


def test_the_python_runs_and_finds_the_truth():
    maps, s, truth = sky(nside=8)
    program = block("python").replace("nside=64", "nside=8")
    program = program.replace(
        'patches={"Dust.beta_d": 8}', 'patches={"Dust.beta_d": 1}'
    )
    names = {"maps": maps}
    exec(program, names)
    result = names["result"]
    assert result.converged
    off = result.parameters["Dust.beta_d"] - truth["Dust.beta_d"]
    assert off.shape == (12,)
    assert np.all(np.abs(off) < 0.01 * result.sigma["Dust.beta_d"])
    np.testing.assert_allclose(result.amplitudes, s, atol=0.5)


def test_the_tree_names_rooms_that_exist():
    rooms = re.search(r"those under it:\n\n(.*?)\n\n", README, flags=re.DOTALL)[1]
    for line in rooms.splitlines():
        for room in re.split(r"\s{2,}", line.strip())[0].split(", "):
            path = ROOT / "distsep" / room
            assert path.is_dir() or path.with_suffix(".py").is_file(), room
