"""Noise of the frequency maps: inverse variances and inverse covariances.

Arrays only: no files, no JAX. A `Noise` knows its shape in frequency and its depth
over the sky, so that the exact reduction can see when a set of pixels shares a shape.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from distsep.data.healpix import UNSEEN, filled, pixel_area_arcmin2, refuse_masked
from distsep.model.instrument import Instrument
from distsep.model.mistakes import is_number, unit_of

# Largest inverse variance [uK_CMB^-2]: the likelihood multiplies two.
_MOST = 1e100


@dataclass(frozen=True)
class Noise:
    """Inverse noise covariance of every sample, `invN = shape * weight`.

    Attributes:
        shape: Inverse variance [uK_CMB^-2]. `(freq, stokes)`: one depth per band;
            `(freq, stokes, pix)`: its own in every pixel; `(stokes, freq, freq)`: one
            inverse covariance over bands; `(stokes, freq, freq, pix)`: one per pixel.
        kind: `"uniform"`, `"pixel"`, `"dense"` or `"dense_pixel"`: which of these.
        weight: `(pix,)` factor shared by all bands (a hit map), or None for 1.
        norm: `"max"` or `"mean"` where the weight is in units of that of its pixels.
    """

    shape: np.ndarray
    kind: str
    weight: np.ndarray | None = None
    norm: str | None = None

    def __str__(self) -> str:
        return in_words(self.kind, self.weight is not None)

    def select(self, pixels) -> "Noise":
        """Return the noise of some of the pixels, in the order asked for."""
        shape = self.shape[..., pixels] if self.kind.endswith("pixel") else self.shape
        weight = None if self.weight is None else self.weight[pixels]
        return Noise(shape, self.kind, weight, self.norm)


def in_words(kind: str, weighted: bool) -> str:
    """How noise was given.

    Args:
        kind: Of `Noise`; other words are returned as they are.
        weighted: Whether there is a weight.
    """
    words = {
        "uniform": "depths",
        "pixel": "variance per pixel",
        "dense": "covariance of bands",
        "dense_pixel": "covariance of bands per pixel",
    }.get(kind, kind)
    return f"{words} with a hit map" if weighted else words


def numbers(values, name: str) -> np.ndarray:
    """Return an argument of `Observation` as an array of float64, or name it."""
    if unit := unit_of(values):
        raise TypeError(
            f"`Observation({name}=...)` carries a unit, {unit}, which is not read: "
            "give plain numbers, in the unit of the maps."
        )
    try:
        if np.iscomplexobj(values):
            raise ValueError("complex numbers")
        return np.asarray(values, float)
    except (TypeError, ValueError) as error:
        kind = type(values).__name__
        raise ValueError(
            f"`Observation({name}=...)` must be an array of real numbers, got a {kind} "
            f"({error})."
        ) from None


def variance_maps(variance, shape: tuple[int, ...]) -> np.ndarray:
    """Give a variance the shape of the maps, (freq, stokes, pix); masked is infinite.

    Raises:
        ValueError: it does not broadcast to it.
    """
    v = numbers(filled(variance, np.inf), "noise_variance")
    try:
        return np.broadcast_to(v, shape)
    except ValueError:
        raise ValueError(
            "`Observation(noise_variance=...)` must broadcast to (freq, stokes, pix) "
            f"= {tuple(shape)}, got shape {v.shape}."
        ) from None


def noise_from_variance(v: np.ndarray) -> Noise:
    """Read variance maps; see at once whether the bands share one shape over the sky.

    Args:
        v: Noise variance [uK_CMB^2], (freq, stokes, pix). Infinite: this band did not
            observe this pixel.

    Raises:
        ValueError: NaN, zero or negative variance.
    """
    if np.isnan(v).any() or (v <= 0).any():
        bad = int(np.isnan(v).sum()), int((v <= 0).sum())
        raise ValueError(
            "`Observation(noise_variance=...)` must be positive (infinite where a band "
            f"did not observe): got {bad[0]} NaN and {bad[1]} zero or negative values. "
            "Set them to inf, or mask the pixels with `observed=`."
        )
    if v.min(initial=1.0) < 1 / _MOST:
        raise ValueError(
            f"`Observation(noise_variance=...)` must be above {1 / _MOST:.0e} "
            f"uK_CMB^2, got {v.min():.3g}: check the unit."
        )
    return _factorise(1.0 / v)


def _factorise(invN: np.ndarray) -> Noise:
    """Write invN as shape x weight where that is exact to rounding."""
    if invN.shape[-1] == 0:
        return Noise(invN[..., :0].sum(-1) + 1.0, "uniform")
    seen = invN > 0
    reference = seen.all((0, 1))
    if not reference.any():
        return Noise(np.array(invN), "pixel")
    shape = invN[:, :, np.argmax(reference)]
    if ((invN == shape[:, :, None]) | ~seen).all() and seen.any((0, 1)).all():
        return Noise(shape.copy(), "uniform")
    shape = unit_shape(shape)
    ratio = invN / shape[:, :, None]
    # A pixel's weight does not depend on the others where it saw the first band.
    weight = np.where(seen[0, 0], invN[0, 0] / shape[0, 0], ratio.max((0, 1)))
    same = np.abs(ratio - weight) <= 8 * np.finfo(float).eps * weight
    if not (same | ~seen).all():
        return Noise(np.array(invN), "pixel")
    return Noise(shape, "uniform", weight)


def unit_shape(shape: np.ndarray) -> np.ndarray:
    """Scale a shape so that its first entry is a power of two.

    The weights of its pixels, in units of that, are the first band's inverse variance
    without rounding: the same bits whichever pixel the shape is from.
    """
    return shape / (2 * np.frexp(shape.flat[0])[0])


def noise_from_inverse(invN, nfreq: int, nstokes: int, npix: int) -> Noise:
    """Read inverse covariances over frequency, matrix axes last.

    Args:
        invN: [uK_CMB^-2], `(freq, freq)`, `(stokes, freq, freq)` or
            `(stokes, pix, freq, freq)`, symmetric, positive semi-definite.
        nfreq: Number of bands.
        nstokes: Number of Stokes parameters.
        npix: Number of pixels.

    Raises:
        ValueError: wrong shape (a covariance between Stokes parameters included),
            NaN, not symmetric, or negative eigenvalues.
    """
    a = np.asarray(invN, float)
    shapes = {
        (nfreq, nfreq): "dense",
        (nstokes, nfreq, nfreq): "dense",
        (nstokes, npix, nfreq, nfreq): "dense_pixel",
    }
    if a.shape not in shapes:
        raise ValueError(
            "`Observation(inverse_noise=...)` must have shape (freq, freq), (stokes, "
            f"freq, freq) or (stokes, pix, freq, freq); got {a.shape} for {nfreq} "
            f"bands, {nstokes} Stokes, {npix} pixels. Covariance between Stokes "
            "parameters is not supported: give each its own."
        )
    kind = shapes[a.shape]
    if a.ndim == 2:
        a = np.broadcast_to(a, (nstokes, nfreq, nfreq))
    if not np.isfinite(a).all():
        raise ValueError("`Observation(inverse_noise=...)` holds NaN or infinities.")
    scale = np.abs(a).max((-1, -2), keepdims=True)
    if scale.max(initial=0.0) > _MOST:
        raise ValueError(
            f"`Observation(inverse_noise=...)` must be below {_MOST:.0e} uK_CMB^-2, "
            f"got {scale.max():.3g}: check the unit."
        )
    if (np.abs(a - np.swapaxes(a, -1, -2)) > 1e-10 * scale).any():
        raise ValueError("`Observation(inverse_noise=...)` must be symmetric.")
    if (np.linalg.eigvalsh(a) < -1e-10 * scale[..., 0]).any():
        raise ValueError(
            "`Observation(inverse_noise=...)` has negative eigenvalues: give the "
            "inverse of a covariance matrix (zero rows = band not observed)."
        )
    if kind == "dense_pixel":
        a = np.moveaxis(a, 1, -1)
    return Noise(np.array(a), kind)


def described_noise(
    instrument: Instrument,
    stokes: str,
    nside: int,
    npix: int,
    factor: np.ndarray,
    variance: np.ndarray | None,
    inverse: Any,
    hits: Any,
    hits_norm: Any,
) -> Noise:
    """Return the noise [uK_CMB] from whichever of the descriptions was given.

    Args:
        instrument: Bands with depths, used where nothing else is given.
        stokes: Stokes parameters of the maps.
        nside: Their resolution.
        npix: Their number of pixels.
        factor: From the unit of the maps to uK_CMB, (freq,).
        variance: `noise_variance` of `Observation`, of the shape of the maps.
        inverse: `inverse_noise`, in the unit of the maps.
        hits: Hit counts, (pix,).
        hits_norm: The hits at which the depths hold.

    Raises:
        ValueError: more than one description, or one that is wrong.
    """
    nfreq, nstokes = len(factor), len(stokes)
    if hits is None and hits_norm is not None:
        raise ValueError(
            f"`Observation(hits_norm={hits_norm!r})` goes with `hits`, which is not "
            "given: give both, or leave it out."
        )
    if sum(x is not None for x in (variance, inverse, hits)) > 1:
        raise ValueError(
            "`Observation(...)`: give one of noise_variance, inverse_noise or hits."
        )
    if variance is not None:
        return noise_from_variance(variance * factor[:, None, None] ** 2)
    if inverse is not None:
        refuse_masked(inverse_noise=inverse)
        inverse = numbers(inverse, "inverse_noise")
        if inverse.shape[-2:] == (nfreq, nfreq):  # the others are refused
            inverse = inverse / np.outer(factor, factor)
        return noise_from_inverse(inverse, nfreq, nstokes, npix)
    shape = shape_of_depths(instrument, stokes, nside)
    norm = hits_norm if isinstance(hits_norm, str) else None
    return Noise(shape, "uniform", _hit_weight(hits, hits_norm, npix), norm)


def shape_of_depths(instrument: Instrument, stokes: str, nside: int) -> np.ndarray:
    """Return the inverse variances that the depths of the bands mean, (freq, stokes).

    Raises:
        ValueError: a depth is missing or infinite.
    """
    depth = np.stack([_depth(instrument, letter) for letter in stokes], 1)
    # The area is from nside, never from the length of an array.
    return pixel_area_arcmin2(nside) / depth**2


def _depth(instrument, letter: str) -> np.ndarray:
    depth = instrument.depth(letter)
    for band, value in zip(instrument.bands, depth, strict=True):
        if np.isinf(value):
            word = "depth_i" if letter == "I" else "depth_p"
            raise ValueError(
                f"`Instrument({word}=...)` must be finite [uK_CMB arcmin], got {value} "
                f"for band {band}: leave the band out, or mark it NaN in the maps."
            )
    return depth


def _hit_weight(hits, norm, npix) -> np.ndarray | None:
    """Relative depth of every pixel from a hit map, with its stated normalisation."""
    if hits is None:
        return None
    h = numbers(filled(hits, 0.0), "hits")
    if h.shape != (npix,):
        raise ValueError(
            f"`Observation(hits=...)` must have {npix} values, got {h.shape}."
        )
    h = np.where(np.abs(h / UNSEEN - 1) < 1e-5, 0.0, h)
    bad = {
        "NaN": int(np.isnan(h).sum()),
        "infinite": int(np.isinf(h).sum()),
        "negative": int((np.isfinite(h) & (h < 0)).sum()),
    }
    if any(bad.values()):
        found = ", ".join(f"{n} {word}" for word, n in bad.items() if n)
        raise ValueError(
            f"`Observation(hits=...)` must be finite and not negative, got {found}: "
            "set them to 0 (not observed)."
        )
    if is_number(norm) and norm > 0:
        return h / float(norm)  # a rank may have no hits
    if not (h > 0).any():
        raise ValueError(
            f"`Observation(hits=...)` is zero everywhere: hits_norm={norm!r} is none. "
            "Give `hits_norm` as a number."
        )
    norms = {"max": h.max(), "mean": h[h > 0].mean()}
    if not isinstance(norm, str) or norm not in norms:
        raise ValueError(
            "`Observation(hits_norm=...)` must be a positive number, 'max' or 'mean': "
            "the hit count at which the depth holds (guessing costs a factor 1.9 in "
            f"sigma); got {norm!r}."
        )
    return h / norms[norm]
