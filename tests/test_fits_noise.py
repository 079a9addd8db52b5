"""Noise that FITS maps bring themselves: against plain numpy, through the command."""

import json
import re

import healpy
import numpy as np
import pytest
from conftest import shared_file
from typer.testing import CliRunner

from distsep.cli.app import app
from distsep.config import ConfigError, read_config
from distsep.config.inputs import read_fits
from distsep.config.run import import_tables
from distsep.data.fits import read_bands
from distsep.data.fits_noise import read_variances
from distsep.data.store import read
from distsep.data.tunit import says_square

NSIDE = 8
NPIX = 12 * NSIDE**2
MAPS = ["I_STOKES", "Q_STOKES", "U_STOKES"]
PLANCK = [*MAPS, "HITS", "II_COV", "QQ_COV", "QU_COV", "UU_COV"]

rng = np.random.default_rng(7)
d = rng.normal(size=(2, 3, NPIX))
variance = rng.uniform(1, 2, (2, 3, NPIX))
N = rng.integers(1, 50, (2, NPIX)).astype(float)


def write(path, columns, names, units=None, **other):
    healpy.write_map(
        str(path), list(columns), dtype=np.dtype(float), column_names=names,
        column_units=units or [""] * len(names), overwrite=True,
        **{"nest": True, "coord": "G", **other},
    )  # fmt: skip
    return str(path)


def maps(folder, **other):
    """Two bands, with everything in their own files, as Planck's."""
    units = ["uK_CMB"] * 3 + [""] + ["(uK_CMB)^2"] * 4
    return [
        write(
            folder / f"{band}.fits",
            [*m, n, v[0], v[1], 0 * n, v[2]],
            PLANCK,
            units,
            **other,
        )
        for band, m, n, v in zip("ab", d, N, variance, strict=True)
    ]


def inverse(observation):
    """invN of every sample."""
    shape, weight = observation.noise.shape, observation.noise.weight
    shape = shape if shape.ndim == 3 else shape[..., None]
    return np.broadcast_to(
        shape * (1 if weight is None else weight), observation.d.shape
    )


def call(*words, code=0):
    done = CliRunner().invoke(app, ["import", *map(str, words)])
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


# ------------------------------------------------------------------ through the door


@pytest.mark.parametrize("stokes", ["I", "QU", "IQU"])
def test_variances_in_the_files_of_the_maps(tmp_path, stokes):
    files, out = maps(tmp_path), tmp_path / "own.zarr"
    columns = ",".join(f"{s}{s}_COV" for s in stokes)
    flags = ["--nu", "100,143", "--stokes", stokes, "--variance", columns, "-o", out]
    said = call(*files, *flags)
    assert ("QU_COV in a.fits, b.fits: not used" in said) == (stokes != "I")
    wanted = ["IQU".index(letter) for letter in stokes]
    np.testing.assert_array_equal(inverse(read(out)), 1 / variance[:, wanted])


def test_variances_in_files_of_their_own(tmp_path):
    """In RING order and in other words than the maps; in run.toml as in the command."""
    files = maps(tmp_path)
    own = [
        write(
            tmp_path / f"v{n}.fits",
            healpy.reorder(v[[2, 1]], n2r=True),
            ["UU", "QQ"],
            nest=False,
        )
        for n, v in enumerate(variance)
    ]
    out = tmp_path / "own.zarr"
    flags = ["--nu", "100,143", "--stokes", "QU", "--variance", ",".join(own)]
    said = call(*files, *flags, "-o", out)
    assert "no unit of the noise variance in v0.fits, v1.fits" in said
    np.testing.assert_array_equal(inverse(read(out)), 1 / variance[:, 1:])
    path = tmp_path / "run.toml"
    path.write_text(
        f"[observation]\nfits = {json.dumps(files)}\nvariance = {json.dumps(own)}\n"
        'stokes = "QU"\n[instrument]\nnu = [100, 143]\n[[component]]\nkind = "CMB"'
    )
    config = read_config(path)
    data = read_fits(config.observation, config.instrument)
    np.testing.assert_array_equal(inverse(data), 1 / variance[:, 1:])
    assert "taken as that of the map, squared" in data.provenance["notes"][-1]


def test_numbers_of_observations(tmp_path):
    files, out = maps(tmp_path), tmp_path / "own.zarr"
    flags = ["--nu", "100,143", "--nobs", "HITS", "-o", out, "--overwrite"]
    call(*files, *flags, "--sigma0", "3,4")
    expected = np.broadcast_to(N[:, None], d.shape) / [[[9]], [[16]]]
    np.testing.assert_allclose(inverse(read(out)), expected, rtol=1e-15)
    call(*files, *flags, "--sigma0", "3,4", "--sigma0-p", "5,6")
    expected = N[:, None] / np.array([[9, 25, 25], [16, 36, 36]])[..., None]
    np.testing.assert_allclose(inverse(read(out)), expected, rtol=1e-15)
    call(*files, *flags, "--sigma0-p", "5,6", "--stokes", "QU")
    np.testing.assert_allclose(inverse(read(out)), expected[:, 1:], rtol=1e-15)


def test_a_preset_without_depths_names_the_remedies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "wmap_band_iqumap_r9_7yr_{}_v4_udgraded32.fits"
    files = [shared_file("sky", "wmap7", name.format(band)) for band in "VW"]
    flags = ["--preset", "WMAP", "--bands", "V,W", "--unit", "mK_CMB"]
    said = call(*files, *flags, code=2)
    assert "import: 1 mistake" in said
    for flag in ("--depth-i", "--depth-p", "--variance", "--nobs", "--sigma0"):
        assert f"`{flag}`" in said
    said = call(*files, *flags, "--nobs", "N_OBS", "--sigma0", "3,6", code=2)
    assert "no column 'N_OBS' among I_STOKES, Q_STOKES, U_STOKES" in said
    assert not (tmp_path / "sky.zarr").exists()


MISTAKES = {
    "both": (
        {"variance": "V", "nobs": "N", "sigma0": [1.0, 1.0]},
        "give `--variance` or `--nobs`, not both",
    ),
    "hits too": (
        {"variance": "V", "hits": "a.fits", "hits_norm": 1.0},
        "give `--variance` or `--hits`, not both",
    ),
    "no sigma0": ({"nobs": "N"}, "--sigma0: is required with `--nobs`"),
    "no nobs": (
        {"variance": "V", "sigma0_p": [1.0, 1.0]},
        "--sigma0-p: goes with `--nobs`",
    ),
    "one sigma0": (
        {"nobs": "N", "sigma0": 1.0},
        "--sigma0: expected one for each of 2",
    ),
    "columns": ({"variance": ["I", "Q", "U"]}, "--variance: expected one column, or"),
    "files": ({"variance": ["a.fits"]}, "--variance: expected one for each of 2"),
    "no file": ({"variance": ["a.fits", "c.fits"]}, "--variance: there is no file"),
    "band twice": (
        {"fits": [{"file": "a.fits", "band": "100"}] * 2, "variance": "V"},
        "name the `band` of every map, each once",
    ),
    "hits alone": ({"hits": "a.fits", "hits_norm": 1.0}, "the noise of"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_said_before_a_file_is_opened(tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    for name in ("a.fits", "b.fits"):
        (tmp_path / name).touch()
    given, expected = MISTAKES[mistake]
    flags = ("nobs", "sigma0", "sigma0_p", "hits", "variance", "mask", "hits_norm")
    table = {"fits": ["a.fits", "b.fits"], "stokes": "QU", **dict.fromkeys(flags)}
    table |= given
    with pytest.raises(ConfigError) as caught:
        import_tables(table, {"nu": [100.0, 143.0]})
    (line,) = caught.value.problems
    assert line.startswith(expected)


# ------------------------------------------------------------------ columns and values


def test_values_that_are_missing_are_infinite(tmp_path):
    """In the file of the variance, or outside a partial map."""
    m = d[0].copy()
    m[:, 500:] = healpy.UNSEEN
    bands = read_bands([write(tmp_path / "m.fits", m, MAPS, ["K_CMB"] * 3)], "QU")
    partial = read_bands(
        [write(tmp_path / "p.fits", m, MAPS, ["K_CMB"] * 3, partial=True)], "QU"
    )
    v = variance[0].copy()
    v[0, :3] = healpy.UNSEEN, np.nan, np.inf
    path = write(tmp_path / "v.fits", v[:1], ["V"], ["K_CMB**2"])
    expected = np.where(np.isfinite(v[0]) & (v[0] > 0), v[0], np.inf)
    found, notes = read_variances([path], bands)
    np.testing.assert_array_equal(found[0], [expected] * 2)
    assert notes == [
        "samples with data but no finite noise variance, taken as not observed: "
        "6 in v.fits."
    ]
    found, _ = read_variances([path], partial)
    np.testing.assert_array_equal(found[0], [expected[:500]] * 2)


def test_none_are_zero_or_negative_where_there_are_data(tmp_path):
    m, v = d[0].copy(), variance[0].copy()
    m[:, 9] = healpy.UNSEEN
    v[0, [7, 8, 9]] = 0, -1, -1
    v[2, 8] = 0
    bands = read_bands([write(tmp_path / "m.fits", m, MAPS, ["K_CMB"] * 3)])
    path = write(tmp_path / "v.fits", v, ["TT", "QQ", "UU"])
    expected = r"v.fits: .* zero or negative .*: 2 of I \(TT\), 1 of U \(UU\).*--mask"
    with pytest.raises(ValueError, match=expected):
        read_variances([path], bands)
    observed = np.ones(NPIX, bool)
    observed[7:9] = False
    found, _ = read_variances([path], bands, observed=observed)
    np.testing.assert_array_equal(found[0], np.where(v > 0, v, np.inf))


def test_no_observation_is_a_missing_sample(tmp_path):
    counts = N[0].copy()
    counts[:2] = 0, healpy.UNSEEN
    path = write(tmp_path / "m.fits", [*d[0], counts], [*MAPS, "N_OBS"], ["K_CMB"] * 4)
    bands = read_bands([path])
    sigma0 = np.array([[1.0, 2, 2]])
    found, _ = read_variances([path], bands, columns=[["N_OBS"]], sigma0=sigma0)
    expected = sigma0[0][:, None] ** 2 / np.where(counts > 0, counts, 1)
    expected[:, :2] = np.inf
    np.testing.assert_array_equal(found[0], expected)
    counts[3] = -1
    path = write(tmp_path / "n.fits", counts[None], ["N_OBS"])
    with pytest.raises(ValueError, match=r"1 of I \(N_OBS\), 1 of Q"):
        read_variances([path], bands, sigma0=sigma0)


def test_columns_that_cannot_be_told_are_refused(tmp_path):
    bands = read_bands([write(tmp_path / "m.fits", d[0], MAPS, ["K_CMB"] * 3)], "QU")
    path = write(tmp_path / "v.fits", variance[0], ["A", "B", "C"])
    with pytest.raises(ValueError, match="variances of Q, U among A, B, C.*QQ_COV"):
        read_variances([path], bands)
    found, _ = read_variances([path], bands, columns=[["C", 0]])
    np.testing.assert_array_equal(found[0], variance[0, [2, 0]])


UNITS = {
    "(K_CMB)^2": ("K_CMB", True),
    "Kcmb^2": ("K_CMB", True),
    "uK_CMB**2": ("uK_CMB", True),
    "(Mjy/sr)^2": ("MJy/sr", True),
    "mK^2": ("mK_CMB", True),
    "": ("mK_CMB", False),
    "unknown": ("mK_CMB", False),
    "K_CMB": ("K_CMB", None),
    "K_RJ^2": ("K_CMB", None),
    "mK^2 ": ("uK_CMB", None),
    "counts": ("K_CMB", None),
}


@pytest.mark.parametrize("text", UNITS)
def test_the_unit_is_that_of_the_maps_squared(text):
    unit, expected = UNITS[text]
    if expected is None:
        with pytest.raises(
            ValueError, match=rf"here: .*\({unit}\)\^2; .*{re.escape(repr(text))}"
        ):
            says_square(text, unit, "here")
    else:
        assert says_square(text, unit, "here") == expected
