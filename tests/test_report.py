"""Pictures and tables: the numbers said are those of the result."""

import dataclasses
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from distsep.data import healpix, store
from distsep.data.blocks import Grid
from distsep.data.noise import Noise
from distsep.data.observation import Observation
from distsep.data.result import Result
from distsep.model.instrument import Instrument
from distsep.panels import NSIDE_DRAWN, Sphere, sky_panels
from distsep.report import report
from distsep.table import goodness, parameter_rows, text_table

NSIDE = 16
INSTRUMENT = Instrument(nu=[40.0, 95.0, 140.0, 280.0], depth_p=[30.0, 12.5, 10.0, 20.0])
PARAMETERS = {"Dust.beta_d": 1.54, "Dust.temp": 20.0, "Synchrotron.beta_pl": None}


def sky(nside=NSIDE) -> tuple[Any, Any, Any]:
    """An observation of CMB and dust and its result, the sky's upper half."""
    rng = np.random.default_rng(4)
    ids = np.arange(12 * nside**2)
    ids = ids[healpix.latitude(nside) > 0]
    s = rng.normal(size=(2, 2, len(ids))) * np.array([1.0, 3.0])[:, None, None]
    d = rng.normal(size=(4, 2, len(ids)))
    observation = Observation.from_canonical(
        d=d, noise=Noise(np.ones((4, 2)), "uniform"), cell_ids=ids,
        grid=Grid.of(len(ids)), start=0, instrument=INSTRUMENT, stokes="QU",
        nside=nside,
    )  # fmt: skip
    patch = healpix.parents(nside, ids, 4)[None]
    seen = np.bincount(patch[0], minlength=192) > 0
    known = np.where(seen, -3.0 + 0.01 * rng.normal(size=192), np.nan)
    result = Result(
        names=("Dust.beta_d", "Dust.temp"),
        parameters={
            "Dust.beta_d": np.array(1.54123), "Dust.temp": np.array(19.5),
            "Synchrotron.beta_pl": known,
        },
        sigma={
            "Dust.beta_d": np.array(0.00123), "Dust.temp": np.array(0.25),
            "Synchrotron.beta_pl": np.where(seen, 0.01, np.nan),
        },
        start={
            "Dust.beta_d": np.array(1.6), "Dust.temp": np.array(19.0),
            "Synchrotron.beta_pl": np.full(192, -2.9),
        },
        covariance=None, hessian_inverse=None, fisher_inverse=None,
        amplitudes=s + 0.1 * rng.normal(size=s.shape), amplitude_covariance=None,
        chi2=rng.chisquare(2, size=(2, len(ids))), dof=5000, chi2_total=5200.0,
        neg_log_like=2600.0, converged=True, steps=17, message="within 1e-5 sigma",
        component_names=("CMB", "Dust"), units={"CMB": "uK_CMB", "Dust": "uK_RJ"},
        bands=INSTRUMENT.bands, stokes="QU", nside=nside, coordsys="G",
        polcconv="COSMO", cell_ids=ids, patches={"Synchrotron.beta_pl": patch},
        seconds={"fit": 1.5, "errors": 0.25}, ranks=2, devices=3,
        global_terms={"monopole.40": (1.5, 0.25)}, warnings=("too few cooks",),
        grid=observation.grid,
    )  # fmt: skip
    return observation, result, s


def simulated(path, observation, s):
    truth = store.Truth(("Dust", "CMB"), ("uK_RJ", "uK_CMB"), PARAMETERS)
    grid = observation.grid
    with store.ObservationWriter(path, observation, truth=truth) as writer:
        for chunk in range(grid.nchunks):
            start, stop = grid.chunk_range(chunk)
            part = observation.replace(
                d=observation.d[..., start:stop],
                cell_ids=observation.cell_ids[start:stop],
            )
            writer.write(chunk, part, s[::-1, :, start:stop])
    return store.open_observation(path)


def test_the_table_says_what_was_found():
    _, result, _ = sky()
    rows = {row.name: row for row in parameter_rows(result, PARAMETERS)}
    one = rows["Dust.beta_d"]
    assert (one.start, one.fitted, one.sigma, one.truth, one.pull, one.patches) == (
        "1.6", "1.5412", "0.0012", "1.54", "+1.00", 1,
    )  # fmt: skip
    assert rows["Dust.temp"].pull == "-2.00"
    many = rows["Synchrotron.beta_pl"]
    known = result.parameters["Synchrotron.beta_pl"]
    assert many.patches == np.isfinite(known).sum() > 90
    middle, low, high = (f(known) for f in (np.nanmedian, np.nanmin, np.nanmax))
    assert many.fitted == f"{middle:.3f} [{low:.3f}, {high:.3f}]"
    assert (many.truth, many.pull) == ("varies", "")
    assert {row.truth for row in parameter_rows(result)} == {""}


def test_pulls_of_patches_are_their_rms():
    _, result, _ = sky()
    rows = parameter_rows(result, {"Synchrotron.beta_pl": -3.0})
    known = result.parameters["Synchrotron.beta_pl"]
    rms = np.sqrt(np.nanmean(((known + 3.0) / 0.01) ** 2))
    assert rows[-1].pull == f"rms {rms:.2f}"


def test_the_text_has_everything():
    _, result, _ = sky()
    text = text_table(result, PARAMETERS)
    for words in (
        "chi2/dof = 1.04000", "z = +2.0", "p = 0.024", "converged: within 1e-5 sigma",
        "steps: 17", "fit 1.50, errors 0.25; together 1.75", "ranks x devices: 2 x 3",
        "warning: too few cooks", "monopole.40", "varies",
    ):  # fmt: skip
        assert words in text, words
    for message in ("20 steps too few", "not converged: 20 steps too few"):
        poor = dataclasses.replace(result, converged=False, message=message)
        assert "\nNOT CONVERGED: 20 steps too few\n" in text_table(poor)
    assert "truth" not in text_table(result)


def test_a_chi2_that_is_far_off_is_remarked_upon():
    _, result, _ = sky()
    for chi2, words in ((5200.0, ""), (6e3, "model is too simple"), (4e3, "too small")):
        text = text_table(dataclasses.replace(result, chi2_total=chi2))
        assert words in text
        assert bool(words) == ("\n  too" in text)
    assert "p < 1e-99" in text_table(dataclasses.replace(result, chi2_total=1e5))


def test_where_nothing_is_fitted_the_text_says_so():
    _, result, _ = sky()
    none: dict[str, Any] = {"parameters": {}, "sigma": {}, "start": {}, "names": ()}
    text = text_table(dataclasses.replace(result, global_terms={}, **none))
    assert text.startswith("no free parameter")
    assert "chi2/dof = 1.04000" in text


def test_residuals_of_many_bands_take_some_lines():
    _, result, _ = sky()
    power = np.arange(1.0, 31.0).reshape(15, 2) ** 2
    many = dataclasses.replace(
        result, residual_power=power, bands=tuple(map(str, range(15)))
    )
    lines = text_table(many).splitlines()
    (first,) = [n for n, x in enumerate(lines) if x.startswith("residual rms")]
    said = " ".join(lines[first : first + 3])
    assert [f"{n} {2 * n + 1}, {2 * n + 2}" in said for n in range(15)] == [True] * 15
    assert max(map(len, lines[first : first + 3])) < 100


def test_a_result_is_one_line():
    _, result, _ = sky()
    assert (
        repr(result) == "Result(CMB + Dust: 2 parameters, converged, chi2/dof = 1.0400)"
    )


def test_a_chi2_that_means_nothing_is_not_quoted():
    _, result, _ = sky()
    for change in ({"dof": 0}, {"chi2_total": np.nan}):
        poor = dataclasses.replace(result, **change)
        assert goodness(poor) is None
        assert "chi2 is not quoted" in text_table(poor)
    none = dataclasses.replace(result, dof=0)
    drawn = [[p.title for p in sky_panels(r, None, None)] for r in (result, none)]
    assert drawn[0][:-1] == drawn[1]
    assert "chi" in drawn[0][-1]


def test_chi2_is_judged_by_its_scatter():
    """For many degrees of freedom, z is Gaussian: p is its upper tail."""
    _, result, _ = sky()
    fit = goodness(dataclasses.replace(result, dof=10**8, chi2_total=1e8 + 2e4**1.0))
    assert fit is not None
    np.testing.assert_allclose(fit.z, 2e4 / np.sqrt(2e8))
    np.testing.assert_allclose(fit.p, 0.0786, atol=2e-4)  # 1 - Phi(1.41421)


def test_large_maps_are_averaged_before_drawing():
    nside = 2 * NSIDE_DRAWN
    m = np.random.default_rng(0).normal(size=12 * nside**2)
    m[:5] = np.nan
    drawn = Sphere(nside, np.arange(len(m))).drawn(m)
    assert len(drawn) == 12 * NSIDE_DRAWN**2
    np.testing.assert_allclose(drawn[2:], m.reshape(-1, 4).mean(1)[2:])
    assert np.isnan(drawn[0])
    np.testing.assert_allclose(drawn[1], m[5:8].mean())


def test_the_panels_show_what_they_say(tmp_path):
    observation, result, s = sky()
    truth = simulated(tmp_path / "sky.zarr", observation, s)
    ids = observation.cell_ids
    # Of 4 degrees of freedom a pixel, 1 is lost to bands that are missing somewhere.
    result = dataclasses.replace(result, dof=3 * len(ids))
    band, cmb, error, chi2 = sky_panels(result, truth, truth)
    assert band.title == "Observed, 95 GHz, Q"
    np.testing.assert_array_equal(band.m[ids], observation.d[1, 0])
    np.testing.assert_array_equal(cmb.m[ids], result.amplitudes[0, 0])
    np.testing.assert_allclose(error.m[ids], result.amplitudes[0, 0] - s[0, 0])
    np.testing.assert_allclose(chi2.m[ids], result.chi2.sum(0))
    assert "rms 0.09" in error.note or "rms 0.10" in error.note
    assert "expected 3.00" in chi2.note
    for panel in (band, cmb, error, chi2):
        assert np.isnan(np.delete(panel.m, ids.astype(int))).all(), "the rest is grey"
    for panel in (band, cmb, error):
        assert panel.span[0] == -panel.span[1]


def test_without_a_truth_the_error_is_sigma():
    observation, result, _ = sky()
    covariance = np.zeros((2, len(result.cell_ids), 1, 1))
    covariance[0, :, 0, 0] = np.linspace(1, 4, len(result.cell_ids))
    result = dataclasses.replace(
        result, amplitude_covariance=covariance, covariance_names=("CMB",)
    )
    panels = sky_panels(result, observation, None)
    assert [panel.title for panel in panels][2] == "CMB error (sigma), Q"
    np.testing.assert_allclose(
        panels[2].m[result.cell_ids], np.sqrt(covariance[0, :, 0, 0])
    )


@pytest.mark.parametrize("stored", [True, False])
def test_the_pictures_are_drawn(tmp_path, monkeypatch, stored):
    monkeypatch.delenv("DISPLAY", raising=False)
    observation, result, s = sky()
    if stored:
        observation = simulated(tmp_path / "sky.zarr", observation, s)
        store.save_result(result, tmp_path / "result.zarr")
        read = store.read(tmp_path / "result.zarr")
        assert isinstance(read, Result)
        result = read
    files = report(result, tmp_path / "out", observation)
    assert [file.name for file in files] == [
        "report.txt", "report.png", "parameters.png",
    ]  # fmt: skip
    known = PARAMETERS if stored else None
    assert files[0].read_text() == text_table(result, known)
    picture = matplotlib.image.imread(files[1])[..., :3]
    height, width = picture.shape[:2]
    assert width == 1800
    assert height > 1000
    # The masked half of four ellipses is grey: about a quarter of the drawing.
    grey = np.isclose(picture, 0.82, atol=0.01).all(-1).mean()
    assert 0.12 < grey < 0.35
    white = (picture == 1).all(-1).mean()
    assert 0.2 < white < 0.7


def test_one_value_of_everything_needs_one_picture(tmp_path):
    _, result, _ = sky()
    result = dataclasses.replace(result, patches={})
    (tmp_path / "parameters.png").write_bytes(b"of another result")
    names = [file.name for file in report(result, tmp_path)]
    assert names == ["report.txt", "report.png"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)


def test_a_part_of_the_sky_is_not_drawn_as_the_sky(tmp_path):
    """One rank's result: nor written as a store."""
    _, whole, _ = sky()
    grid = Grid.of(2 * len(whole.cell_ids))
    part = dataclasses.replace(whole, grid=grid)
    with pytest.raises(ValueError, match="this rank has .* of the .*save"):
        report(part, tmp_path / "report")
    assert not (tmp_path / "report").exists()
    with pytest.raises(ValueError, match=r"Result.save.*1 rank.*with `comm=`"):
        store.save_result(part, tmp_path / "part.zarr")
