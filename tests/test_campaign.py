"""Campaigns of simulated skies: the rows, how they are kept, what is said of them."""

import csv
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import healpy
import numpy as np
import pytest
from conftest import ROOT
from typer.testing import CliRunner

import distsep
from distsep.campaign import run_campaign
from distsep.cli.app import app
from distsep.config import ConfigError, read_campaign, read_sky
from distsep.data.fits_out import write_maps
from distsep.rows import SkyFolder, SkyRow
from distsep.simulate import observe, simulate
from distsep.skies import Skies
from distsep.sky import make_sky, redraw
from distsep.table import text_table

SKY = """
[sky]
nside = 16
seed = 99
latitude = 20
[[component]]
kind = "CMB"
amplitude = { power_law = { ee = 3.0, bb = 1.0 } }
[[component]]
kind = "Dust"
nu0 = 353.0
beta_d = 1.54
seed = 7
amplitude = { power_law = { ee = 200.0, bb = 100.0 } }
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
temp = 19.6
[[component]]
kind = "Synchrotron"
nu0 = 23.0
"""

CAMPAIGN = """
[campaign]
skies = 5
first_seed = 3
"""


def write_files(folder):
    """The three files of a campaign."""
    texts = {"sky": SKY, "run": RUN, "campaign": CAMPAIGN}
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)


@pytest.fixture
def files(shared_tmp_path, comm, monkeypatch):
    """The folder of the three files, which all ranks are in."""
    if comm.rank == 0:
        write_files(shared_tmp_path)
    comm.barrier()
    monkeypatch.chdir(shared_tmp_path)
    return shared_tmp_path


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """The same of one process."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(comm, *overrides, overwrite=False):
    """One campaign of all ranks; its skies on rank 0."""
    campaign = read_campaign("campaign.toml", overrides)
    output = campaign.config.output
    folder = SkyFolder(output.folder, campaign.identity, output.results)
    folder, done = comm.bcast(
        (folder, folder.begin(overwrite)) if comm.rank == 0 else None
    )
    return run_campaign(campaign, folder, done, comm)


def timeless(rows):
    return [replace(row, seconds=0.0) for row in rows]


def command(*arguments):
    return CliRunner().invoke(app, ["campaign", "campaign.toml", *arguments])


def row_of(seed, values, errors, **fields):
    """A row of one parameter."""
    more = {
        "converged": True,
        "distance": 0.0,
        "passes": 4,
        "chi2": 100.0,
        "dof": 100,
        "seconds": 1.0,
        "warnings": [],
    }
    return SkyRow(seed, {"A.x": values}, {"A.x": errors}, **(more | fields))


# ------------------------------------------------------------------ the skies


def test_a_sky_in_memory_is_the_one_that_is_stored(files, comm):
    """To the last bit, on any number of ranks."""
    config = read_sky("sky.toml")
    simulate(config, "sky.zarr", comm=comm)
    mine = observe(config, make_sky(config, comm), comm)
    stored = distsep.read("sky.zarr")
    own = slice(mine.start, mine.start + mine.npix)
    np.testing.assert_array_equal(mine.cell_ids, stored.cell_ids[own])
    np.testing.assert_array_equal(mine.d, stored.d[..., own])
    np.testing.assert_array_equal(mine.noise.shape, stored.noise.shape)


def test_a_sky_is_drawn_again_with_another_seed(alone):
    """As one made anew; a component with a seed of its own stays."""
    config = read_sky("sky.toml", ["sky.seed=4"])
    anew = make_sky(config)
    again = redraw(make_sky(read_sky("sky.toml")), config)
    for chunk in range(anew.grid.nchunks):
        for one, other in zip(anew.chunk(chunk), again.chunk(chunk), strict=True):
            np.testing.assert_array_equal(one, other)
    d, s = make_sky(read_sky("sky.toml")).chunk(0)
    other_d, other_s = again.chunk(0)
    same = [np.array_equal(a, b) for a, b in zip(s, other_s, strict=True)]
    assert same == [False, True, False]
    assert not np.isclose(d, other_d).any(-1).all()


# --------------------------------------------------------------- the campaign


def test_rows_are_those_of_single_runs(files, comm):
    """Every row is what `simulate` and `separate` make of that seed, to the bit."""
    skies = run(comm)
    assert (skies is None) == (comm.rank > 0)
    if skies is None:
        return
    assert [row.seed for row in skies.rows] == [3, 4, 5, 6, 7]
    row = skies.rows[2]
    simulate(read_sky("sky.toml", ["sky.seed=5"]), "one.zarr")
    result = distsep.separate(
        [distsep.CMB(), distsep.Dust(353.0, temp=19.6), distsep.Synchrotron(23.0)],
        distsep.read("one.zarr"),
    )
    assert timeless([row]) == timeless([SkyRow.of(5, result, 0.0)])
    assert skies.truth["Dust.beta_d"] == 1.54


def test_ranks_may_share_a_sky(files, comm):
    """The rows are the same however the ranks are grouped."""
    alone = run(comm)
    shared = run(comm, f"campaign.ranks_per_sky={comm.size}", "output.folder=other")
    if comm.rank == 0:
        assert timeless(alone.rows) == timeless(shared.rows)
        assert all(row.converged for row in alone.rows)


def test_ranks_may_share_a_masked_sky_and_keep_its_result(files, comm):
    """They cut the pixels that are used, in whole chunks."""
    use = (np.arange(12 * 64**2) % 5 > 1).astype(float)
    said = {"units": [""], "nside": 64, "coordsys": "G", "ordering": "NEST"}
    if comm.rank == 0:
        write_maps(files / "mask.fits", use[None], names=["M"], **said)
    comm.barrier()
    masked = ("run.observation.mask=mask.fits", "sky.sky.nside=64", "campaign.skies=1")
    each = f"campaign.ranks_per_sky={comm.size}"
    shared = run(comm, *masked, each, "output.results=true", "output.folder=other")
    alone = run(comm, *masked)
    if comm.rank == 0:
        assert timeless(alone.rows) == timeless(shared.rows)
        result = distsep.read(files / "other" / "results" / "000003.zarr")
        assert set(result.cell_ids) <= set(np.flatnonzero(use))


def test_ranks_that_cannot_be_grouped_are_refused(alone):
    refused = command("--set", "campaign.ranks_per_sky=2")
    assert refused.exit_code == 2
    words = " ".join(refused.output.split())
    assert "`campaign.ranks_per_sky = 2`: 1 rank cannot be cut" in words
    assert not (alone / "campaign").exists()


def test_a_campaign_that_was_cut_short_goes_on(files, comm):
    """A row that was half written is made again, and those that are there are not."""
    first = run(comm, "campaign.skies=3")
    if comm.rank == 0:
        writer = files / "campaign" / "rows" / "00000.jsonl"
        text = writer.read_text()
        kept = [json.loads(line)["seed"] for line in text.splitlines() if line]
        writer.write_text(text[:-40])
        folder = SkyFolder("campaign", read_campaign("campaign.toml").identity)
        left = {row.seed for row in folder.begin()}
        assert left == {3, 4, 5} - {kept[-1]}
    comm.barrier()
    again = run(comm)
    if comm.rank == 0:
        assert [row.seed for row in again.rows] == [3, 4, 5, 6, 7]
        assert timeless(again.rows[:3]) == timeless(first.rows)
        untouched = [k for k in range(3) if first.rows[k].seed in left]
        assert [again.rows[k] for k in untouched] == [first.rows[k] for k in untouched]


def test_the_mask_of_the_run_is_used(files, comm):
    """Pixels it leaves out are not counted."""
    whole = run(comm, "campaign.skies=1")
    if comm.rank == 0:
        mask = np.zeros((1, 12 * 16**2))
        mask[0, : 12 * 16**2 // 4] = 1
        said = {"names": ["MASK"], "units": [""], "nside": 16, "coordsys": "G"}
        write_maps("mask.fits", mask, **said)
        table = '[observation]\nmask = "mask.fits"'
        (files / "run.toml").write_text(RUN.replace("[observation]", table))
    comm.barrier()
    part = run(comm, "campaign.skies=1", "output.folder=part")
    if comm.rank == 0:
        sky = make_sky(read_sky("sky.toml"))
        both = (sky.cell_ids < 12 * 16**2 // 4).sum()
        assert both < len(sky.cell_ids)
        # 15 bands, 2 Stokes parameters, 3 components.
        assert part.rows[0].dof == both * 2 * (15 - 3) - 2
        assert whole.rows[0].dof == len(sky.cell_ids) * 2 * (15 - 3) - 2


# ------------------------------------------------------------------ the folder


def test_another_sky_is_not_added(alone):
    """Nor another run; the file that changed is named, and nothing is lost."""
    assert command().exit_code == 0
    before = (alone / "campaign" / "skies.csv").read_text()
    (alone / "sky.toml").write_text(SKY.replace("1.54", "1.6"))
    refused = command()
    assert refused.exit_code == 2
    assert "another sky.toml: component: 1: options: beta_d" in " ".join(
        refused.output.split()
    )
    assert (alone / "campaign" / "skies.csv").read_text() == before
    assert command("--overwrite").exit_code == 0
    table = read_csv(alone / "campaign" / "skies.csv")
    assert all(abs(float(row["Dust.beta_d"]) - 1.6) < 0.05 for row in table)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\x00"])
def test_a_damaged_campaign_is_refused(alone, content):
    """Its rows stay, until it is started anew."""
    (alone / "campaign" / "rows").mkdir(parents=True)
    (alone / "campaign" / "campaign.json").write_bytes(content)
    (alone / "campaign" / "rows" / "00000.jsonl").write_bytes(b'{"seed": 3}\n\xff')
    refused = command()
    assert refused.exit_code == 2
    assert "campaign.json is damaged" in " ".join(refused.output.split())
    assert (alone / "campaign" / "rows" / "00000.jsonl").exists()
    assert command("--overwrite", "--set", "campaign.skies=1").exit_code == 0


def test_a_run_that_fails_at_once_costs_nothing(alone):
    """With `--overwrite` too; and it may be corrected."""
    (alone / "run.toml").write_text(RUN.replace("temp = 19.6", "temp = 19.5"))
    assert command("--set", "campaign.skies=2").exit_code == 0
    kept = {p: p.read_bytes() for p in sorted((alone / "campaign").rglob("*.*"))}
    # Where the sky was not observed.
    cells = healpy.query_strip(16, np.radians(85), np.radians(95), nest=False)
    nothing = np.isin(np.arange(3072), healpy.ring2nest(16, cells))[None] * 1.0
    said = {"names": ["MASK"], "units": [""], "nside": 16, "coordsys": "G"}
    write_maps("mask.fits", nothing, **said)
    masked = '[observation]\nmask = "mask.fits"'
    (alone / "run.toml").write_text(RUN.replace("[observation]", masked))
    for flags in (("--overwrite",), ("-o", "new")):
        refused = command("--set", "campaign.skies=2", *flags)
        assert refused.exit_code == 2
        assert "seed 3" in refused.output
    assert {
        p: p.read_bytes() for p in sorted((alone / "campaign").rglob("*.*"))
    } == kept
    assert not (alone / "new").exists()
    (alone / "run.toml").write_text(RUN)
    assert command("--set", "campaign.skies=2", "-o", "new").exit_code == 0


def test_rows_of_another_campaign_are_none(alone):
    """Of one that was replaced, and still adds its own."""
    assert command("--set", "campaign.skies=2").exit_code == 0
    old = SkyFolder("campaign", read_campaign("campaign.toml").identity)
    row = old.begin()[0]
    flags = ("--set", "campaign.skies=1", "--set", "sky.component.Dust.beta_d=1.7")
    assert command(*flags, "--overwrite").exit_code == 0
    old.add(replace(row, seed=4), writer=0)
    done = command("--set", "campaign.skies=2", *flags[2:])
    assert done.exit_code == 0
    assert "1 of the skies already" in done.output
    table = read_csv(alone / "campaign" / "skies.csv")
    assert all(abs(float(row["Dust.beta_d"]) - 1.7) < 0.05 for row in table)


def test_another_mask_of_the_same_name_is_another_campaign(alone):
    said = {"names": ["MASK"], "units": [""], "nside": 16, "coordsys": "G"}
    write_maps("mask.fits", np.ones((1, 3072)), **said)
    masked = ("--set", "sky.sky.mask=mask.fits", "--set", "campaign.skies=1")
    assert command(*masked).exit_code == 0
    (alone / "mask.fits").unlink()
    write_maps("mask.fits", np.arange(3072.0)[None] % 2, **said)
    refused = command(*masked)
    assert refused.exit_code == 2
    assert "another file: mask.fits" in " ".join(refused.output.split())


@pytest.mark.parametrize(
    "harm",
    [{"seed": "x"}, {"values": 3}, {"errors": {}}, {"values": {}}, {"chi2": None}],
)
def test_a_harmed_row_is_made_again(alone, harm):
    assert command("--set", "campaign.skies=3").exit_code == 0
    before = (alone / "campaign" / "skies.csv").read_text()
    path = alone / "campaign" / "rows" / "00000.jsonl"
    lines = [line for line in path.read_text().splitlines() if line]
    lines[0] = json.dumps({**json.loads(lines[0]), **harm})
    path.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe")
    again = command("--set", "campaign.skies=3")
    assert again.exit_code == 0
    assert "2 of the skies already" in again.output
    columns = [row.split(",")[:6] for row in before.splitlines()]
    after = (alone / "campaign" / "skies.csv").read_text().splitlines()
    assert [row.split(",")[:6] for row in after] == columns


def test_results_that_are_not_there_are_made(alone):
    flags = ("--set", "campaign.skies=2")
    assert command(*flags).exit_code == 0
    assert command(*flags, "--set", "output.results=true").exit_code == 0
    results = alone / "campaign" / "results"
    assert {p.name for p in results.iterdir()} == {"000003.zarr", "000004.zarr"}
    said = distsep.read(results / "000004.zarr").provenance
    assert (said["seed"], said["overrides"]) == (4, ["sky.seed=4"])
    assert "Synchrotron" in said["run"]["configuration"]
    table = text_table(distsep.read(results / "000004.zarr")).splitlines()
    (line,) = (line for line in table if line.startswith("Synchrotron.beta_pl"))
    assert table[0].split()[3:] == ["sigma", "truth", "pull"]
    assert line.split()[4] == "-3"


def test_a_folder_of_other_files_is_left_alone(alone):
    (alone / "campaign").mkdir()
    (alone / "campaign" / "thesis.tex").write_text("chapter 1")
    for flags in ((), ("--overwrite",)):
        refused = command(*flags)
        assert refused.exit_code == 2
        assert "is no campaign" in " ".join(refused.output.split())
    assert (alone / "campaign" / "thesis.tex").read_text() == "chapter 1"


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command(alone):
    """What it writes, and that results are kept if asked for."""
    done = command("--set", "output.results=true", "--set", "campaign.skies=3")
    assert done.exit_code == 0, done.output
    assert "3 skies, 3 converged" in done.output
    folder = alone / "campaign"
    table = read_csv(folder / "skies.csv")
    assert [int(row["seed"]) for row in table] == [3, 4, 5]
    result = distsep.read(folder / "results" / "000004.zarr")
    for kind, value in result.parameters.items():
        assert float(table[1][kind]) == value
        assert float(table[1][f"sigma {kind}"]) == result.sigma[kind]
    assert (folder / "skies.txt").read_text() in done.output
    assert (folder / "pulls.png").stat().st_size > 10_000
    again = command("--set", "output.results=true", "--set", "campaign.skies=3")
    assert again.exit_code == 0
    assert "3 of the skies already" in again.output


def test_fits_that_do_not_converge_are_said(alone):
    (alone / "run.toml").write_text(RUN + "[fit]\nmax_steps = 1\n")
    done = command("--set", "campaign.skies=2")
    assert done.exit_code == 3
    assert "2 skies, 0 converged" in done.output
    assert "left out: seeds 3, 4" in done.output
    assert len(read_csv(alone / "campaign" / "skies.csv")) == 2


def test_keys_of_all_three_files_can_be_set(alone):
    campaign = read_campaign(
        "campaign.toml",
        ["campaign.skies=7", "sky.sky.nside=8", "run.fit.solver=newton"],
    )
    assert campaign.config.campaign.skies == 7
    assert campaign.sky.sky.nside == 8
    assert campaign.run.fit.solver == "newton"
    with pytest.raises(ConfigError, match="run.toml: fit.solver"):
        read_campaign("campaign.toml", ["run.fit.solver=brent"])
    with pytest.raises(ConfigError, match="campaign.run: is the file of"):
        read_campaign("campaign.toml", ["campaign.run=sky.toml"])


def test_mistakes_of_the_three_files_are_listed(alone):
    (alone / "sky.toml").write_text(SKY.replace("nside = 16", "nside = 17"))
    wrong = RUN.replace("temp", "tmep") + '[instrument]\npreset = "Planck"\n'
    (alone / "run.toml").write_text(wrong)
    with pytest.raises(ConfigError) as error:
        read_campaign("campaign.toml")
    words = str(error.value)
    assert "sky.toml: sky.nside" in words
    assert "run.toml: component.Dust.tmep" in words
    assert "run.toml: instrument.preset: is known from the sky" in words
    with pytest.raises(ConfigError, match="campaign.sky: there is no file `gone.toml`"):
        read_campaign("campaign.toml", ['campaign.sky="gone.toml"'])


@pytest.mark.slow
def test_an_interrupted_campaign_says_so_and_goes_on(alone):
    """In one line, with what was done."""
    arguments = ["campaign", "campaign.toml", "--set", "campaign.skies=500"]
    # A job in the background ignores the signal, and so would what it starts.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    start = f"{heard}; from distsep.cli import main; main()"
    program = [sys.executable, "-c", start, *arguments]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as process:
        rows = alone / "campaign" / "rows" / "00000.jsonl"
        for _ in range(600):
            if rows.exists() and rows.stat().st_size:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.split() == ["error:", "interrupted."]
    done = command("--set", "campaign.skies=2")
    assert done.exit_code == 0
    assert "of the skies already" in done.output


# -------------------------------------------------------------- the statistics


def test_pulls_and_moments_are_those_of_numpy():
    rng = np.random.default_rng(1)
    values, errors = rng.normal(2, 0.1, (50, 3)), rng.uniform(0.05, 0.2, (50, 3))
    values[:, 1] = np.nan  # a patch without data
    rows = [
        row_of(n, v.tolist(), e.tolist(), chi2=100.0 + n)
        for n, (v, e) in enumerate(zip(values, errors, strict=True))
    ]
    rows.append(row_of(50, [1e9] * 3, [1.0] * 3, converged=False))
    skies = Skies(rows, {"A.x": 2.0})
    pulls = ((values - 2) / errors)[:, [0, 2]].ravel()
    np.testing.assert_allclose(skies.pulls()["A.x"], pulls)
    z = np.arange(50) / np.sqrt(200)
    np.testing.assert_allclose(skies.pulls()["chi2"], z)
    text = skies.text()
    mean, spread = pulls.mean(), pulls.std(ddof=1)
    error = pulls.reshape(50, 2).mean(1).std(ddof=1) / np.sqrt(50)
    assert f"{mean:+.3f} +- {error:.3f}" in text
    squares = ((pulls - mean) ** 2).reshape(50, 2).mean(1)
    error = squares.std(ddof=1) / np.sqrt(50) / (2 * spread)
    assert f"{spread:.3f} +- {error:.3f}" in text
    assert "51 skies, 50 converged" in text
    assert "left out: seeds 50" in text


def test_patches_that_move_together_are_not_so_many_skies():
    """Of 40 skies whose 12 patches are all one, the errors are those of 40 numbers."""
    z = np.random.default_rng(4).normal(size=(40, 1))
    rows = [row_of(n, v.tolist(), [1.0] * 12) for n, v in enumerate(np.tile(z, 12))]
    text = Skies(rows, {"A.x": 0.0}).text()
    error = z.std(ddof=1) / np.sqrt(40)
    assert f"{z.mean():+.2f} +- {error:.2f}" in text
    assert f"{z.mean():.2f} +- {error:.2f}" in text


def test_values_without_an_error_have_no_pull():
    rows = [row_of(n, [1.1, 1.0], [0.1, np.nan], dof=0) for n in range(3)]
    skies = Skies(rows, {"A.x": 1.0})
    np.testing.assert_allclose(skies.pulls()["A.x"], 1.0)
    assert "chi2" not in skies.pulls()
    assert "nan" not in skies.text()


def test_what_varies_over_the_sky_has_no_pull():
    skies = Skies([row_of(1, [1.0], [0.1])], {"A.x": None})
    assert set(skies.pulls()) == {"chi2"}
    assert "varies" in skies.text()


def test_warnings_that_differ_in_numbers_are_counted_together():
    said = [f"A.x[{n}], A.x[{n + 1}]: an error over {n}.5" for n in range(4)]
    rows = [row_of(n, [1.0], [0.1], warnings=[w]) for n, w in enumerate(said)]
    rows.append(row_of(9, [1.0], [0.1], warnings=["something else"]))
    text = Skies(rows, {}).text()
    assert f"warning, in 4 of them: {said[0]}" in text
    assert "warning, in 1 of them: something else" in text
    assert text.count("warning") == 2
    assert "A.x is no parameter of the sky: no pull" in text


def test_one_sky_has_a_line():
    text = Skies([row_of(1, [1.25], [0.1])], {"A.x": 1.0}).text()
    assert "1 sky, 1 converged" in text
    assert "nan" not in text
    assert "+2.50" in text


# ---------------------------------------------------------------- the example


def test_the_example_is_a_good_campaign(tmp_path, monkeypatch):
    for name, own in (("campaign", "campaign"), ("sky", "sky"), ("litebird", "run")):
        text = (ROOT / "launch" / "examples" / f"{name}.toml").read_text()
        (tmp_path / f"{own}.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    campaign = read_campaign("campaign.toml")
    assert campaign.config.campaign.seeds == range(1, 101)
    assert campaign.sky_of(17).sky.seed == 17
    assert campaign.run.component[1].label == "Dust"


def test_a_component_may_be_called_like_a_gain(alone):
    """Its parameters have no truth of 1."""
    named = RUN.replace('kind = "Dust"', 'kind = "Dust"\nname = "calibration"')
    (alone / "run.toml").write_text(named)
    assert command().exit_code == 0
    text = (alone / "campaign" / "skies.txt").read_text()
    lines = [x.split() for x in text.splitlines() if x.startswith("calibration")]
    assert lines
    for words in lines:
        assert words[1] != "1"


def test_a_simulated_sky_has_no_monopole(alone):
    """Global terms, and gains, have a truth as well: pulls are those of 0 and 1."""
    more = """
[[global]]
kind = "monopole"
bands = ["100"]
[instrument]
calibration = { bands = ["119"], std = 0.01 }
"""
    (alone / "run.toml").write_text(RUN + more)
    assert command().exit_code == 0
    text = (alone / "campaign" / "skies.txt").read_text()
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert lines["calibration.119"][1] == "1"
    monopoles = [words for name, words in lines.items() if name.startswith("mono")]
    assert len(monopoles) == 2  # Q and U
    for words in monopoles:
        assert words[1] == "0"
        assert len(words) == len(lines["Dust.beta_d"])
