"""Maps as a caller gives them: checked, and put into the order used inside.

Map by map: temporaries of all at once would take their memory twice.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from distsep.data import pages
from distsep.data.healpix import UNSEEN, filled, refuse_masked
from distsep.data.together import each_map
from distsep.model.mistakes import unit_of

LARGEST = 1e20
"""No sky is as bright, in any unit: such a number was UNSEEN, times something."""


def checked_maps(maps: Any, nfreq: int, stokes: str) -> tuple[np.ndarray, np.ndarray]:
    """Maps as float64 or float32 of the right shape, and where they are missing.

    Args:
        maps: `(freq, stokes, pix)`; NaN, UNSEEN or masked: not observed.
        nfreq: Number of bands.
        stokes: Stokes parameters.

    Raises:
        TypeError, ValueError: no real numbers, another shape, infinite or absurd
            values.
    """
    if unit := unit_of(maps):
        raise TypeError(
            f"`Observation(maps=...)` carries a unit, {unit}, which is not read: give "
            "plain numbers (`maps.value`), and their unit as `unit=`."
        )
    d = np.asarray(filled(maps, np.nan))
    if d.dtype.kind not in "iuf":
        raise TypeError(f"`Observation(maps=...)` must be real numbers, got {d.dtype}.")
    if d.dtype not in (np.float32, np.float64):
        d = d.astype(np.float64)
    if d.ndim != 3 or d.shape[:2] != (nfreq, len(stokes)):
        raise ValueError(
            "`Observation(maps=...)` must have shape (freq, stokes, pix) = "
            f"({nfreq}, {len(stokes)}, pix) for {nfreq} bands and stokes={stokes!r}, "
            f"got {d.shape}."
        )
    missing, huge = np.zeros(d.shape, bool), []

    def plain(k):  # neither comparison holds for NaN, nor for UNSEEN
        one = d[k]
        return not one.size or (-LARGEST <= one.min() and one.max() <= LARGEST)

    for k, is_plain in zip(np.ndindex(*d.shape[:2]), each_map(plain, d), strict=True):
        if is_plain:
            continue
        one = d[k]
        missing[k] = ~(np.abs(one) <= LARGEST)
        odd = one[missing[k]]
        odd = odd[~np.isnan(odd)]
        if np.isinf(odd).any():
            raise ValueError(
                "`Observation(maps=...)` holds infinite values. Mark samples that were "
                "not observed as NaN or UNSEEN."
            )
        huge += odd[np.abs(odd / UNSEEN - 1) > 1e-5].tolist()
    if huge:
        raise ValueError(
            f"`Observation(maps=...)` holds {len(huge)} values such as {huge[0]:g}, "
            "brighter than any sky: is it UNSEEN, scaled? Mark samples that were not "
            "observed as NaN, or as UNSEEN itself."
        )
    return d, missing


def checked_mask(
    call: str,
    observed: Any,
    npix: int,
    of: str = "the pixels of the maps, in their order",
) -> np.ndarray:
    """True for each pixel to use, of what a call was given as `observed`.

    Args:
        call: Of which it is an argument, for messages.
        observed: What the caller gave.
        npix: Number of pixels.
        of: Which pixels they are, for messages.

    Raises:
        ValueError: masked values, another shape, or other values than True and False.
    """
    refuse_masked(call, observed=observed)
    observed = np.asarray(observed)
    if observed.shape != (npix,) or not np.isin(observed, (0, 1)).all():
        raise ValueError(
            f"`{call}(observed=...)`: expected {npix} values True (use) or False, for "
            f"{of}; got shape {observed.shape}, dtype {observed.dtype}."
        )
    return observed.astype(bool)


def in_every_map(holds: Callable[[Any], Any], d: np.ndarray) -> np.ndarray:
    """True for each pixel where something holds of all maps.

    Args:
        holds: Of one map, (pix,).
        d: Maps, (freq, stokes, pix).
    """
    found = np.ones(d.shape[-1], bool)
    for k in np.ndindex(*d.shape[:2]):
        if not found.any():
            break
        found &= holds(d[k])
    return found


def ascending(numbers: np.ndarray, end: int) -> np.ndarray:
    """Where the smallest of some distinct numbers in [0, end) is, then the next, ...

    Those of most of a sphere are not sorted: each is put in its place.
    """
    if 8 * len(numbers) < end:
        return np.argsort(numbers, kind="stable")
    place = np.full(end, -1)
    place[numbers] = np.arange(len(numbers))
    return place[place >= 0]


def taken(
    d: np.ndarray, missing: np.ndarray, index: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Maps at some pixels, scaled, NaN where missing: on pages that JAX takes over.

    Args:
        d: Maps, (freq, stokes, pix).
        missing: Likewise.
        index: Pixels.
        scale: Factor of each band, (freq,).
    """
    out = pages.empty((*d.shape[:-1], len(index)), d.dtype)

    def take(k):
        np.take(d[k], index, out=out[k], mode="clip")
        if scale[k[0]] != 1:
            out[k] *= d.dtype.type(scale[k[0]])
        if missing[k].any():
            out[k][missing[k][index]] = np.nan

    each_map(take, out)
    return out
