"""Simulated skies: the right physics, and the same sky however it is cut."""

import camb
import healpy
import numpy as np
import pytest
from conftest import shared_file

from distsep.config import ConfigError, read_sky
from distsep.data.fits_out import write_maps
from distsep.data.gaussian import gaussian_map
from distsep.data.stored_observation import StoredObservation
from distsep.simulate import simulate
from distsep.sky import make_sky, observed_pixels
from distsep.spectra import camb_spectra, power_law, whole_maps

H_OVER_K, T_CMB = 6.62607015e-34 * 1e9 / 1.380649e-23, 2.7255

CHEAP = """
[sky]
nside = {nside}
stokes = "QU"
latitude = 33
seed = 5
[[component]]
kind = "CMB"
amplitude = {{ random = 50.0 }}
[[component]]
kind = "Dust"
nu0 = 353.0
beta_d = 1.6
amplitude = {{ random = 20.0 }}
[[component]]
kind = "Synchrotron"
nu0 = 23.0
beta_pl = -3.1
amplitude = {{ power_law = {{ ee = 2.4, bb = 0.5 }} }}
"""


NOISELESS = """
[sky]
nside = 4
noise = false
[[component]]
"""


@pytest.fixture
def sky(tmp_path):
    """Read a sky.toml of this text."""

    def sky(text: str = CHEAP, overrides=(), nside=16):
        path = tmp_path / "sky.toml"
        path.write_text(text.format(nside=nside))
        return read_sky(path, overrides)

    return sky


def thermodynamic(nu):
    """K_RJ per K_CMB."""
    x = H_OVER_K * nu / T_CMB
    return x**2 * np.exp(x) / np.expm1(x) ** 2


def dust_law(nu, nu0, beta, temp):
    """Modified black body in K_CMB, 1 at nu0."""

    def law(nu):
        return nu ** (beta + 1) / np.expm1(H_OVER_K * nu / temp) / thermodynamic(nu)

    return law(nu) / law(nu0)


def test_maps_are_the_laws_times_the_amplitudes(sky):
    made = make_sky(sky(overrides=["sky.noise=false"]))
    d, s = made.chunk(0)
    nu = made.mixing.instrument.nu
    synchrotron = (nu / 23.0) ** -3.1 * thermodynamic(23.0) / thermodynamic(nu)
    A = np.stack([np.ones(15), dust_law(nu, 353.0, 1.6, 20.0), synchrotron], 1)
    expected = np.einsum("fc,csp->fsp", A, s)
    np.testing.assert_allclose(d, expected, rtol=1e-8, atol=1e-9)
    assert np.std(s[0]) == pytest.approx(50, rel=0.05)
    assert np.std(s[1]) == pytest.approx(20, rel=0.05)


def test_noise_has_the_published_depths(sky):
    made = make_sky(sky())
    quiet = make_sky(sky(overrides=["sky.noise=false"]))
    n = made.chunk(0)[0] - quiet.chunk(0)[0]
    side = np.sqrt(healpy.nside2pixarea(16, degrees=True)) * 60
    depths = np.array([37.42, 33.46, 21.31, 16.87])
    npix = n.shape[-1]
    measured = np.sqrt(np.mean(n[:4] ** 2, axis=(1, 2)))
    np.testing.assert_allclose(measured, depths / side, rtol=4 / np.sqrt(4 * npix))
    correlation = np.corrcoef(n.reshape(30, -1)) - np.eye(30)
    assert np.abs(correlation).max() < 5 / np.sqrt(npix)


def test_seeds_and_streams_are_distinct(sky):
    first, again = make_sky(sky()), make_sky(sky())
    other = make_sky(sky(overrides=["sky.seed=6"]))
    d, s = first.chunk(0)
    np.testing.assert_array_equal(d, again.chunk(0)[0])
    assert abs(np.corrcoef(d[0, 0], other.chunk(0)[0][0, 0])[0, 1]) < 0.1
    assert abs(np.corrcoef(s[0, 0], s[1, 0])[0, 1]) < 0.1


def test_the_store_is_the_same_on_any_number_of_ranks(sky, comm, shared_tmp_path):
    config = sky(nside=32)
    path = shared_tmp_path / "sky.zarr"
    simulate(config, path, comm=comm)
    alone = make_sky(config)
    stored = StoredObservation(path)
    assert stored.npix == len(alone.cell_ids)
    assert alone.grid.nchunks > 1
    truth = stored.read_truth()
    whole = stored.read()
    for chunk in range(alone.grid.nchunks):
        d, s = alone.chunk(chunk)
        pixels = slice(*alone.grid.chunk_range(chunk))
        np.testing.assert_array_equal(whole.d[..., pixels], d)
        np.testing.assert_array_equal(truth[..., pixels], s)
    np.testing.assert_array_equal(whole.cell_ids, alone.cell_ids)
    assert stored.truth is not None
    assert stored.truth.parameters == {
        "Dust.beta_d": 1.6,
        "Dust.temp": 20.0,
        "Synchrotron.beta_pl": -3.1,
    }
    assert stored.provenance["seed"] == 5
    assert "[[component]]" in stored.provenance["configuration"]


def test_an_existing_store_is_kept(sky, tmp_path):
    path = tmp_path / "sky.zarr"
    simulate(sky(nside=2), path)
    with pytest.raises(FileExistsError, match="--overwrite"):
        simulate(sky(nside=2), path)
    simulate(sky(nside=2, overrides=["sky.dtype=float32"]), path, overwrite=True)
    assert StoredObservation(path).dtype == np.float32


def test_latitude_mask_and_hits_choose_the_pixels(sky, tmp_path):
    npix = 12 * 16**2
    use = np.arange(npix) % 2
    counts = np.where(np.arange(npix) % 3, 4.0, 0.0)
    said = {"units": [""], "nside": 16, "coordsys": "G", "ordering": "RING"}
    write_maps(tmp_path / "mask.fits", use[None].astype(float), names=["M"], **said)
    write_maps(tmp_path / "hits.fits", counts[None], names=["H"], **said)
    overrides = [
        f"sky.mask={tmp_path}/mask.fits",
        f"sky.hits={tmp_path}/hits.fits",
        "sky.hits_norm=1.0",
    ]
    config = sky(overrides=overrides)
    cell_ids, weight = observed_pixels(config)
    lat = healpy.pix2ang(16, np.arange(npix), lonlat=True)[1]
    ring = np.flatnonzero((use == 1) & (counts > 0) & (np.abs(lat) >= 33))
    expected = np.sort(healpy.ring2nest(16, ring))
    np.testing.assert_array_equal(cell_ids, expected)
    np.testing.assert_array_equal(weight, 4.0)
    noise = (
        make_sky(config).chunk(0)[0]
        - make_sky(sky(overrides=[*overrides, "sky.noise=false"])).chunk(0)[0]
    )
    side = np.sqrt(healpy.nside2pixarea(16, degrees=True)) * 60
    assert np.std(noise[0]) == pytest.approx(37.42 / side / 2, rel=0.1)


def test_a_template_in_another_unit_and_at_another_frequency(sky, tmp_path):
    npix = 12 * 4**2
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(4, npix))
    maps[3] = rng.uniform(-3.2, -2.8, npix)
    path = tmp_path / "synchrotron.fits"
    write_maps(
        path,
        maps,
        names=["I", "Q", "U", "BETA"],
        units=["uK_RJ"] * 3 + [""],
        nside=4,
        coordsys="G",
        ordering="NEST",
    )
    made = make_sky(
        sky(
            NOISELESS
            + f"""
            kind = "Synchrotron"
            nu0 = 23.0
            beta_pl = {{{{ file = "{path}", field = "BETA" }}}}
            amplitude = {{{{ file = "{path}", unit = "uK_RJ", nu = 30.0 }}}}
            """
        )
    )
    d, s = made.chunk(0)
    at_nu0 = maps[1:3] * (23 / 30) ** maps[3] / thermodynamic(23.0)
    np.testing.assert_allclose(s[0], at_nu0, rtol=1e-7)
    nu = made.mixing.instrument.nu[:, None, None]
    expected = maps[1:3] * (nu / 30) ** maps[3] / thermodynamic(nu)
    np.testing.assert_allclose(d, expected, rtol=1e-7)
    assert made.constants == {"Synchrotron.beta_pl": None}


def test_an_amplitude_in_iau_changes_the_sign_of_u(sky, tmp_path):
    maps = np.random.default_rng(2).normal(size=(3, 12 * 4**2))
    said = {"nside": 4, "coordsys": "G", "ordering": "NEST", "units": ["uK_CMB"] * 3}
    found = {}
    for polcconv, sign in (("COSMO", 1), ("IAU", -1)):
        path = tmp_path / f"{polcconv}.fits"
        turned = maps * np.array([1, 1, sign])[:, None]
        write_maps(path, turned, names=list("IQU"), polcconv=polcconv, **said)
        law = f'kind = "CMB"\namplitude = {{{{ file = "{path}" }}}}'
        found[polcconv] = make_sky(sky(NOISELESS + law)).chunk(0)[0]
    np.testing.assert_array_equal(found["IAU"], found["COSMO"])
    np.testing.assert_allclose(found["IAU"][0], maps[1:], rtol=1e-12)


@pytest.mark.parametrize("key", ["calibration", "band_shift", "angle"])
def test_what_a_sky_is_simulated_without_is_refused(sky, key):
    with pytest.raises(ConfigError, match=f"instrument.{key}: is fitted by a run"):
        sky(overrides=[f'instrument.{key}.bands=["50"]'])


def test_gaussian_maps_have_their_spectra():
    from distsep.config.sky import PowerLawTable

    law = PowerLawTable(tt=12000.0, ee=200.0, bb=106.0, te=560.0)
    cl = power_law(law, 191)
    assert cl[1][80] * 80 * 81 / (2 * np.pi) == pytest.approx(200)
    maps = gaussian_map(cl, 64, np.random.default_rng(2))
    measured = healpy.anafast(healpy.reorder(maps, n2r=True), lmax=150)
    modes = (2 * np.arange(151) + 1)[30:].sum()
    for found, expected in zip(measured, cl, strict=False):
        ratio = np.average(
            found[30:] / expected[30:151], weights=2 * np.arange(30, 151) + 1
        )
        assert ratio == pytest.approx(1, abs=5 * np.sqrt(2 / modes) + 0.02)


def test_gaussian_maps_refuse_impossible_spectra():
    cl = np.ones((4, 10))
    cl[3] = 2
    with pytest.raises(ValueError, match="TE\\^2 <= TT EE"):
        gaussian_map(cl, 4, np.random.default_rng(0))


def test_beam_smooths_as_healpy_does():
    ell = np.arange(1, 49)
    cl = np.zeros((4, 49))
    cl[:3, 1:] = 1 / (ell * (ell + 1))
    sharp, smooth = (
        healpy.reorder(gaussian_map(cl, 16, np.random.default_rng(3), fwhm=f), n2r=True)
        for f in (0.0, 600.0)
    )
    expected = healpy.smoothing(sharp, fwhm=np.radians(10.0))
    assert np.std(smooth - expected) < 0.01 * np.std(expected)


def test_camb_gives_the_planck_spectra():
    cl = camb_spectra(300)
    known = healpy.read_cl(
        shared_file("sky", "cls", "Cls_Planck2018_lensed_scalar.fits")
    )
    for row, tolerance in ((0, 0.01), (1, 0.01), (2, 0.03)):
        # Below l = 30 it is the model of reionisation that differs.
        np.testing.assert_allclose(cl[row][30:301], known[row][30:301], rtol=tolerance)


def test_a_spectrum_does_not_depend_on_the_threads(monkeypatch):
    """A sky has the same bits on machines, and ranks, of any number of cores."""
    monkeypatch.setattr(camb.config, "ThreadNum", 2)
    two = camb_spectra.__wrapped__(100)
    assert camb.config.ThreadNum == 2
    monkeypatch.setattr(camb.config, "ThreadNum", 1)
    np.testing.assert_array_equal(two, camb_spectra.__wrapped__(100))


def test_default_dust_is_as_bright_as_the_real_one(sky):
    """The rms of Q and U at |b| > 20 deg is within a factor 1.5 of the public map's."""
    path = shared_file("sky", "truth_dust_nside64.fits")
    real = healpy.read_map(path, field=[1, 2], dtype=float)  # pyright: ignore
    real = real / thermodynamic(353.0)
    lat = healpy.pix2ang(64, np.arange(49152), lonlat=True)[1]
    expected = np.std(real[:, np.abs(lat) > 20])
    from distsep.spectra import DEFAULTS

    config = sky("[sky]\nnside = 64\n[[component]]\nkind = 'CMB'\n")
    maps = whole_maps(config.sky, DEFAULTS["Dust"], lambda: np.random.default_rng(0))
    assert expected / 1.5 < np.std(maps) < 1.5 * expected
