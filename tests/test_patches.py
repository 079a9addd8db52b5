"""Patch maps: every pixel in its patch, the same on any number of ranks."""

from types import SimpleNamespace

import healpy
import numpy as np
import pytest

from distsep.data import healpix
from distsep.data.blocks import Grid
from distsep.data.patch_specs import agree, make_patches, read_patches
from distsep.data.patches import kmeans_patches, map_patches, nside_patches
from distsep.model.mistakes import InputError
from distsep.parallel import serial

NSIDE = 16


def high_latitudes(nside=NSIDE):
    ids = np.arange(12 * nside**2)
    return ids[np.abs(healpix.latitude(nside)) > 20]


def test_cells_of_a_coarser_grid():
    ids = high_latitudes()
    patch = nside_patches(NSIDE, ids, 2)
    directions = healpix.unit_vectors(NSIDE, ids)
    np.testing.assert_array_equal(patch, healpy.vec2pix(2, *directions.T, nest=True))


@pytest.mark.parametrize("ordering", ["RING", "NEST"])
@pytest.mark.parametrize("own", [NSIDE, 4])
def test_integer_maps(ordering, own):
    m = np.random.default_rng(0).integers(-1, 9, 12 * own**2)
    ids = high_latitudes()
    patch = map_patches(m, NSIDE, ids, ordering=ordering)
    pixel = healpy.vec2pix(
        own, *healpix.unit_vectors(NSIDE, ids).T, nest=ordering == "NEST"
    )
    np.testing.assert_array_equal(patch, np.where(m[pixel] < 0, -1, m[pixel]))
    as_float = np.where(m < 0, np.nan, m)
    np.testing.assert_array_equal(
        map_patches(as_float, NSIDE, ids, ordering=ordering), patch
    )


def test_integer_maps_refused():
    ids = high_latitudes()
    with pytest.raises(ValueError, match="`Dust.beta_d` has nside 32, expected at mos"):
        map_patches(np.zeros(12 * 32**2, int), NSIDE, ids, name="Dust.beta_d")
    with pytest.raises(ValueError, match="whole numbers, got 0.5"):
        map_patches(np.full(12 * NSIDE**2, 0.5), NSIDE, ids)
    with pytest.raises(ValueError, match="not a HEALPix sphere"):
        map_patches(np.zeros(100, int), NSIDE, ids)


WHOLE = 12 * NSIDE**2
ids_of_pixels = np.arange(WHOLE) % 5
SPECS = {
    "nside 2.5": ({"nside": 2.5}, "`nside` to be an integer of at least 1, got 2.5"),
    "nside x": ({"nside": "x"}, "`nside` to be an integer.*'x'"),
    "nside 0": ({"nside": 0}, "`nside` to be an integer of at least 1, got 0"),
    "nside 3": (3, "a power of two of at most 16"),
    "kmeans": ({"kmeans": 2.7}, "`kmeans` to be an integer of at least 1, got 2.7"),
    "many kmeans": ({"kmeans": WHOLE + 1}, f"between 1 and {WHOLE} K-means.*got 3073"),
    "seed": ({"kmeans": 3, "seed": None}, "`seed` to be an integer of at least 0"),
    "true": (True, "an integer map, or one of the keys.*got True"),
    "2.0": (2.0, "an integer map, or one of the keys.*got 2.0"),
    "text": ("2", "an integer map, or one of the keys.*got '2'"),
    "two keys": ({"kmeans": 3, "nside": 2}, "one of the keys.*got kmeans, nside"),
    "unknown key": ({"nside": 3, "seed": 2}, "one of the keys.*got nside, seed"),
    "stokes with": ({"seed": 2, "stokes": ["QU"]}, "one of the keys.*got seed, stokes"),
    "no key": ({}, "one of the keys.*got none"),
    "file": ({"map": "x.fits"}, "an array of integers.*Read a file first"),
    "ordering": (
        {"map": ids_of_pixels, "ordering": "UP"},
        '`ordering` to be "RING" or "NEST", got .UP',
    ),
    "stokes": ({"stokes": "QU"}, "`stokes` to be a list of words.*got 'QU'"),
    "stokes 3": ({"stokes": 3}, "`stokes` to be a list of words.*got 3"),
    "one stokes": ({"stokes": ["Q"]}, "each of Q, U in one of them"),
    "huge": (np.where(ids_of_pixels == 0, 10**9, ids_of_pixels), "run from 0 to n-1"),
    "infinite": (
        {"map": np.where(ids_of_pixels == 0, np.inf, 1)},
        "whole numbers, got inf",
    ),
    "negative": (ids_of_pixels - 2, "0 to n-1, or -1 = not used, got -2"),
    "all -1": (np.full(WHOLE, -1), "-1 in every observed pixel"),
    "all -1, map": ({"map": np.full(12, -1)}, "-1 in every observed pixel"),
    "length": (
        np.zeros(100, int),
        r"a whole sphere, of nside 16 or.*got shape \(100,\)",
    ),
    "finer": (np.zeros(4 * WHOLE, int), r"a whole sphere, of nside 16 or coarser"),
    "three rows": (np.zeros((3, WHOLE), int), r"\(stokes, pix\) = \(2, 3072\)"),
    "floats": (ids_of_pixels * 1.0, "must be integers.*got float64"),
    "ragged": ([[1, 2], [3]], "an array of integers"),
}


@pytest.fixture(scope="module")
def source():
    whole = SimpleNamespace(
        nside=NSIDE, stokes="QU", caller_npix=WHOLE, caller_index=np.arange(WHOLE),
        cell_ids=np.arange(WHOLE), start=0,
    )  # fmt: skip
    return SimpleNamespace(
        header=whole, number=1, pixels=lambda _: whole,
        used=lambda cells: np.ones(len(cells), bool),
    )  # fmt: skip


def resolve(spec, source, comm=None):
    """Number and function of the patches of a specification, or what is wrong."""
    comm, wrong = comm or serial(), []
    own = {"beta": read_patches(spec, "`patches` of 'beta'", source.header)}
    agreed = agree(own, source, comm, wrong)
    if wrong:
        raise InputError("separate(...)", *wrong)
    return make_patches(agreed["beta"], source, comm)


@pytest.mark.parametrize("case", SPECS)
def test_patches_that_are_none_are_refused(source, case):
    spec, match = SPECS[case]
    with pytest.raises(ValueError, match=match) as caught:
        resolve(spec, source)
    assert "`patches` of 'beta'" in str(caught.value)


@pytest.mark.parametrize(
    "missing", [np.nan, healpix.UNSEEN, np.float32(healpix.UNSEEN)]
)
def test_pixels_without_a_patch(source, missing):
    ids = np.where(ids_of_pixels == 0, missing, ids_of_pixels)
    masked = np.ma.array(ids_of_pixels, mask=ids_of_pixels == 0)
    for given in (masked, {"map": ids, "ordering": "NEST"}):
        number, of = resolve(given, source)
        assert (number, of is not None) == (5, True)
        expected = np.where(ids_of_pixels == 0, -1, ids_of_pixels)
        np.testing.assert_array_equal(of and of(source.header), expected[None])


@pytest.mark.parametrize("n", [1, 7, 50])
def test_kmeans_patches_are_compact_and_nearest(n):
    ids = high_latitudes()
    patch = kmeans_patches(NSIDE, ids, n, seed=1)
    sizes = np.bincount(patch, minlength=n)
    assert sizes.shape == (n,)
    assert sizes.min() > 0
    assert sizes.max() < 3 * len(ids) / n
    x = healpix.unit_vectors(NSIDE, ids)
    centres = np.stack([x[patch == k].mean(0) for k in range(n)])
    inside = ((x - centres[patch]) ** 2).sum(1)
    nearest = ((x[:, None] - centres) ** 2).sum(-1).min(1)
    # Lloyd's fixed point, but for the tolerance and the coarser grid of the fit.
    assert inside.sum() < 1.02 * nearest.sum()


def test_kmeans_is_seeded():
    ids = high_latitudes()
    one, same, other = (kmeans_patches(NSIDE, ids, 20, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_every_pixel_its_own_patch():
    ids = high_latitudes(4)
    patch = kmeans_patches(4, ids, len(ids))
    np.testing.assert_array_equal(np.sort(patch), np.arange(len(ids)))


def test_more_patches_than_pixels():
    with pytest.raises(ValueError, match="between 1 and 5"):
        kmeans_patches(NSIDE, np.arange(5), 6)


@pytest.mark.parametrize("nside", [8, 32])
def test_kmeans_is_the_same_however_the_sky_is_cut(comm, nside):
    ids = high_latitudes(nside)
    whole = kmeans_patches(nside, ids, 40)
    grid = Grid(len(ids), 64, 128)
    start, stop = grid.rank_pixels(comm.rank, comm.size)
    mine = kmeans_patches(nside, ids[start:stop], 40, comm=comm)
    np.testing.assert_array_equal(mine, whole[start:stop])


def test_a_rank_without_pixels(comm):
    ids = high_latitudes(8)
    mine = ids if comm.rank == 0 else ids[:0]
    patch = kmeans_patches(8, mine, 10, comm=comm)
    assert len(patch) == len(mine)
