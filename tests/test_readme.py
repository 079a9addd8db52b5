"""What the README shows is accepted and runs, on a smaller sky."""

import re
import shlex
from pathlib import Path

import healpy
import numpy as np
from typer.testing import CliRunner

import distsep
from distsep.cli.app import app
from distsep.config.run import read_config
from distsep.data.store import read, save_observation

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


def test_the_python_runs_and_finds_the_truth(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
    assert (tmp_path / "pictures" / "report.png").exists()
    read = distsep.read(tmp_path / "python.zarr")
    np.testing.assert_array_equal(
        np.sort(read.amplitudes, axis=-1), np.sort(result.amplitudes, axis=-1)
    )


def command(name):
    """The words of the command that has `name` in it, after `distsep`."""
    (text,) = (c for c in README.split("\n\n") if f"    distsep import {name}" in c)
    line = re.sub(
        r"(\S*)\{(.*?)\}(\S*)",
        lambda m: " ".join(m[1] + one + m[3] for one in m[2].split(",")),
        text.replace("\\\n", " "),
    )
    return shlex.split(line)[1:]


def test_the_maps_of_wmap_are_imported_with_their_noise(tmp_path, monkeypatch):
    """Files as LAMBDA has them: NESTED, "mK", and the number of observations."""
    monkeypatch.chdir(tmp_path)
    words = command("wmap")
    v, w, mask = (word for word in words if word.endswith(".fits"))
    rng = np.random.default_rng(4)
    npix = 12 * 8**2
    d = rng.normal(size=(2, 3, npix)).astype(np.float32)
    N = rng.integers(100, 3000, (2, npix)).astype(np.float32)
    N[1, 5] = 0
    names = ["TEMPERATURE", "Q_POLARISATION", "U_POLARISATION", "N_OBS"]
    units = ["mK", "mK,thermodynamic", "mK,thermodynamic", "counts"]
    for file, maps, counts in zip((v, w), d, N, strict=True):
        healpy.write_map(
            file, [*maps, counts], nest=True, dtype=np.float32, column_names=names,
            column_units=units,
        )  # fmt: skip
    use = rng.random(npix) < 0.8
    use[5] = True
    healpy.write_map(mask, use.astype(np.float32), nest=True, dtype=np.float32)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    stored = read("wmap.zarr")
    assert stored.instrument.bands == ("V", "W")
    # Bennett et al. (2013), [mK]; an observation gives Q cos 2psi + U sin 2psi.
    sigma = np.array([[3.131, 3.141, 3.141], [6.544, 6.560, 6.560]])
    sigma[:, 1:] *= 2**0.5
    invN = N[:, None] / (1e3 * sigma[:, :, None]) ** 2
    found = stored.noise.shape * (
        1 if stored.noise.weight is None else stored.noise.weight
    )
    np.testing.assert_allclose(found, invN[:, :, use], rtol=1e-4)
    missing = np.broadcast_to(N[:, None] == 0, d.shape)
    expected = np.where(missing, np.nan, 1e3 * d)[:, :, use]
    np.testing.assert_allclose(stored.d, expected, rtol=1e-6)


def test_the_tree_names_rooms_that_exist():
    rooms = re.search(r"those under it:\n\n(.*?)\n\n", README, flags=re.DOTALL)[1]
    for line in rooms.splitlines():
        for room in re.split(r"\s{2,}", line.strip())[0].split(", "):
            path = ROOT / "distsep" / room
            assert path.is_dir() or path.with_suffix(".py").is_file(), room
