"""The command: what it writes, what it says, and how it ends."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits
from conftest import shared_file
from rich.console import Console
from typer.testing import CliRunner

import distsep
from distsep.cli import options as show
from distsep.cli.app import app
from distsep.cli.session import is_bad_input
from distsep.cli.voice import Voice
from distsep.data.fits_out import write_maps
from distsep.data.store import read
from distsep.data.stored_observation import StoredObservation
from distsep.model.instrument import presets
from distsep.model.units import MAP_UNITS

COMMANDS = (
    "simulate",
    "run",
    "campaign",
    "import",
    "export",
    "report",
    "info",
    "doctor",
)

SKY = """
[sky]
nside = 8
seed = 3
[[component]]
kind = "CMB"
amplitude = { random = 1.0 }
[[component]]
kind = "Dust"
nu0 = 353.0
beta_d = 1.54
amplitude = { random = 30.0 }
[[component]]
kind = "Synchrotron"
nu0 = 23.0
beta_pl = -3.0
amplitude = { random = 10.0 }
"""

RUN = """
[observation]
store = "sky.zarr"
[[component]]
kind = "CMB"
[[component]]
kind = "Dust"
nu0 = 353.0
temp = 20.0
beta_d = { start = 1.6 }
[[component]]
kind = "Synchrotron"
nu0 = 23.0
beta_pl = { start = -2.9 }
[output]
report = ""
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with sky.toml and run.toml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sky.toml").write_text(SKY)
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path


def call(*words, code: int = 0):
    """Run a command in this process; returns all it said."""
    done = CliRunner().invoke(app, list(map(str, words)))
    said = done.output + (done.stderr if done.stderr_bytes else "")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, said
    return said


def flat(text: str) -> str:
    """The text without line ends, which depend on the width of the terminal."""
    return " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command):
    said = flat(call(command, "--help"))
    assert "Examples" in said
    assert f"distsep {command}" in said


def test_help_names_all_commands():
    said = call("--help")
    assert all(command in said for command in COMMANDS)


def test_help_shows_what_may_be_given():
    assert show.PRESETS.split(", ") == list(presets())
    assert show.UNITS.split(", ") == list(MAP_UNITS)
    said = flat(call("import", "--help").replace("│", ""))
    assert show.PRESETS in said
    assert show.UNITS in said
    for command in COMMANDS:
        said = flat(call(command, "--help").replace("│", ""))
        assert "bool" not in said.lower()
        assert ("--output" in said) == ("Where to write. [default: " in said)


def test_version():
    assert call("--version") == f"distsep {metadata.version('distsep')}\n"


def test_help_does_not_wait_for_jax():
    code = "import sys, distsep.cli; print({'jax', 'sympy', 'zarr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.fixture(scope="module")
def separated(tmp_path_factory):
    """A directory with a simulated sky and its result; what was said."""
    path = tmp_path_factory.mktemp("separated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        (path / "sky.toml").write_text(SKY)
        (path / "run.toml").write_text(RUN)
        simulated = call("simulate", "sky.toml", "--log-file", "log/sky.txt")
        ran = call("run", "run.toml", "--log-file", "log/run.txt")
    return path, simulated, ran


def test_simulate_says_what_it_made(separated):
    path, said, _ = separated
    assert "768 of nside 8, 100.0% of the sky" in said
    assert "noise │ depths" in flat(said)
    assert "Dust.beta_d = 1.54" in flat((path / "log/sky.txt").read_text())


def test_run_finds_the_truth_and_says_so(separated):
    path, _, said = separated
    result = read(path / "result.zarr")
    assert result.converged
    for name, truth in (("Dust.beta_d", 1.54), ("Synchrotron.beta_pl", -3.0)):
        pull = (result.parameters[name] - truth) / result.sigma[name]
        assert abs(pull) < 4
        assert name in said
    assert "chi2/dof" in said
    log = (path / "log/run.txt").read_text()
    assert "chi2/dof" in log
    assert "\x1b[" not in log
    remembered = result.provenance["run"]["configuration"]
    assert remembered == (path / "run.toml").read_text()


def test_existing_results_are_kept(separated, monkeypatch):
    path, *_ = separated
    monkeypatch.chdir(path)
    assert "result.zarr exists" in flat(call("run", "run.toml", code=2))
    assert "sky.zarr exists" in flat(call("simulate", "sky.toml", code=2))


def test_too_few_steps_end_with_three(separated, monkeypatch):
    path, *_ = separated
    monkeypatch.chdir(path)
    said = call("run", "run.toml", "-o", "few.zarr", "--set", "fit.max_steps=1", code=3)
    assert "not converged" in said
    words = 'reached max_steps = 1: raise fit.max_steps, or fit.solver = "newton"'
    assert words in flat(said)
    assert not read(path / "few.zarr").converged


def test_another_sky_is_not_taken_for_the_truth(folder):
    call("simulate", "sky.toml")
    call("run", "run.toml", "-o", "one.zarr")
    assert "pull" in call("report", "one.zarr", "-o", "page")
    call("simulate", "sky.toml", "--set", "sky.seed=4", "--overwrite")
    said = flat(call("report", "one.zarr", "-o", "page"))
    assert "sky.zarr was written again since" in said
    assert "pull" not in said


def test_info_report_and_export(separated, monkeypatch):
    path, *_ = separated
    monkeypatch.chdir(path)
    assert "CMB, Dust, Synchrotron" in call("info", "result.zarr")
    said = call("report", "result.zarr", "-o", "page")
    assert "pull" in said
    assert (path / "page/report.png").stat().st_size > 10_000
    call("export", "result.zarr", "-o", "maps")
    assert "exists" in flat(call("export", "result.zarr", "-o", "maps", code=2))
    for command in "export", "report":
        for place in "result.zarr", "result.zarr/page", "sky.zarr/page":
            said = flat(call(command, "result.zarr", "-o", place, code=2))
            assert f"{place} is in the distsep store" in said
    result = read(path / "result.zarr")
    q = healpy.read_map(path / "maps/Dust.fits", field=0, nest=True)
    ids = result.cell_ids.astype(int)
    np.testing.assert_allclose(q[ids], result.amplitudes[1, 0], rtol=1e-12)


def test_quiet_leaves_only_the_answer(separated, monkeypatch):
    path, *_ = separated
    monkeypatch.chdir(path)
    said = call("report", "result.zarr", "-o", "page2", "--quiet")
    assert "pull" in said
    assert "wrote" not in said


def test_bad_input_ends_with_two_and_one_message(folder):
    said = call("run", "run.toml", "--set", "fit.tolerence=1", code=2)
    assert "did you mean `tolerance`?" in said
    assert "there is no `sky.zarr`" in said
    assert "Traceback" not in said
    assert "no such file" in call("run", "none.toml", code=2)
    for command in ("info", "report", "export"):
        assert "there is no none.zarr" in call(command, "none.zarr", code=2)
    assert "not a distsep store" in call("info", "run.toml", code=2)


def test_a_broken_chunk_is_named(folder):
    call("simulate", "sky.toml")
    chunk = folder / "sky.zarr/maps/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    assert "maps/c/0/0/0 is truncated" in flat(call("run", "run.toml", code=2))
    with pytest.raises((ValueError, FileNotFoundError)):
        read("result.zarr")


def test_surprises_keep_their_traceback(folder, monkeypatch):
    def surprise(*_, **__):
        raise ZeroDivisionError("surprise")

    call("simulate", "sky.toml")
    monkeypatch.setattr(distsep, "separate", surprise)
    with pytest.raises(ZeroDivisionError, match="surprise"):
        call("run", "run.toml")


def test_what_counts_as_bad_input():
    def caught(function):
        try:
            function()
        except Exception as error:
            return error
        raise AssertionError

    assert is_bad_input(caught(lambda: distsep.instrument("LitBIRD")))
    assert is_bad_input(caught(lambda: open("/nowhere")))
    assert not is_bad_input(caught(lambda: np.zeros(2).reshape(3)))
    assert not is_bad_input(caught(lambda: 1 / 0))


def test_import_real_maps(folder):
    v, w, mask = (
        shared_file("sky", "wmap7", f"wmap_{name}_v4_udgraded32.fits")
        for name in (
            "band_iqumap_r9_7yr_V",
            "band_iqumap_r9_7yr_W",
            "temperature_analysis_mask_r9_7yr",
        )
    )
    flags = ["--preset", "WMAP", "--bands", "V,W", "--depth-i", "230,250"]
    flags += ["--depth-p", "330,350", "-o", "wmap.zarr"]
    assert "--unit mK_CMB" in flat(call("import", v, w, *flags, code=2))
    said = call("import", v, w, *flags, "--unit", "mK_CMB", "--mask", mask)
    assert "no COORDSYS" in flat(said)
    stored = StoredObservation("wmap.zarr")
    use = healpy.read_map(mask, nest=True) > 0
    assert stored.npix == use.sum()
    expected = 1e3 * healpy.read_map(v, field=None, nest=True)[:, use]
    np.testing.assert_allclose(stored.read().d[0], expected, rtol=1e-6)
    call("export", "wmap.zarr", "-o", "maps")
    back = healpy.read_map("maps/band_V.fits", field=None, nest=True)
    np.testing.assert_allclose(back[:, use], expected, rtol=1e-6)
    assert (back[:, ~use] < -1e30).all()


def test_the_noise_of_an_observation_survives_fits(folder):
    rng = np.random.default_rng(6)
    observation = distsep.Observation(
        rng.normal(size=(2, 2, 768)),
        distsep.Instrument(nu=[100.0, 150.0], depth_p=[3.0, 2.0]),
        stokes="QU",
        nside=8,
        hits=rng.integers(0, 5, 768),
        hits_norm=2.0,
    )
    observation.save("hits.zarr")
    call("export", "hits.zarr", "-o", "hits")
    files = ["hits/band_100.fits", "hits/band_150.fits"]
    flags = ["--nu", "100,150", "--stokes", "QU", "--variance", "QQ_COV,UU_COV"]
    call("import", *files, *flags, "-o", "back.zarr")
    back = distsep.read("back.zarr")
    np.testing.assert_array_equal(back.cell_ids, observation.cell_ids)
    np.testing.assert_array_equal(back.d, observation.d)
    assert str(back.noise) == str(observation.noise) == "depths with a hit map"
    for noise in (back.noise, observation.noise):
        assert noise.shape.shape == (2, 2)
    invN, known = (
        n.shape[..., None] * n.weight for n in (back.noise, observation.noise)
    )
    np.testing.assert_allclose(invN, known, rtol=1e-13)


def test_where_no_report_can_be_is_known_before_the_fit(folder):
    call("simulate", "sky.toml", "--set", "sky.nside=4")
    Path("taken").write_text("")
    for place, words in (
        ("sky.zarr/pictures", "is in the distsep store"),
        ("taken", "is a file, expected a directory"),
    ):
        said = call("run", "run.toml", "--set", f"output.report={place}", code=2)
        assert words in flat(said)
        assert not Path("result.zarr").exists()
    assert "is a file" in call("export", "sky.zarr", "-o", "taken", code=2)


def test_a_report_that_fails_ends_no_run(folder):
    """Its folder is in the result, which is a store only once it is written."""
    call("simulate", "sky.toml", "--set", "sky.nside=4")
    said = call("run", "run.toml", "--set", "output.report=result.zarr/pictures")
    assert "Dust.beta_d" in said
    assert "wrote result.zarr" in flat(said)
    assert "no report, but the result is written" in flat(said)
    assert read("result.zarr").converged


def test_a_mask_of_zeros_is_named(folder):
    call("simulate", "sky.toml", "--set", "sky.nside=4")
    healpy.write_map("zero.fits", np.zeros(192, np.float32), dtype=np.float32)
    said = call("run", "run.toml", "--set", "observation.mask=zero.fits", code=2)
    assert "zero.fits: the mask leaves no pixel" in flat(said)


def test_a_header_of_another_resolution_is_refused(folder):
    m = np.random.default_rng(7).normal(size=(1, 192))
    said = {"nside": 4, "coordsys": "G", "units": ["uK_CMB"], "names": ["I"]}
    write_maps("wrong.fits", m, **said)
    with fits.open("wrong.fits", mode="update") as file:
        file[1].header["NSIDE"] = 8
    flags = ["--nu", "100", "--depth-i", "1", "--stokes", "I"]
    found = flat(call("import", "wrong.fits", *flags, code=2))
    assert "NSIDE = 8 expect 768 samples per column, got 192" in found
    assert not Path("sky.zarr").exists()


@pytest.fixture(scope="module")
def fits_maps(tmp_path_factory):
    """A directory with maps i0.fits ... (T) and p0.fits ... (I, Q, U), in "mK"."""
    path = tmp_path_factory.mktemp("fits")
    m = np.random.default_rng(5).normal(size=(3, 48))
    said = {"nside": 2, "coordsys": "G"}
    for n in range(6):
        kinds = {"i": (m[:1], ["T"]), "p": (m, ["I", "Q", "U"])}
        for letter, (maps, names) in kinds.items():
            units = ["mK"] * len(maps)
            write_maps(
                path / f"{letter}{n}.fits", maps, names=names, units=units, **said
            )
    return path


I2 = "i0.fits i1.fits --stokes I --unit mK_CMB"
NU2 = "--nu 30,40 --depth-i 1,1"
MISTYPED = {
    "stokes": (
        "i0.fits i1.fits --nu 30,40 --depth-i 1,1",
        ["the files hold one column (T): `--stokes I`?"],
    ),
    "depths": (
        "i0.fits i1.fits i2.fits i3.fits i4.fits --stokes I --unit mK_CMB "
        "--nu 1,2,3,4,5 --depth-i 1,2,3,4,5,6",
        ["`--nu` has 5 bands, `--depth-i` 6"],
    ),
    "no bands": (I2, ["give `--preset`, or `--nu` with `--depth-i` / `--depth-p`"]),
    "few files": (
        "i0.fits --stokes I --unit mK_CMB --nu 30,40 --bands a,b --depth-i 1,1",
        ["1 file for 2 bands: one file per band, in the order of `--bands`"],
    ),
    "preset": (
        f"{I2} --preset WMAP --depth-i 1,2",
        ["WMAP has 5 bands (K, Ka, Q, V, W), 2 files: choose with `--bands`"],
    ),
    "depths of a preset": (
        f"{I2} --preset WMAP --bands V,W --depth-i 1,2,3",
        ["`--bands` has 2 bands, `--depth-i` 3"],
    ),
    "hits": (f"{I2} {NU2} --hits i0.fits", ["--hits-norm: is required with `--hits`"]),
    "norm": (f"{I2} {NU2} --hits-norm max", ["--hits-norm: goes with `--hits`"]),
    "norms": (
        f"{I2} {NU2} --hits i0.fits --hits-norm maxx",
        ['--hits-norm: expected a number above 0, "max" or "mean", got \'maxx\''],
    ),
    "no file": (
        "i0.fits i9.fits --stokes I --unit mK_CMB --nu 30,40 --depth-i 1,1",
        ["there is no file `i9.fits`"],
    ),
    "unit": (
        f"i0.fits i1.fits {NU2} --stokes I --unit mK",
        ["--unit: unknown unit 'mK'; did you mean `mK_CMB` or `mK_RJ`?"],
    ),
    "all the header says": (
        "p0.fits p1.fits --nu 30,40 --polcconv IAU --coordsys C",
        [
            "p0.fits (I): its unit 'mK' does not say",
            "p0.fits, p1.fits: the header says COORDSYS = 'G' but 'C' was asked for",
            "p0.fits, p1.fits: the header says POLCCONV = 'COSMO' but 'IAU' was asked",
            "the noise of I, Q, U is not known in all of 30, 40: give depths",
        ],
    ),
    "columns": (
        f"p0.fits p1.fits {NU2} --depth-p 1,1 --unit mK_CMB --columns 0,1",
        ["--columns: expected one for each of IQU, got 2"],
    ),
    "a column": (
        "p0.fits p1.fits --nu 30,40 --unit mK_CMB --nobs N --sigma0 1,1",
        ["p0.fits: no column 'N' among I, Q, U. So 1 more file."],
    ),
}


@pytest.mark.parametrize("mistake", MISTYPED)
def test_import_speaks_of_its_options(fits_maps, monkeypatch, mistake):
    """All mistakes at once, and none that only follow from another."""
    monkeypatch.chdir(fits_maps)
    words, expected = MISTYPED[mistake]
    said = call("import", *words.split(), code=2).strip().split("\n")
    title, *lines, remedy = dict.fromkeys(said)
    assert remedy == "Try 'distsep import -h'."
    assert title == f"error: import: {len(expected)} mistake" + "s" * (len(lines) > 1)
    for line, start in zip(lines, expected, strict=True):
        assert line.strip().startswith(start)


NOISES = {
    "depths": ["--depth-i", "1,1"],
    "depths with a hit map": [
        "--depth-i",
        "1,1",
        "--hits",
        "h.fits",
        "--hits-norm",
        "max",
    ],
    "variance per pixel": ["--depth-i", "1,1", "--variance", "v.fits,h.fits"],
}


@pytest.mark.parametrize("noise", NOISES)
def test_import_says_what_it_made(tmp_path, monkeypatch, noise):
    monkeypatch.chdir(tmp_path)
    m = np.random.default_rng(6).normal(size=(2, 1, 48))
    m[1, 0, :7] = np.nan
    said = {"nside": 2, "coordsys": "G", "units": ["uK_CMB"], "names": ["I"]}
    for n, one in enumerate(m):
        write_maps(f"{n}.fits", one, **said)
    ramp = np.arange(1.0, 49)[None]
    for name, values in (("h.fits", ramp), ("v.fits", ramp[:, ::-1])):
        write_maps(name, values, **{**said, "units": [""]})
    flags = ["--nu", "30,70", "--stokes", "I", *NOISES[noise]]
    said = call("import", "0.fits", "1.fits", *flags)
    assert f"noise │ {noise} │" in flat(said)
    assert "gaps │ 70: 7 pixels not observed │" in flat(said)
    both = "noise variances and depths are both given: the variances are used"
    assert (both in flat(said)) == ("variance" in noise)
    assert f"noise │ {noise} │" in flat(call("info", "sky.zarr"))


def test_run_reads_fits_maps(folder):
    call("simulate", "sky.toml", "--set", "sky.nside=4")
    call("export", "sky.zarr", "-o", "maps")
    bands = StoredObservation("sky.zarr").instrument.bands
    files = [str(folder / f"maps/band_{band}.fits") for band in bands]
    text = RUN.replace(
        'store = "sky.zarr"', f'fits = {json.dumps(files)}\nstokes = "QU"'
    )
    (folder / "fits.toml").write_text(text + '[instrument]\npreset = "LiteBIRD"\n')
    call("run", "fits.toml", "-o", "a.zarr")
    call("run", "run.toml", "-o", "b.zarr")
    one, other = read("a.zarr"), read("b.zarr")
    for name, value in one.parameters.items():
        assert abs(value - other.parameters[name]) < 1e-3 * other.sigma[name]
    np.testing.assert_allclose(one.amplitudes, other.amplitudes, rtol=1e-6, atol=1e-4)


def test_run_with_a_mask_on_a_store(folder):
    call("simulate", "sky.toml", "--set", "sky.nside=4")
    use = (np.arange(192) < 100).astype(float)
    write_maps("mask.fits", use[None], names=["M"], units=[""], nside=4, coordsys="G")
    call("run", "run.toml", "--set", "observation.mask=mask.fits")
    result = read("result.zarr")
    seen = np.isfinite(result.amplitudes).all((0, 1))
    np.testing.assert_array_equal(result.cell_ids[seen], np.arange(100))


def test_doctor_is_content():
    said = flat(call("doctor"))
    assert said.count("OK") == 6
    assert "Everything works." in said


def test_commands_on_all_ranks(comm, shared_tmp_path, monkeypatch):
    """The same command on every rank, as mpirun starts it: one result, one voice."""
    monkeypatch.chdir(shared_tmp_path)
    if comm.rank == 0:
        (shared_tmp_path / "sky.toml").write_text(SKY)
        (shared_tmp_path / "run.toml").write_text(RUN)
    comm.barrier()
    call("simulate", "sky.toml", "--set", "sky.nside=32")
    said = call("run", "run.toml")
    assert ("chi2/dof" in said) == (comm.rank == 0)
    assert read("result.zarr").ranks == comm.size
    said = call("run", "run.toml", code=2)
    assert ("result.zarr exists" in flat(said)) == (comm.rank == 0)


SABOTAGE = """
import sys
import distsep
from distsep.cli import main
from distsep.parallel import world

def separate(*_, comm, **__):
    if comm.rank == 1:
        raise ZeroDivisionError("surprise")
    comm.barrier()

distsep.separate = separate
sys.argv = ["distsep", "run", "run.toml"]
main()
"""


def test_a_surprise_on_one_rank_ends_all(folder, mpirun):
    call("simulate", "sky.toml", "--set", "sky.nside=4")
    done = mpirun(3, "-c", textwrap.dedent(SABOTAGE), timeout=100)
    assert done.returncode != 0
    assert done.stderr.count("ZeroDivisionError: surprise") == 1
    assert "rank 1 of 3 failed" in done.stderr


def test_exit_codes_under_mpirun(folder, mpirun):
    command = ("-m", "distsep", "run", "run.toml")
    done = mpirun(2, *command)
    assert done.returncode == 2
    assert done.stderr.count("there is no `sky.zarr`") == 1
    call("simulate", "sky.toml", "--set", "sky.nside=4")
    done = mpirun(2, *command, "--devices", "2", "--set", "fit.max_steps=1")
    assert done.returncode == 3, done.stderr
    assert "ranks x devices: 2 x 2" in done.stdout


def test_processes_that_mpi_does_not_join_are_refused(tmp_path):
    """As srun starts them without the right `--mpi`."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "OMPI"))}
    env |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}
    command = [sys.executable, "-m", "distsep", "run", "run.toml"]
    for rank, words in (("0", "--mpi=pmi2"), ("1", "")):
        env["SLURM_PROCID"] = rank
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, cwd=tmp_path
        )
        assert done.returncode == 2
        assert words in done.stderr
        assert bool(words) == ("error: the launcher started 2" in done.stderr)
        assert "Traceback" not in done.stderr


def test_python_m_distsep_is_the_command(monkeypatch, capsys):
    import runpy

    monkeypatch.setattr(sys, "argv", ["distsep", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("distsep", run_name="__main__")
    assert caught.value.code == 0
    assert "simulate" in capsys.readouterr().out


def test_a_log_file_is_no_other_file(tmp_path):
    """Nothing is added to what is no log, and a log grows."""
    run_file, log = tmp_path / "run.toml", tmp_path / "logs" / "a.log"
    run_file.write_text("[fit]\n")
    text = call("doctor", "--log-file", run_file, code=2)
    assert "run.toml` exists and is no log of distsep" in text
    assert run_file.read_text() == "[fit]\n"
    for wrong in (tmp_path, run_file / "x.log"):
        text = call("doctor", "--log-file", wrong, code=2)
        assert "cannot be written" in text
    sizes = []
    for _ in range(2):
        call("info", tmp_path / "none.zarr", "--log-file", log, code=2)
        sizes.append(log.stat().st_size)
    assert log.read_bytes().startswith(b"# distsep log\n")
    assert sizes[1] > sizes[0]


@pytest.mark.parametrize("number", ["two", "-1", "0.5"])
def test_devices_that_are_no_number(tmp_path, monkeypatch, number):
    monkeypatch.setenv("DISTSEP_DEVICES", number)
    text = call("info", tmp_path, code=2)
    assert f"DISTSEP_DEVICES={number}: expected a number of devices" in text


def test_a_log_on_a_full_disk_does_not_stop_a_run(capsys, tmp_path):
    voice = Voice()
    assert voice.keep(tmp_path / "run.txt") is None
    voice.log = Console(file=Path("/dev/full").open("w"))
    voice.say("one")
    voice.say("two")
    voice.close()
    said = capsys.readouterr()
    assert said.out.split() == ["one", "two"]
    assert "the log file is written no further: No space left on device" in said.err


def test_what_the_system_refuses_is_one_line():
    full = OSError(errno.ENOSPC, "No space left on device", "a/0")
    assert is_bad_input(full)
    assert not is_bad_input(OSError(errno.EIO, "Input/output error", "a/0"))


def test_a_law_that_ends_where_it_is_not_finite_did_not_converge(folder):
    """Its optimum would be where the root of the last band is none."""
    law = """
[[component]]
name = "X"
expression = "sqrt(a - nu)"
unit = "K_RJ"
a = { start = 1e4 }
"""
    call("simulate", "sky.toml")
    text = (folder / "run.toml").read_text().replace("[output]", f"{law}[output]")
    (folder / "odd.toml").write_text(text)
    said = flat(call("run", "odd.toml", "-o", "odd.zarr", code=3))
    assert "NOT CONVERGED" in said
    assert "Traceback" not in said
    result = read("odd.zarr")
    assert np.isfinite(result.amplitudes).all()
    assert result.parameters["X.a"] > 402
