"""Patch maps: which value of a parameter a pixel has, -1 = the pixel is not used.

Cells of a coarser HEALPix grid, an integer map, or K-means clusters of the observed
pixels. Every function answers for the NEST pixels of this rank only.
"""

from typing import Any

import numpy as np
from jaxtyping import Integer, Shaped

from distsep.data import healpix

POINTS_PER_PATCH = 30
LARGEST_FIT = 3.5e8
"""K-means is fitted to the cells of the coarsest grid that has 30 of them per patch, or
of a coarser one if cells x patches is above this (about 5 s on one core)."""


def nside_patches(
    nside: int, cell_ids: Integer[np.ndarray, " pix"], coarse: int
) -> Integer[np.ndarray, " pix"]:
    """Return the NEST number, at nside `coarse`, of the cell that holds each pixel.

    There are 12 coarse^2 patches; those without an observed pixel stay empty.
    """
    return healpix.parents(nside, cell_ids, coarse)


def checked_ids(
    ids: Any, name: str, npix: int, most: int | None = None
) -> Integer[np.ndarray, "..."]:
    """Return patch numbers as integers, -1 where NaN, UNSEEN or masked.

    Args:
        ids: What the caller gave.
        name: The argument, for messages.
        npix: Pixels of the sphere of the maps.
        most: Largest number of patches; None: 10 per pixel, or a million.

    Raises:
        ValueError: if they are not whole numbers from -1, or leave most numbers out.
    """
    try:
        ids = np.asarray(healpix.filled(ids, np.nan))
    except ValueError:  # rows of different lengths
        ids = np.asarray(None)
    if ids.dtype.kind not in "iuf" or ids.ndim == 0:
        raise ValueError(
            f"{name} expected an array of integers, -1 = not used, got {ids.dtype}, "
            f"shape {ids.shape}. Read a file first: `healpy.read_map(file, dtype=int)`."
        )
    if ids.dtype.kind == "f":
        ids = np.where(
            np.isnan(ids) | (np.abs(ids / healpix.UNSEEN - 1) < 1e-5), -1, ids
        )
        odd = ids[(ids != np.floor(ids)) | np.isinf(ids)]
        if odd.size:
            raise ValueError(f"{name} expected whole numbers, got {odd[0]}.")
    low, high = (ids.min(), ids.max()) if ids.size else (-1, -1)
    if low < -1:
        raise ValueError(
            f"{name} expected patch ids from 0 to n-1, or -1 = not used, got {low}."
        )
    most = most or max(10 * npix, 10**6)
    if high >= most:
        raise ValueError(
            f"{name}: patch ids run from 0 to n-1, n at most {most} here, got {high}: "
            "number them anew, e.g. with `numpy.unique(ids, return_inverse=True)`."
        )
    return ids.astype(np.int64)


def map_patches(
    ids: Shaped[np.ndarray, " whole"],
    nside: int,
    cell_ids: Integer[np.ndarray, " pix"],
    *,
    ordering: str = "RING",
    name: str = "patches",
) -> Integer[np.ndarray, " pix"]:
    """Return the patch of each pixel from a map of the whole sphere.

    Args:
        ids: Patch numbers; -1, NaN or UNSEEN: not used. A map of a coarser nside
            gives its number to all the pixels inside.
        nside: Resolution of the pixels.
        cell_ids: NEST numbers of the pixels wanted.
        ordering: Ordering of `ids`.
        name: What the map is for, for the message.

    Raises:
        ValueError: if the map is not whole numbers, no sphere, or finer than `nside`.
    """
    numbers = checked_ids(ids, f"the patch map of `{name}`", 12 * nside**2)
    own = healpix.nside_of(len(numbers), f"patch map of `{name}`")
    if own > nside:
        raise ValueError(
            f"the patch map of `{name}` has nside {own}, expected at most {nside}, "
            "that of the maps."
        )
    cells = healpix.parents(nside, cell_ids, own)
    if healpix.check_ordering(ordering) == "RING":
        cells = healpix.nest_to_ring(own, cells)
    return numbers[cells]


def kmeans_patches(
    nside: int,
    cell_ids: Integer[np.ndarray, " pix"],
    n: int,
    *,
    seed: int = 0,
    comm: Any = None,
    name: str = "K-means:",
) -> Integer[np.ndarray, " pix"]:
    """Cluster the observed pixels of all ranks into `n` compact patches.

    The clusters are fitted to the occupied cells of a coarser grid, weighted by the
    pixels inside, where the sky has many more pixels than patches; each pixel then
    goes to the nearest centre. The answer does not depend on the number of ranks.

    Args:
        nside: Resolution of the pixels.
        cell_ids: NEST numbers of the observed pixels of this rank, ascending.
        n: Number of patches.
        seed: Of the start of K-means.
        comm: Ranks; None: this process has all pixels.
        name: What they are for, for the message.

    Returns:
        Patch numbers 0 .. n-1 of the pixels of this rank.

    Raises:
        ValueError: if there are fewer observed pixels than patches.

    Communication: allgather of the occupied coarse cells, broadcast of the centres.
    """
    everyone = (lambda x: [x]) if comm is None else comm.allgather
    total = sum(everyone(len(cell_ids)))
    if not 0 < n <= total:
        raise ValueError(
            f"{name} expected between 1 and {total} K-means patches (observed pixels), "
            f"got {n}."
        )
    coarse, (cells, counts) = nside, _occupied(nside, cell_ids, nside, everyone)
    while coarse > 1:
        fewer = _occupied(nside, cell_ids, coarse // 2, everyone)
        plenty = len(fewer[0]) >= POINTS_PER_PATCH * n
        costly = len(cells) * n > LARGEST_FIT and len(fewer[0]) >= n
        if not (plenty or costly):
            break
        coarse, (cells, counts) = coarse // 2, fewer
    centres: Any = None
    if comm is None or comm.rank == 0:
        points = healpix.unit_vectors(coarse, cells)
        weights = counts.astype(float)
        centres = healpix.kmeans_centres(points, n, weights=weights, seed=seed)
    if comm is not None:
        centres = comm.bcast(centres)
    return healpix.nearest_centre(centres, healpix.unit_vectors(nside, cell_ids))


def _occupied(nside, cell_ids, coarse, everyone) -> tuple[np.ndarray, np.ndarray]:
    """Return the coarse cells that any rank observes, and their pixels."""
    own = np.unique(healpix.parents(nside, cell_ids, coarse), return_counts=True)
    cells, counts = np.concatenate([np.stack(x) for x in everyone(own)], axis=1)
    merged, where = np.unique(cells, return_inverse=True)
    return merged, np.bincount(where, weights=counts, minlength=len(merged))
