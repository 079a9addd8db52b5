"""Patch maps: every pixel in its patch, the same on any number of ranks."""

import healpy
import numpy as np
import pytest

from distsep.data import healpix
from distsep.data.blocks import Grid
from distsep.data.patches import kmeans_patches, map_patches, nside_patches

NSIDE = 16


def high_latitudes(nside=NSIDE):
    ids = np.arange(12 * nside**2)
    return ids[np.abs(healpix.latitude(nside)) > 20].astype(np.uint64)


def test_cells_of_a_coarser_grid():
    ids = high_latitudes()
    patch = nside_patches(NSIDE, ids, 2)
    directions = healpix.unit_vectors(NSIDE, ids)
    np.testing.assert_array_equal(patch, healpy.vec2pix(2, *directions.T, nest=True))


@pytest.mark.parametrize("ordering", ["RING", "NEST"])
@pytest.mark.parametrize("own", [NSIDE, 4])
def test_integer_maps(ordering, own):
    m = np.random.default_rng(0).integers(-3, 9, 12 * own**2)
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
