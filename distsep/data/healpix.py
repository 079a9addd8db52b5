"""HEALPix pixels: orderings, positions, rotation of a scalar map.

Pure functions of pixel numbers. No files (data/fits.py) and no patches
(data/patches.py). healpy takes a second to import, so it is imported where it is used:
a run that reads a store in NEST order needs none of it.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Complex, Float, Integer

from distsep.model.mistakes import is_number

Ordering = Literal["RING", "NEST"]
COORDSYS = ("G", "C", "E")
UNSEEN = -1.6375e30
"""The HEALPix mark of a missing sample; NaN and infinities are taken as that too."""


def check_nside(nside: Any, argument: str = "nside") -> int:
    """Return `nside`, a power of two from 1 to 2^29, or say what is wrong with it."""
    number = int(nside) if is_number(nside) else 0
    if number != nside or not 0 < number <= 2**29 or number & (number - 1):
        raise ValueError(
            f"`{argument}` expected a power of two (64, 128, ...), got {nside!r}."
        )
    return number


def check_ordering(ordering: str, argument: str = "ordering") -> Ordering:
    """Return "RING" or "NEST", however it is written ("ring", "NESTED")."""
    name = str(ordering).strip().upper()
    if name == "RING":
        return "RING"
    if name in ("NEST", "NESTED"):
        return "NEST"
    raise ValueError(f'`{argument}` expected "RING" or "NEST", got {ordering!r}.')


def nside_of(npix: int, what: str = "map") -> int:
    """Return the nside of a whole sphere of `npix` pixels.

    Raises:
        ValueError: if no HEALPix sphere has that many pixels.
    """
    nside = round((npix / 12) ** 0.5)
    if npix < 12 or 12 * nside**2 != npix or nside & (nside - 1):
        raise ValueError(
            f"the {what} has {npix} pixels, which is not a HEALPix sphere (12 nside^2, "
            "nside a power of two): for a part of the sky give `cell_ids`."
        )
    return nside


def pixel_area_arcmin2(nside: int) -> float:
    """Return the area of a pixel [arcmin^2]."""
    return 4 * np.pi * (180 * 60 / np.pi) ** 2 / (12 * check_nside(nside) ** 2)


def ring_to_nest(
    nside: int, pixels: Integer[np.ndarray, "..."]
) -> Integer[np.ndarray, "..."]:
    """Return the NEST numbers of pixels numbered in RING."""
    import healpy

    return healpy.ring2nest(nside, pixels)


def nest_to_ring(
    nside: int, pixels: Integer[np.ndarray, "..."]
) -> Integer[np.ndarray, "..."]:
    """Return the RING numbers of pixels numbered in NEST."""
    import healpy

    return healpy.nest2ring(nside, np.asarray(pixels, dtype=np.int64))


def turn_u(maps: np.ndarray, stokes: str) -> None:
    """Change the sign of U of `(..., stokes, pix)`, in place: IAU to COSMO, or back."""
    if "U" in stokes:
        maps[..., stokes.index("U"), :] *= -1


def reorder(m: np.ndarray, ordering: Ordering, to: Ordering) -> np.ndarray:
    """Return maps of the whole sphere in the other ordering; pixels are the last axis.

    Args:
        m: Maps `(..., pix)`.
        ordering: Ordering of `m`.
        to: Ordering asked for.

    Returns:
        A new array, or `m` itself if the orderings are equal.
    """
    if ordering == to:
        return m
    every = np.arange(m.shape[-1])
    change = nest_to_ring if to == "NEST" else ring_to_nest
    return m[..., change(nside_of(m.shape[-1]), every)]


def parents(
    nside: int, cell_ids: Integer[np.ndarray, " pix"], coarse: int
) -> Integer[np.ndarray, " pix"]:
    """Return the NEST numbers, at the coarser nside, of the cells that hold `cell_ids`.

    Raises:
        ValueError: if `coarse` is finer than the map.
    """
    shift = check_nside(nside).bit_length() - check_nside(coarse).bit_length()
    if shift < 0:
        raise ValueError(
            f"cells of nside {coarse} are smaller than the pixels, of nside {nside}: "
            f"give an nside of at most {nside}."
        )
    return np.asarray(cell_ids).astype(np.int64) >> (2 * shift)


def unit_vectors(
    nside: int, cell_ids: Integer[np.ndarray, " pix"]
) -> Float[np.ndarray, "pix 3"]:
    """Return the unit vectors of the centres of NEST pixels."""
    import healpy

    ids = np.asarray(cell_ids, dtype=np.int64)
    return np.stack(healpy.pix2vec(nside, ids, nest=True), axis=-1)


def latitude(
    nside: int, cell_ids: Integer[np.ndarray, " pix"] | None = None
) -> Float[np.ndarray, " pix"]:
    """Return the latitude [deg] of NEST pixels, in the coordinates of the map.

    Args:
        nside: Resolution of the map.
        cell_ids: NEST numbers; None: the whole sphere in NEST order.
    """
    whole = np.arange(12 * check_nside(nside) ** 2)
    ids = whole if cell_ids is None else cell_ids
    return np.rad2deg(np.arcsin(np.clip(unit_vectors(nside, ids)[:, 2], -1, 1)))


def rotate_map(
    m: Float[np.ndarray, " pix"], coord: tuple[str, str], ordering: Ordering = "RING"
) -> Float[np.ndarray, " pix"]:
    """Return a scalar map of the whole sphere in other coordinates.

    Values are interpolated between the four nearest pixels: fit for hits, masks and
    depths, which are smooth. The noise of a map would be correlated, and Q and U would
    need their axes turned as well: rotate those before they become maps.

    Args:
        m: One map of the whole sphere.
        coord: From and to, e.g. `("C", "G")`; C celestial, G galactic, E ecliptic.
        ordering: Ordering of `m` and of the answer.

    Returns:
        The map in the coordinates `coord[1]`; NaN where a neighbour is missing.
    """
    import healpy

    if len(coord) != 2 or not set(coord) <= set(COORDSYS):
        raise ValueError(
            f'`rotate_map(coord=...)` expected two of "G", "C", "E", got {coord!r}.'
        )
    nside, nest = nside_of(len(m)), ordering == "NEST"
    known = np.where(is_missing(m), np.nan, m).astype(float)
    # Where each new pixel was before: the inverse rotation of its centre.
    back: Any = healpy.Rotator(coord=[coord[1], coord[0]])
    theta, phi = back(*healpy.pix2ang(nside, np.arange(len(m)), nest=nest))
    return healpy.get_interp_val(known, theta, phi, nest=nest)


def is_missing(m: np.ndarray) -> np.ndarray:
    """Return True where a sample is NaN, infinite or UNSEEN (to float32 rounding)."""
    return ~np.isfinite(m) | (np.abs(m - UNSEEN) < 1e-5 * abs(UNSEEN))


def filled(values: Any, value: float) -> Any:
    """Return an array with `value` where it is masked (numpy.ma, as `healpy.ma`).

    Lists of masked arrays too; whatever else comes back as it is.
    """
    if isinstance(values, list | tuple):
        inside = (list, tuple, np.ma.MaskedArray)
        if any(isinstance(v, inside) for v in values):
            return [filled(v, value) for v in values]
        return values
    if not isinstance(values, np.ma.MaskedArray):
        return values
    exact = values.dtype.kind in "fc"
    return np.ma.filled(values if exact else values.astype(float), value)


def refuse_masked(call: str = "Observation", /, **given: Any) -> None:
    """Refuse arguments of a call in which a masked value has no meaning."""
    for name, values in given.items():
        if np.ma.is_masked(values):
            raise ValueError(
                f"`{call}({name}=...)` has masked values, expected a plain array. "
                "Leave pixels out with `observed=` (False), or mask the maps."
            )


def kmeans_centres(
    points: Float[np.ndarray, "point 3"],
    n: int,
    *,
    weights: Float[np.ndarray, " point"] | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "n 3"]:
    """Return the centres of `n` clusters of points on the sphere (K-means).

    The start is one point drawn in each of `n` equal runs of the points: in NEST order
    these are compact pieces of sky, so that the clusters come out nearly equal (at
    n = 10,000 twice as fast as from random points, and 8% tighter).

    Args:
        points: Unit vectors, in NEST order.
        n: Number of clusters.
        weights: Weight of each point.
        seed: Of the start.

    Returns:
        The centres, not normalised, in the order of the start.

    Communication: none. The answer is the same on every rank of one kind of processor.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if not 0 < n <= len(points):
        raise ValueError(
            f"K-means: expected between 1 and {len(points)} patches (observed pixels), "
            f"got {n}."
        )
    edges = np.arange(n + 1) * len(points) // n
    first = np.random.default_rng(seed).integers(edges[:-1], edges[1:])
    # One thread: the sums of several are added in the order in which they finish.
    with threadpool_limits(1):
        fit: Any = KMeans(n, **{"init": points[first], "n_init": 1, "max_iter": 100})
        return fit.fit(points, sample_weight=weights).cluster_centers_


def nearest_centre(
    centres: Float[np.ndarray, "n 3"], points: Float[np.ndarray, "point 3"]
) -> Integer[np.ndarray, " point"]:
    """Return the number of the centre that is nearest to each point."""
    from sklearn.neighbors import KDTree

    if not len(points):
        return np.zeros(0, np.int64)
    return KDTree(centres).query(points, return_distance=False)[:, 0].astype(np.int64)


def alm_to_map(
    alm: Complex[np.ndarray, "3 alm"], nside: int
) -> Float[np.ndarray, "3 pix"]:
    """Return I, Q, U of the whole sphere, in NEST order, from a_lm of T, E, B.

    Args:
        alm: Coefficients with m >= 0, ordered by m, then l.
        nside: Resolution.
    """
    import healpy

    maps = healpy.alm2map(np.ascontiguousarray(alm), check_nside(nside), pol=True)
    return reorder(np.asarray(maps), "RING", "NEST")
