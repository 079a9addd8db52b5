"""HEALPix pixels and FITS maps: against healpy, astropy and plain numpy."""

from typing import Any

import healpy
import numpy as np
import pytest
from astropy.io import fits

from distsep.cli.session import is_bad_input
from distsep.data import healpix
from distsep.data.fits import read_bands
from distsep.data.fits_out import write_maps
from distsep.data.fits_scalar import read_mask, read_patches, read_scalar
from distsep.data.tunit import unit_of

NSIDE = 8
NPIX = 12 * NSIDE**2


def iqu(seed=0, kind: Any = np.float64):
    return np.random.default_rng(seed).normal(size=(3, NPIX)).astype(kind)


def write(path, maps, *, nest=False, unit="uK_CMB", cards=(), names=None, **other):
    """Write with healpy, an independent writer, and change cards afterwards."""
    names = names or ["I_STOKES", "Q_STOKES", "U_STOKES"][: len(maps)]
    healpy.write_map(
        str(path), list(maps), nest=nest, dtype=maps.dtype, column_names=names,
        column_units=unit, overwrite=True, **{"coord": "G", **other},
    )  # fmt: skip
    with fits.open(path, mode="update") as file:
        head: Any = file[1]
        for card, value in dict(cards).items():
            if value is None:
                head.header.remove(card)
            else:
                head.header[card] = value
    return path


# ------------------------------------------------------------------ pixels


@pytest.mark.parametrize("nside", [1, 2, 8, 64])
def test_reordering_is_healpys_and_comes_back(nside):
    m = np.random.default_rng(1).normal(size=(2, 12 * nside**2))
    nest = healpix.reorder(m, "RING", "NEST")
    np.testing.assert_array_equal(nest, healpy.reorder(m, r2n=True))
    np.testing.assert_array_equal(healpix.reorder(nest, "NEST", "RING"), m)
    pixels = np.arange(12 * nside**2)
    there = healpix.ring_to_nest(nside, pixels)
    np.testing.assert_array_equal(healpix.nest_to_ring(nside, there), pixels)


def test_parents_hold_their_children():
    fine, coarse = 16, 4
    ids = np.arange(12 * fine**2)
    up = healpix.unit_vectors(fine, ids)
    expected = healpy.vec2pix(coarse, *up.T, nest=True)
    np.testing.assert_array_equal(healpix.parents(fine, ids, coarse), expected)
    with pytest.raises(ValueError, match="at most 4"):
        healpix.parents(4, ids[:5], 16)


def test_latitude_of_poles_and_equator():
    lat = healpix.latitude(NSIDE)
    ring = healpix.reorder(lat[None], "NEST", "RING")[0]
    assert (np.diff(ring) < 1e-9).all(), "RING runs from north to south"
    np.testing.assert_allclose(ring[0], np.rad2deg(np.arcsin(1 - 1 / (3 * NSIDE**2))))
    np.testing.assert_allclose(lat.mean(), 0, atol=1e-12)


def test_pixel_area_tiles_the_sphere():
    sphere = 4 * np.pi * (180 * 60 / np.pi) ** 2
    np.testing.assert_allclose(healpix.pixel_area_arcmin2(64) * 12 * 64**2, sphere)


def test_rotation_turns_a_dipole():
    """The dipole along the celestial pole points at the pole's galactic position."""
    pixels = healpix.reorder(
        healpix.unit_vectors(32, np.arange(12 * 32**2)).T, "NEST", "RING"
    )
    turned = healpix.rotate_map(pixels[2], ("C", "G"))
    pole = healpy.ang2vec(122.932, 27.128, lonlat=True)  # l, b of the celestial pole
    # 0.02: bilinear interpolation at this resolution.
    np.testing.assert_allclose(turned, pole @ pixels, atol=0.02)
    nest = healpix.rotate_map(
        healpix.reorder(pixels[2], "RING", "NEST"), ("C", "G"), ordering="NEST"
    )
    np.testing.assert_allclose(healpix.reorder(nest, "NEST", "RING"), turned, atol=0.01)


def test_rotation_says_what_it_cannot_do():
    with pytest.raises(ValueError, match='expected two of "G", "C", "E"'):
        healpix.rotate_map(np.zeros(12), ("C", "galactic"))


@pytest.mark.parametrize("wrong", [0, -2, 3, 12])
def test_nside_is_a_power_of_two(wrong):
    with pytest.raises(ValueError, match="power of two"):
        healpix.check_nside(wrong)


def test_a_part_of_the_sky_is_no_sphere():
    assert healpix.nside_of(NPIX) == NSIDE
    with pytest.raises(ValueError, match="give `cell_ids`"):
        healpix.nside_of(NPIX - 1)


# ------------------------------------------------------------------ units


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("uK_CMB", "uK_CMB"),
        ("K_CMB", "K_CMB"),
        ("Kcmb", "K_CMB"),
        ("uk_cmb", "uK_CMB"),
        ("mK,thermodynamic", "mK_CMB"),
        ("mK (thermodynamic)", "mK_CMB"),
        ("µK_CMB", "uK_CMB"),
        ("microK_CMB", "uK_CMB"),
        ("uK_{RJ}", "uK_RJ"),
        ("K, antenna", "K_RJ"),
        ("MJy/sr", "MJy/sr"),
        ("MJy sr-1", "MJy/sr"),
        ("MJy.sr**-1", "MJy/sr"),
        ("kJy / sr", "kJy/sr"),
    ],
)
def test_units_met_in_headers(text, unit):
    assert unit_of(text) == unit
    assert unit_of(text, given=unit) == unit


@pytest.mark.parametrize(
    "text", ["uK", "K", "mK", "Kelvin", "", None, "unknown", "K_CMB^2", "counts", "MK"]
)
def test_unclear_units_are_refused_until_given(text):
    with pytest.raises(ValueError, match="--unit"):
        unit_of(text)


def test_a_given_unit_completes_but_does_not_contradict():
    assert unit_of("mK", given="mK_RJ") == "mK_RJ"
    assert unit_of("unknown", given="MJy/sr") == "MJy/sr"
    for text, given in [("K_CMB", "K_RJ"), ("mK", "uK_CMB"), ("MJy/sr", "K_CMB")]:
        with pytest.raises(ValueError, match="the header says TUNIT"):
            unit_of(text, given=given)
    with pytest.raises(ValueError, match="should be one of"):
        unit_of("", given="furlong")


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize("nest", [False, True])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_reads_what_healpy_writes(tmp_path, nest, kind):
    m = iqu(kind=kind)
    path = write(tmp_path / "m.fits", m, nest=nest, cards={"POLCCONV": "COSMO"})
    bands = read_bands([path, path], "QU")
    expected = m if nest else healpy.reorder(m, r2n=True)
    np.testing.assert_array_equal(bands.maps, np.stack([expected[1:]] * 2))
    assert bands.maps.dtype == kind
    assert bands.maps.dtype.isnative
    assert (bands.unit, bands.nside, bands.coordsys) == (("uK_CMB",) * 2, NSIDE, "G")
    assert bands.cell_ids is None
    assert bands.notes == ()


def test_partial_maps_of_different_pixels_are_joined(tmp_path):
    m = iqu()
    first, second = m.copy(), m.copy()
    first[:, 200:] = healpy.UNSEEN
    second[:, :160] = healpy.UNSEEN
    second[:, 340:] = healpy.UNSEEN
    cards = {"POLCCONV": "COSMO"}
    files = [
        write(tmp_path / "1.fits", first, partial=True, cards=cards),
        write(tmp_path / "2.fits", second, nest=False, partial=True, cards=cards),
    ]
    bands = read_bands(files)
    ids = np.sort(healpy.ring2nest(NSIDE, np.arange(340)))
    np.testing.assert_array_equal(bands.cell_ids, ids)
    assert np.asarray(bands.cell_ids).dtype == np.int64
    for read, wanted in zip(bands.maps, (first, second), strict=True):
        expected = healpy.reorder(wanted, r2n=True)[:, ids]
        expected[expected == healpy.UNSEEN] = np.nan
        np.testing.assert_array_equal(read, expected)


def test_missing_samples_are_nan_and_zeros_are_said(tmp_path, caplog):
    m = iqu(kind=np.float32)
    m[1, 3] = healpy.UNSEEN
    m[0, 4] = np.nan
    m[2, 5] = -9999.0
    m[:, 6] = 0
    m[0, 7] = 0
    path = write(
        tmp_path / "m.fits",
        m,
        nest=True,
        cards={"BAD_DATA": -9999.0, "POLCCONV": "IAU"},
    )
    bands = read_bands([path])
    missing = np.zeros((3, NPIX), bool)
    missing[1, 3] = missing[0, 4] = missing[2, 5] = True
    missing[:, 6] = True
    np.testing.assert_array_equal(np.isnan(bands.maps[0]), missing)
    assert any("1 pixels are exactly zero" in note for note in bands.notes)
    assert "exactly zero" in caplog.text


def test_iau_turns_u_and_cosmo_is_taken_for_granted_aloud(tmp_path, caplog):
    m = iqu()
    iau = write(tmp_path / "iau.fits", m, nest=True, cards={"POLCCONV": "IAU"})
    silent = write(tmp_path / "silent.fits", m, nest=True)
    np.testing.assert_array_equal(read_bands([iau], "QU").maps[0], [m[1], -m[2]])
    caplog.clear()
    bands = read_bands([silent], "QU")
    np.testing.assert_array_equal(bands.maps[0], m[1:])
    assert "no POLCCONV in silent.fits: taken as COSMO" in caplog.text
    np.testing.assert_array_equal(
        read_bands([silent], "QU", polcconv="IAU").maps[0], [m[1], -m[2]]
    )
    assert bands.keywords()["polcconv"] == "COSMO"


def test_a_convention_that_is_none_is_not_taken_for_cosmo(tmp_path):
    m = iqu()
    odd = write(tmp_path / "odd.fits", m, nest=True, cards={"POLCCONV": "XXX"})
    with pytest.raises(ValueError, match=r"odd.fits: POLCCONV = 'XXX'.*COSMO, IAU"):
        read_bands([odd], "QU")
    np.testing.assert_array_equal(
        read_bands([odd], "QU", polcconv="COSMO").maps[0], m[1:]
    )


def test_coordinates_that_are_none_are_not_taken_for_galactic(tmp_path, caplog):
    m = iqu()
    cards = {"POLCCONV": "COSMO", "COORDSYS": "SUPERGAL"}
    odd = write(tmp_path / "odd.fits", m, cards=cards)
    with pytest.raises(ValueError, match=r"odd.fits: COORDSYS = 'SUPERGAL'.*G, C, E"):
        read_bands([odd], "QU")
    assert read_bands([odd], "QU", coordsys="E").coordsys == "E"
    silent = write(tmp_path / "s.fits", m, cards={**cards, "COORDSYS": "unknown"})
    assert read_bands([silent], "QU").coordsys == "G"
    assert "no COORDSYS in s.fits: taken as G" in caplog.text


def test_bands_that_disagree_are_refused(tmp_path):
    m = iqu()
    cosmo = {"POLCCONV": "COSMO"}
    one = write(tmp_path / "1.fits", m, cards=cosmo)
    other = {
        "POLCCONV": write(tmp_path / "p.fits", m, cards={"POLCCONV": "IAU"}),
        "COORDSYS": write(tmp_path / "c.fits", m, coord="C", cards=cosmo),
        "NSIDE": write(tmp_path / "n.fits", m[:, : NPIX // 4], cards=cosmo),
    }
    for card, path in other.items():
        with pytest.raises(ValueError, match=f"disagree in {card}.*1.fits"):
            read_bands([one, path])
    for given, said in ({"coordsys": "C"}, "G"), ({"polcconv": "IAU"}, "COSMO"):
        ((key, value),) = given.items()
        expected = f"header says {key.upper()} = '{said}' but '{value}' was asked"
        with pytest.raises(ValueError, match=expected):
            read_bands([one], **given)
    # Intensity has no polarisation convention to disagree in.
    assert read_bands([one, other["POLCCONV"]], "I").maps.shape == (2, 1, NPIX)


def test_absent_coordsys_is_said_or_given(tmp_path, caplog):
    path = write(tmp_path / "m.fits", iqu(), coord=None)
    assert read_bands([path], "I").coordsys == "G"
    assert "no COORDSYS in m.fits: taken as G" in caplog.text
    caplog.clear()
    assert read_bands([path], "I", coordsys="C").coordsys == "C"
    assert "COORDSYS" not in caplog.text


def test_unit_is_asked_for_and_may_differ_by_band(tmp_path):
    mute = write(tmp_path / "mute.fits", iqu(), unit="")
    clear = write(tmp_path / "clear.fits", iqu(), unit="MJy/sr")
    with pytest.raises(ValueError, match=r"mute.fits \(I_STOKES\).*--unit"):
        read_bands([clear, mute], "I")
    bands = read_bands([clear, mute], "I", unit=[None, "K_RJ"])
    assert bands.unit == ("MJy/sr", "K_RJ")
    with pytest.raises(ValueError, match="one entry per band"):
        read_bands([clear, mute], "I", unit=["K_RJ"])


def test_columns_of_one_map_share_their_unit(tmp_path):
    """However they say it: "mK" and "mK,thermodynamic" in the maps of WMAP."""
    units = ["mK", "mK,thermodynamic", "mK,thermodynamic"]
    path = write(tmp_path / "wmap.fits", iqu(), unit=units)
    assert read_bands([path], unit="mK_CMB").unit == ("mK_CMB",)
    with pytest.raises(ValueError, match=r"\(I_STOKES\).*'mK'.*--unit mK_CMB"):
        read_bands([path])
    path = write(tmp_path / "two.fits", iqu(), unit=["K_CMB", "K_RJ", "K_RJ"])
    with pytest.raises(ValueError, match="two.fits: the columns have different units"):
        read_bands([path])


def test_columns_are_found_by_name_or_named(tmp_path):
    m = iqu()
    odd = write(tmp_path / "odd.fits", m, nest=True, names=["A", "B", "C"])
    with pytest.raises(ValueError, match="name them with `--columns`"):
        read_bands([odd], "QU")
    maps = read_bands([odd, odd], "QU", columns=[["B", 2], [0, "a"]]).maps
    np.testing.assert_array_equal(maps, [[m[1], m[2]], [m[0], m[0]]])
    with pytest.raises(ValueError, match="no column 'D' among A, B, C"):
        read_bands([odd], "I", columns=[["D"]])
    fortran = ["TEMPERATURE", "Q-POLARISATION", "U-POLARISATION"]
    path = write(tmp_path / "f.fits", m, nest=True, names=fortran)
    np.testing.assert_array_equal(read_bands([path]).maps[0], m)


def test_ordering_is_asked_for_when_absent(tmp_path):
    m = iqu()
    path = write(tmp_path / "m.fits", m, cards={"ORDERING": None})
    with pytest.raises(ValueError, match="--ordering"):
        read_bands([path])
    read = read_bands([path], ordering="RING").maps[0]
    np.testing.assert_array_equal(read, healpy.reorder(m, r2n=True))
    clear = write(tmp_path / "clear.fits", m)
    with pytest.raises(ValueError, match="'RING' in the header"):
        read_bands([clear], ordering="NEST")


def test_a_file_without_a_map_is_named(tmp_path):
    path = tmp_path / "image.fits"
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(path)
    with pytest.raises(ValueError, match="image.fits: no extension holds a HEALPix"):
        read_bands([path])
    text = tmp_path / "text.fits"
    text.write_text("text")
    with pytest.raises(OSError, match="text.fits: no FITS file") as caught:
        read_bands([text])
    assert is_bad_input(caught.value)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-8000])


def no_letters(path):
    path.write_bytes(path.read_bytes().replace(b"TFORM1  =", b"TFORM1X ="))


BROKEN = {
    "cut short": (cut_short, "damaged or cut short"),
    "empty": (lambda path: path.write_bytes(b""), "no FITS file"),
    "garbage": (lambda path: path.write_bytes(bytes(range(256)) * 99), "no FITS file"),
    "no TFORM": (no_letters, "damaged or cut short"),
    "nside": ({"NSIDE": "x"}, "NSIDE` expected a power of two.*'x'"),
    "nside odd": ({"NSIDE": 2.5}, "NSIDE` expected a power of two.*2.5"),
    "rows": ({"NAXIS2": 1}, "damaged or cut short"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("read", [lambda p: read_bands([p]), read_mask, read_patches])
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named(tmp_path, case, read):
    damage, match = BROKEN[case]
    cards = damage if isinstance(damage, dict) else {}
    path = write(tmp_path / "m.fits", iqu(), cards=cards)
    if callable(damage):
        damage(path)
    with pytest.raises((ValueError, OSError), match=f"m.fits.*{match}") as caught:
        read(path)
    assert is_bad_input(caught.value)


def test_columns_that_are_no_maps_are_refused(tmp_path):
    path = write(tmp_path / "m.fits", iqu())
    with fits.open(path) as file:
        table: Any = file[1]
        cards = {key: table.header[key] for key in ("NSIDE", "ORDERING")}
    columns = [
        fits.Column("PIXEL", "K", array=np.array([3, 3])),
        fits.Column("I", "D", array=np.ones(2), unit="K_CMB"),
        fits.Column("WORD", "3A", array=np.array(["abc", "def"])),
        fits.Column("PAIR", "2D", array=np.ones((2, 2))),
    ]
    odd = fits.BinTableHDU.from_columns(columns)
    odd.header.update(cards)
    odd.writeto(path, overwrite=True)
    with pytest.raises(ValueError, match=r"m.fits: PIXEL names a pixel twice"):
        read_bands([path], "I")
    for column in ("WORD", "PAIR"):
        with pytest.raises(ValueError, match=f"m.fits: the column {column} expected 2"):
            read_scalar(path, column)


def test_infinite_samples_and_empty_bands_are_said(tmp_path, caplog):
    m = iqu()
    m[1, [3, 9]] = np.inf, -np.inf
    path = write(tmp_path / "m.fits", m, nest=True, cards={"POLCCONV": "COSMO"})
    bands = read_bands([path])
    assert np.isnan(bands.maps).sum() == 2
    assert bands.notes == (
        "m.fits: 2 pixels of Q_STOKES are infinite: taken as not observed.",
    )
    path = write(tmp_path / "none.fits", m * np.nan, cards={"POLCCONV": "COSMO"})
    assert (
        "none.fits: no pixel has a value in I_STOKES"
        in read_bands([path], "I").notes[0]
    )
    with pytest.raises(ValueError, match=r"none.fits: I_STOKES has no value.*NaN"):
        read_scalar(path, missing=0)
    hits = np.ones((1, NPIX))
    hits[0, :3] = np.nan, np.nan, np.inf
    path = write(tmp_path / "hits.fits", hits, nest=True)
    caplog.clear()
    assert read_scalar(path, missing=0)[:4].tolist() == [0, 0, 0, 1]
    assert "hits.fits: 2 pixels of I_STOKES are NaN: taken as 0" in caplog.text
    assert "1 pixels of I_STOKES are infinite" in caplog.text


# ------------------------------------------------------------------ scalars


def test_mask_hits_and_patches(tmp_path, caplog):
    mask = (np.arange(NPIX) % 3 == 0).astype(float)[None]
    path = write(tmp_path / "mask.fits", mask, nest=True, unit="", coord="C")
    np.testing.assert_array_equal(read_mask(path), mask[0] == 1)
    fine = read_mask(path, nside=2 * NSIDE)
    np.testing.assert_array_equal(fine, np.repeat(mask[0] == 1, 4))
    with pytest.raises(ValueError, match="finer than the maps"):
        read_mask(path, nside=NSIDE // 2)
    with pytest.raises(ValueError, match="COORDSYS = 'C', but the maps are in 'G'"):
        read_mask(path, coordsys="G")
    mask[0, 3] = healpy.UNSEEN
    path = write(tmp_path / "seen.fits", mask, nest=True, unit="")
    assert (read_mask(path) == (mask[0] == 1)).all()
    assert not caplog.text
    mask[0, 6] = 0.25
    path = write(tmp_path / "soft.fits", mask, nest=True, unit="")
    assert read_mask(path)[6]
    assert "soft.fits: 1 pixels of the mask are between 0 and 1" in caplog.text
    mask[0, 6] = 300.5
    path = write(tmp_path / "sky.fits", mask, nest=True, unit="")
    with pytest.raises(ValueError, match="sky.fits: a mask .* found 0 to 300.5"):
        read_mask(path)
    hits = np.arange(NPIX, dtype=float)[None]
    hits[0, 5] = healpy.UNSEEN
    path = write(tmp_path / "hits.fits", hits, nest=True, unit="")
    assert np.isnan(read_scalar(path)[5])
    assert read_scalar(path, missing=0)[5] == 0
    assert read_patches(path)[5] == -1
    np.testing.assert_array_equal(np.delete(read_patches(path), 5), np.delete(hits, 5))
    path = write(tmp_path / "half.fits", hits + 0.5, nest=True, unit="")
    with pytest.raises(ValueError, match="whole numbers"):
        read_patches(path)


# ------------------------------------------------------------------ writing


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("partial", [False, True])
def test_healpy_and_astropy_read_what_is_written(tmp_path, kind, partial):
    ids = np.sort(np.random.default_rng(2).choice(NPIX, 101, replace=False))
    m = (100 * iqu()[:2, :101]).astype(kind)
    expected = np.full((2, NPIX), -1 if kind is np.int64 else healpy.UNSEEN, kind)
    if kind is not np.int64:
        m[0, 4] = np.nan
    expected[:, ids] = np.where(np.isnan(m), healpy.UNSEEN, m)
    path = write_maps(
        tmp_path / "new" / "m.fits", m, names=["CMB_Q", "CMB_U"], nside=NSIDE,
        units=["uK_CMB"] * 2, coordsys="C", polcconv="IAU", cell_ids=ids,
        partial=partial,
    )  # fmt: skip
    if not (partial and kind is np.int64):  # healpy fills integers with UNSEEN
        both: Any = (0, 1)
        read, header = healpy.read_map(
            path, field=both, nest=True, h=True, dtype=kind, partial=partial
        )
        np.testing.assert_array_equal(read, expected)
        assert ("COORDSYS", "C") in header
    with fits.open(path) as file:
        table: Any = file[1]
        head = table.header
        names = [name for name in table.data.names if name != "PIXEL"]
    wanted = {
        "ORDERING": "RING", "COORDSYS": "C", "POLCCONV": "IAU", "NSIDE": NSIDE,
        "PIXTYPE": "HEALPIX", "BAD_DATA": healpy.UNSEEN,
    }  # fmt: skip
    assert {card: head[card] for card in wanted} == wanted
    assert names == ["CMB_Q", "CMB_U"]
    units = [head.get(f"TUNIT{n}") for n in range(1, head["TFIELDS"] + 1)]
    assert units[-2:] == ["uK_CMB"] * 2


def test_written_and_read_back(tmp_path):
    m = iqu()
    m[2, 9] = np.nan
    path = write_maps(
        tmp_path / "m.fits", m, names=["I", "Q", "U"], units=["MJy/sr"] * 3,
        nside=NSIDE, coordsys="E", ordering="RING",
    )  # fmt: skip
    bands = read_bands([path])
    np.testing.assert_array_equal(bands.maps[0], healpy.reorder(m, r2n=True))
    assert (bands.unit, bands.coordsys, bands.notes) == (("MJy/sr",), "E", ())


def test_writing_refuses(tmp_path):
    m = iqu()
    good = {
        "names": ["I", "Q", "U"], "units": ["K_CMB"] * 3, "nside": NSIDE,
        "coordsys": "G",
    }  # fmt: skip
    write_maps(tmp_path / "m.fits", m, **good)
    with pytest.raises(FileExistsError, match="--overwrite"):
        write_maps(tmp_path / "m.fits", m, **good)
    write_maps(tmp_path / "m.fits", m, **good, overwrite=True)
    for wrong, match in [
        ({"names": ["I", "I", "U"]}, "all different"),
        ({"units": ["K_CMB"]}, "one entry per map"),
        ({"coordsys": "galactic"}, "coordsys G, C or E"),
        ({"nside": 2 * NSIDE}, "give `cell_ids`"),
    ]:
        with pytest.raises(ValueError, match=match):
            write_maps(tmp_path / "new.fits", m, **{**good, **wrong})
    assert not (tmp_path / "new.fits").exists()


@pytest.mark.parametrize(("card", "zero"), [("BAND", ""), ("FREQ", ""), ("FREQ", "0")])
def test_files_in_the_order_of_other_bands_are_refused(card, zero, tmp_path):
    """Headers name their band: BAND those of `distsep export`, FREQ those of Planck."""
    m = np.random.default_rng(9).normal(size=(2, 48))
    names = ["Q_POLARISATION", "U_POLARISATION"]
    files = [
        write(tmp_path / f"{band}.fits", m, names=names, cards=[(card, zero + band)])
        for band in ("40", "50", "other")
    ]
    found = polarised_bands(files, "40", "50", "60")
    assert found.maps.shape == (3, 2, 48)
    with pytest.raises(
        ValueError, match=rf"50.fits: .*{card} = '50'.*given for band 40"
    ):
        polarised_bands([files[1], files[0], files[2]], "40", "50", "60")


def polarised_bands(files, *bands):
    return read_bands(files, "QU", coordsys="G", polcconv="COSMO", bands=bands)
