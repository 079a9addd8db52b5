"""A result as FITS maps: what a person looks for is there."""

import healpy
import numpy as np
from astropy.io import fits

import distsep
from distsep.data.export import export_store

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
