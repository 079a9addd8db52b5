"""From the maps of an observation to the samples the likelihood runs over.

Which samples are used, and which share the shape of their noise. A *row* is a band (or
a band and Stokes parameter, where Stokes parameters are fitted jointly); a *group* is a
Stokes parameter fitted on its own (or the one group of all, jointly). Pure numpy.
"""

from dataclasses import dataclass

import numpy as np

from distsep.data.noise import Noise


def rows(x: np.ndarray, joint: bool) -> np.ndarray:
    """`(freq, stokes, pix)` -> `(row, group, pix)`."""
    return x.reshape(-1, 1, x.shape[-1]) if joint else x


def groups(x: np.ndarray, nstokes: int, joint: bool) -> np.ndarray:
    """`(comp [x stokes], group, pix)` -> `(comp, stokes, pix)`."""
    return x.reshape(-1, nstokes, x.shape[-1]) if joint else x


@dataclass(frozen=True)
class NoiseClasses:
    """The distinct noise shapes of a data set, numbered alike on every rank.

    Attributes:
        sample: `(group, pix)` class of every local sample.
        white: `(class, row)` or `(class, row, row)`: W with W^T W = invN / weight;
            None where every sample has its own noise and nothing is whitened.
        scale: `(group,)` weight of each group beside the pixel's.
    """

    sample: np.ndarray
    white: np.ndarray | None
    scale: np.ndarray


def noise_classes(
    noise: Noise, observed: np.ndarray, joint: bool, allgather
) -> NoiseClasses:
    """Number the noise shapes: which bands observed, and their relative depths.

    Args:
        noise: Noise of the local pixels.
        observed: `(row, group, pix)` True where the band observed.
        joint: Whether Stokes parameters are fitted jointly.
        allgather: `x -> [x of every rank]`.

    Communication: one allgather of the distinct patterns of missing bands.
    """
    nrow, ngroup, npix = observed.shape
    if noise.kind.endswith("pixel"):
        return NoiseClasses(np.zeros((ngroup, npix), int), None, np.ones(ngroup))
    shapes, scale, group_class = _shapes(noise, joint)
    packed = np.packbits(observed, axis=0)
    key = np.zeros((ngroup, npix), f"V{packed.shape[0] + 1}")
    as_bytes = key.view(np.uint8).reshape(ngroup, npix, -1)
    as_bytes[..., 0] = group_class[:, None]
    as_bytes[..., 1:] = np.moveaxis(packed, 0, -1)
    local, inverse = np.unique(
        as_bytes.reshape(-1, as_bytes.shape[-1]), axis=0, return_inverse=True
    )
    every = np.unique(np.concatenate(allgather(local)), axis=0)
    number = {k.tobytes(): i for i, k in enumerate(every)}
    lookup = np.array([number[k.tobytes()] for k in local], int)
    seen = np.unpackbits(every[:, 1:], axis=1, count=nrow).astype(bool)
    white = [
        _whitener(shapes[k[0]], bands) for k, bands in zip(every, seen, strict=True)
    ]
    white = np.array(white).reshape(len(every), *shapes.shape[1:])
    return NoiseClasses(lookup[inverse.ravel()].reshape(ngroup, npix), white, scale)


def _shapes(noise: Noise, joint: bool):
    """Distinct shapes over rows, each group's scale and shape: Q and U often share one."""
    a = noise.shape
    if noise.kind == "uniform":
        a = a.reshape(1, -1) if joint else a.T
    elif joint:
        nstokes, nfreq = a.shape[:2]
        whole = np.zeros((nfreq, nstokes, nfreq, nstokes))
        for k in range(nstokes):
            whole[:, k, :, k] = a[k]
        a = whole.reshape(1, nfreq * nstokes, nfreq * nstokes)
    shapes, scale, number = [], [], []
    for x in a:
        for i, y in enumerate(shapes):
            factor = x.sum() / y.sum()
            if np.allclose(x, factor * y, rtol=1e-14, atol=0):
                number.append(i)
                scale.append(factor)
                break
        else:
            number.append(len(shapes))
            scale.append(1.0)
            shapes.append(x)
    return np.array(shapes), np.array(scale), np.array(number)


def _whitener(shape: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """W with W^T W = the inverse covariance of the bands that observed, 0 elsewhere."""
    if shape.ndim == 1:
        return np.where(seen, np.sqrt(shape), 0.0)
    out = np.zeros_like(shape)
    live = np.flatnonzero(seen & (np.diagonal(shape) > 0))
    invN = shape[np.ix_(live, live)]
    lost = np.flatnonzero(~seen & (np.diagonal(shape) > 0))
    if len(lost):
        # Marginalise the missing bands: the inverse of the block of the covariance.
        cross = shape[np.ix_(live, lost)]
        invN = invN - cross @ np.linalg.solve(shape[np.ix_(lost, lost)], cross.T)
    values, vectors = np.linalg.eigh(invN)
    root = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T
    out[np.ix_(np.arange(len(live)), live)] = root
    return out


def marginalise_missing(invN: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Inverse covariance of the bands that observed, for each sample.

    Args:
        invN: `(row, row, sample)`.
        seen: `(row, sample)` True where the band observed.
    """
    out = np.array(invN)
    for p in np.flatnonzero(~seen.all(0)):
        W = _whitener(invN[..., p], seen[:, p])
        out[..., p] = W.T @ W
    return out
