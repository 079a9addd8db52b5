"""A result as FITS maps: what a person looks for is there."""

import healpy
import numpy as np
import pytest
from astropy.io import fits

import distsep
from distsep.data.export import export_store
from distsep.data.fits import read_bands

NSIDE, NU = 8, [40.0, 95.0, 150.0, 220.0, 353.0]


def test_parameters_with_patches_and_what_the_headers_say(tmp_path):
    rng = np.random.default_rng(8)
    laws = [distsep.CMB(), distsep.Dust(nu0=353.0, temp=20.0)]
    instrument = distsep.Instrument(nu=NU, depth_p=[5.0] * 5)
    A = np.asarray(distsep.MixingMatrix(laws, instrument)({"Dust.beta_d": 1.5}))
    s = rng.normal(0, 30, (2, 2, 12 * NSIDE**2))
    maps = np.einsum("fc,csp->fsp", A, s) + rng.normal(0, 0.1, (5, *s.shape[1:]))
    maps[..., :100] = np.nan
    observation = distsep.Observation(maps, instrument, stokes="QU", nside=NSIDE)
    result = distsep.separate(
        laws,
        observation,
        patches={"Dust.beta_d": 1},
        amplitude_covariance=["CMB"],
        amplitude_unit="uK_RJ",
        output=tmp_path / "result.zarr",
    )
    files = {f.name for f in export_store(tmp_path / "result.zarr", tmp_path / "maps")}
    assert files >= {"CMB.fits", "Dust.fits", "Dust.beta_d.fits", "chi2.fits"}
    ids = healpy.read_map(tmp_path / "maps/Dust.beta_d.patch.fits", dtype=int)
    found = tmp_path / "maps/Dust.beta_d.fits"
    value, sigma = healpy.read_map(found, field=(0, 1))
    for column, of in ((value, result.parameters), (sigma, result.sigma)):
        known = np.where(ids < 0, np.nan, of["Dust.beta_d"][ids])
        np.testing.assert_array_equal(np.where(ids < 0, np.nan, column), known)
        assert (column[ids < 0] == healpy.UNSEEN).all()
    assert (ids[:100] < 0).all()
    assert np.ptp(ids[100:]) > 5
    header = fits.getheader(tmp_path / "maps/Dust.fits", 1)
    assert (header["COMP"], header["NU0"], header["TUNIT1"]) == ("Dust", 353.0, "uK_RJ")
    cmb = fits.getheader(tmp_path / "maps/CMB.fits", 1)
    assert [cmb[f"TTYPE{n}"] for n in (1, 3)] == ["Q_STOKES", "Q_SIGMA"]
    assert "NU0" not in cmb
    assert fits.getheader(found, 1)["PARAM"] == "Dust.beta_d"


def observed(**noise):
    """Maps of Q and U at five bands, a fifth of the sphere not seen by the first."""
    instrument = distsep.Instrument(nu=NU, depth_p=[5.0, 4.0, 3.0, 4.0, 5.0])
    maps = np.random.default_rng(2).normal(0, 30, (5, 2, 12 * NSIDE**2))
    maps[0, :, : maps.shape[-1] // 5] = np.nan
    return distsep.Observation(maps, instrument, stokes="QU", nside=NSIDE, **noise)


PIXELS = 1 + np.arange(12 * NSIDE**2) % 7
NOISES = {
    "hits": {"hits": PIXELS.astype(float), "hits_norm": 4.0},
    "one variance": {"noise_variance": np.full((5, 1, 1), 0.25)},
    "pixel": {"noise_variance": PIXELS * (1.0 + np.arange(10).reshape(5, 2, 1))},
    "pixels and bands": {
        "noise_variance": 1.0 + (PIXELS * np.arange(10).reshape(5, 2, 1)) % 5
    },
}


@pytest.mark.parametrize("kind", NOISES)
def test_noise_that_is_not_of_the_depths_goes_along(kind, tmp_path):
    observation = observed(**NOISES[kind])
    observation.save(tmp_path / "sky.zarr")
    files = export_store(tmp_path / "sky.zarr", tmp_path / "maps")
    inverse = observation.noise.shape
    if observation.noise.kind == "uniform":
        weight = observation.noise.weight
        inverse = inverse[..., None] * (np.ones(768) if weight is None else weight)
    for band, file in enumerate(files):
        q, u, *variances = healpy.read_map(file, field=None, nest=True, dtype=None)
        seen = ~np.isnan(observation.d[band])
        for k, (m, variance) in enumerate(zip((q, u), variances, strict=True)):
            np.testing.assert_array_equal(m[seen[k]], observation.d[band, k, seen[k]])
            expected = 1 / inverse[band, k]
            np.testing.assert_allclose(variance, expected, rtol=1e-14)
        header = fits.getheader(file, 1)
        names = [header[f"TTYPE{n}"] for n in (1, 2, 3, 4)]
        assert names == ["Q_STOKES", "U_STOKES", "QQ_COV", "UU_COV"]
        assert header["TUNIT4"] == "(uK_CMB)^2"


@pytest.mark.parametrize("number", [1024, 12 * 32**2])
def test_some_pixels_are_one_a_row(number, tmp_path):
    """Whatever their number: 1024 a row is for whole spheres."""
    rng = np.random.default_rng(3)
    observation = distsep.Observation(
        rng.normal(size=(5, 2, number)),
        distsep.Instrument(NU, depth_p=[4.0] * 5),
        stokes="QU",
        nside=32,
        ordering="NEST",
        cell_ids=np.arange(number),
    )
    observation.save(tmp_path / "sky.zarr")
    files = export_store(tmp_path / "sky.zarr", tmp_path / "maps", partial=True)
    for band, file in enumerate(files):
        assert file.stat().st_size < 30 * number + 30000
        q = healpy.read_map(file, field=0, nest=True, dtype=None)
        np.testing.assert_array_equal(q[:number], observation.d[band, 0])
    read = read_bands(files, "QU")
    np.testing.assert_array_equal(read.maps, observation.d)


def test_half_a_file_is_not_left(tmp_path, monkeypatch):
    """A disk that is full says so, of which file, and what was there stays."""
    observed().save(tmp_path / "sky.zarr")
    (first, *_) = export_store(tmp_path / "sky.zarr", tmp_path)
    before = first.read_bytes()

    def full(self, name, **_):
        name.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fits.BinTableHDU, "writeto", full)
    with pytest.raises(OSError, match="No space left") as error:
        export_store(tmp_path / "sky.zarr", tmp_path, overwrite=True)
    assert error.value.filename == str(first)
    assert first.read_bytes() == before
    assert not list(tmp_path.glob(".*.new"))


def test_depths_need_no_columns_and_covariances_are_missed(tmp_path, caplog):
    observed().save(tmp_path / "depths.zarr")
    (file, *_) = export_store(tmp_path / "depths.zarr", tmp_path / "depths")
    assert fits.getheader(file, 1)["TFIELDS"] == 2
    assert "not of this store" not in caplog.text
    file.with_name("Dust.fits").write_bytes(file.read_bytes())
    export_store(tmp_path / "depths.zarr", tmp_path / "depths", overwrite=True)
    assert "depths has FITS files that are not of this store: Dust.fits" in caplog.text
    caplog.clear()
    assert not caplog.records
    observed(inverse_noise=np.eye(5)).save(tmp_path / "dense.zarr")
    (file, *_) = export_store(tmp_path / "dense.zarr", tmp_path / "dense")
    assert fits.getheader(file, 1)["TFIELDS"] == 2
    assert "covariance of bands is not written" in caplog.text
