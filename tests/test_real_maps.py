"""The conventions proved on the sky: public WMAP, GSM and Simons Observatory maps."""

import healpy
import numpy as np
import pytest
from conftest import shared_file

from distsep.data import healpix
from distsep.data.fits import read_bands
from distsep.data.fits_out import write_maps
from distsep.data.fits_scalar import read_mask, read_scalar
from distsep.model.units import H_OVER_K, conversion

WMAP = {"V": 60.8, "W": 93.5}
GSM = ("sky", "gsm2016", "gsm2016_wmap_planck_bands_I_nside64_ring_uKRJ.npz")
MASK = ("sky", "wmap7", "wmap_temperature_analysis_mask_r9_7yr_v4_udgraded32.fits")


def wmap_files():
    name = "wmap_band_iqumap_r9_7yr_{}_v4_udgraded32.fits"
    return [shared_file("sky", "wmap7", name.format(band)) for band in WMAP]


@pytest.fixture(scope="module")
def wmap():
    return read_bands(wmap_files(), unit="mK_CMB")


def test_wmap_is_refused_until_its_unit_is_given(wmap):
    with pytest.raises(ValueError, match=r"_V_.*no unit in its header.*--unit mK_CMB"):
        read_bands(wmap_files())
    assert wmap.unit == ("mK_CMB", "mK_CMB")
    assert wmap.maps.shape == (2, 3, 12 * 32**2)
    assert wmap.coordsys == "G"
    said = " ".join(wmap.notes)
    assert "no COORDSYS" in said
    assert "no POLCCONV" in said


def test_an_unknown_coordsys_and_unit_are_as_good_as_none(caplog):
    name = "wmap_band_iqumap_r9_7yr_W_v4_udgraded32_smoothed10deg_fortran.fits"
    path = shared_file("sky", "wmap7", name)
    with pytest.raises(ValueError, match="'unknown' is not known.*--unit"):
        read_bands([path])
    maps = read_bands([path], unit="mK_CMB", coordsys="G")
    assert maps.notes == ()
    assert np.isfinite(maps.maps).all()


def test_wmap_intensity_is_the_skys(wmap):
    """mK, thermodynamic, and galactic: slope 1 on the GSM bands at 5 degrees."""
    bands = np.load(shared_file(*GSM))
    use = read_mask(shared_file(*MASK)) & (np.abs(healpix.latitude(32)) > 30)
    assert 0.35 < use.mean() < 0.5
    for measured, nu in zip(wmap.maps[:, 0], WMAP.values(), strict=True):
        gsm = bands["maps"][np.argmin(np.abs(bands["freq_ghz"] - nu))].astype(float)
        gsm = healpix.reorder(gsm, "RING", "NEST").reshape(-1, 4).mean(1)
        gsm *= conversion("uK_RJ", "mK_CMB", nu)
        ring = healpix.reorder(measured.astype(float), "NEST", "RING")
        smooth = healpy.smoothing(ring, fwhm=np.deg2rad(5))
        smooth = healpix.reorder(smooth, "RING", "NEST")
        slope = np.polyfit(gsm[use], smooth[use], 1)[0]
        assert abs(slope - 1) < 0.02, f"{nu} GHz: slope {slope:.4f}"


def test_wmap_u_has_the_sign_of_the_truth(wmap):
    """COSMO, as assumed: in the IAU convention the slope would be -1."""
    dust_file = shared_file("sky", "truth_dust_nside64.fits")
    synchrotron_file = shared_file("sky", "truth_synch_nside64.fits")
    dust, synchrotron = read_bands([dust_file, synchrotron_file]).maps[:, 2]
    beta_d, temp = (read_scalar(dust_file, name) for name in ("BETA_D", "TEMP_D"))
    beta_pl = read_scalar(synchrotron_file, "BETA_S")
    expected = {"V": (1.00, 0.04), "W": (1.11, 0.05)}
    for measured, (band, nu) in zip(wmap.maps[:, 2], WMAP.items(), strict=True):
        x, x0 = H_OVER_K * nu / temp, H_OVER_K * 353 / temp
        law = (nu / 353) ** (beta_d + 1) * np.expm1(x0) / np.expm1(x)
        truth = law * dust + (nu / 30) ** beta_pl * synchrotron
        truth = truth.reshape(-1, 4).mean(1) * conversion("uK_RJ", "mK_CMB", nu)
        slope = (truth @ measured.astype(float)) / (truth @ truth)
        value, error = expected[band]
        assert abs(slope - value) < error, f"{band}: slope {slope:.4f}"


def test_so_hits_from_celestial_to_galactic():
    celestial = shared_file("sky", "masks", "bbpower_so_sat_hits_C_nside64.fits")
    galactic = shared_file("sky", "masks", "furax_so_sat_hits_G_nside64.fits")
    with pytest.raises(ValueError, match="COORDSYS = 'C'.*rotate it first"):
        read_scalar(celestial, coordsys="G")
    hits = read_scalar(celestial, missing=0)
    turned = healpix.rotate_map(hits, ("C", "G"), ordering="NEST")
    expected = read_scalar(galactic, missing=0)
    assert np.corrcoef(turned, expected)[0, 1] > 0.9999
    # And not by chance: the inverse rotation does not match.
    wrong = healpix.rotate_map(hits, ("G", "C"), ordering="NEST")
    assert np.corrcoef(wrong, expected)[0, 1] < 0.5


def test_wmap_is_written_and_read_back(wmap, tmp_path):
    """With everything that its own header does not say."""
    path = write_maps(
        tmp_path / "V.fits", wmap.maps[0], names=["I_STOKES", "Q_STOKES", "U_STOKES"],
        units=[wmap.unit[0]] * 3, nside=wmap.nside, coordsys=wmap.coordsys,
    )  # fmt: skip
    again = read_bands([path])
    np.testing.assert_array_equal(again.maps[0], wmap.maps[0])
    assert (again.unit, again.coordsys, again.notes) == (("mK_CMB",), "G", ())
    np.testing.assert_array_equal(
        healpy.read_map(path, field=0), healpy.read_map(wmap_files()[0], field=0)
    )
