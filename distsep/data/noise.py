"""Noise of the frequency maps: inverse variances and inverse covariances.

Arrays only: no files, no JAX. A `Noise` knows its shape in frequency and its depth
over the sky, so that the exact reduction can see when a set of pixels shares a shape.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Noise:
    """Inverse noise covariance of every sample, `invN = shape * weight`.

    Attributes:
        shape: Inverse variance [uK_CMB^-2]. `(freq, stokes)`: one depth per band;
            `(freq, stokes, pix)`: its own in every pixel; `(stokes, freq, freq)`: one
            inverse covariance over bands; `(stokes, freq, freq, pix)`: one per pixel.
        kind: `"uniform"`, `"pixel"`, `"dense"` or `"dense_pixel"`: which of these.
        weight: `(pix,)` factor shared by all bands (a hit map), or None for 1.
    """

    shape: np.ndarray
    kind: str
    weight: np.ndarray | None = None

    def select(self, pixels) -> "Noise":
        """Return the noise of some of the pixels, in the order asked for."""
        shape = self.shape[..., pixels] if self.kind.endswith("pixel") else self.shape
        weight = None if self.weight is None else self.weight[pixels]
        return Noise(shape, self.kind, weight)


def variance_maps(variance, shape: tuple[int, ...]) -> np.ndarray:
    """Give a variance the shape of the maps, (freq, stokes, pix).

    Raises:
        ValueError: it does not broadcast to it.
    """
    v = np.asarray(variance, float)
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
    ratio = invN / shape[:, :, None]
    weight = ratio.max((0, 1))
    same = np.abs(ratio - weight) <= 8 * np.finfo(float).eps * weight
    if not (same | ~seen).all():
        return Noise(np.array(invN), "pixel")
    return Noise(shape.copy(), "uniform", None if (weight == 1).all() else weight)


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
