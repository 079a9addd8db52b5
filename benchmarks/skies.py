"""The data sets of the benchmarks: LiteBIRD's bands, CMB + dust + synchrotron, seeded.

Amplitudes and noise are white; the emission laws are distsep's own. What is drawn can
be handed to a peer as an npz file (`save`, `load`): frequencies, maps, noise, patches.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import distsep
from distsep.data.blocks import Grid

KINDS = ("Dust.beta_d", "Dust.temp", "Synchrotron.beta_pl")
START = np.array([1.54, 20.0, -3.0])
TRUTH = np.array([1.59, 19.4, -3.06])
SCATTER = np.array([0.02, 0.3, 0.03])  # of the truth, from patch to patch
NU0 = (353.0, 23.0)
RMS = np.array([3.0, 30.0, 20.0])[:, None, None]  # uK_CMB at nu0
DEGREE = 180 / np.pi
PIECE = 2**16


@dataclass
class Sky:
    """One simulated data set, pixels in NEST order.

    Attributes:
        nside: Resolution.
        nu: Bands [GHz].
        depth: Of the bands [uK_CMB arcmin].
        d: Maps `(freq, stokes, pix)` [uK_CMB].
        variance: Of the noise [uK_CMB^2], `(freq, stokes, pix)` or `(freq, stokes, 1)`.
        patch: `(kind, pix)` patch of every pixel for each kind, or None: one for all.
        cell_ids: NEST numbers of the pixels.
    """

    nside: int
    nu: np.ndarray
    depth: np.ndarray
    d: np.ndarray
    variance: np.ndarray
    patch: np.ndarray | None
    cell_ids: np.ndarray

    @property
    def start(self) -> list[np.ndarray]:
        """Where a fit starts: one value per patch of each kind."""
        n = [1, 1, 1] if self.patch is None else self.patch.max(1) + 1
        return [np.full(k, x) for k, x in zip(n, START, strict=True)]

    @property
    def whole(self) -> bool:
        """Whether every pixel of the sphere is there."""
        return self.d.shape[-1] == 12 * self.nside**2

    @property
    def patches(self) -> dict[str, np.ndarray]:
        """`patches=` of `separate`: maps of the caller's pixels."""
        return {} if self.patch is None else dict(zip(KINDS, self.patch, strict=True))

    def observation(self) -> distsep.Observation:
        """The maps, through the library's door."""
        uniform = self.variance.shape[-1] == 1
        return distsep.Observation(
            self.d,
            distsep.Instrument(nu=self.nu, depth_p=self.depth),
            stokes="QU",
            nside=self.nside,
            ordering="NEST",
            cell_ids=None if self.whole else self.cell_ids,
            noise_variance=None if uniform else self.variance,
        )

    def part(self, rank: int, size: int) -> "Sky":
        """Return the pixels of one rank, whole chunks."""
        pixels = slice(*Grid.of(len(self.cell_ids)).rank_pixels(rank, size))
        varies = self.variance.shape[-1] > 1
        return replace(
            self,
            d=self.d[..., pixels],
            variance=self.variance[..., pixels] if varies else self.variance,
            patch=None if self.patch is None else self.patch[:, pixels],
            cell_ids=self.cell_ids[pixels],
        )

    def save(self, path: Path) -> Path:
        """Write the arrays for a peer."""
        arrays = {k: v for k, v in vars(self).items() if v is not None}
        np.savez(path, **arrays)
        return path


def load(path: Path | str) -> Sky:
    """Read what `Sky.save` wrote."""
    with np.load(path) as file:
        found = {k: file[k] for k in file.files}
    found["nside"] = int(found["nside"])
    return Sky(**{"patch": None, **found})


def components() -> list:
    """The model of all benchmarks: three free parameters."""
    return [distsep.CMB(), distsep.Dust(nu0=NU0[0]), distsep.Synchrotron(nu0=NU0[1])]


def make(
    nside: int,
    *,
    noise: str = "uniform",
    patch: np.ndarray | None = None,
    cell_ids: np.ndarray | None = None,
    signal: float = 1.0,
    seed: int = 0,
) -> Sky:
    """Draw a sky.

    Args:
        nside: Resolution.
        noise: "uniform" (the depths), or "pixel": times 1 to 3, its own map in each
            band, the same for Q and U.
        patch: `(kind, pix)` patches: each has its own true parameters.
        cell_ids: NEST pixels; the whole sphere by default.
        signal: Times so much as the sky has.
        seed: Of all random numbers.
    """
    preset = distsep.instrument("LiteBIRD")
    nu, depth = np.asarray(preset.nu), np.asarray(preset.depth_p)
    rng = np.random.default_rng(seed)
    cells = np.arange(12 * nside**2) if cell_ids is None else np.asarray(cell_ids)
    npix = len(cells)
    arcmin2 = 4 * np.pi / (12 * nside**2) * (60 * DEGREE) ** 2
    variance = (depth**2 / arcmin2)[:, None, None]
    if noise == "pixel":
        variance = variance * rng.uniform(1.0, 3.0, (len(nu), 1, npix))
    d = rng.standard_normal((len(nu), 2, npix))
    d *= np.sqrt(variance)
    if noise == "pixel":
        variance = np.repeat(variance, 2, axis=1)
    else:
        variance = np.repeat(variance, 2, axis=1)[:, :, :1]

    mixing = distsep.MixingMatrix(components(), preset)
    spread = [np.zeros(1)] * 3
    if patch is not None:
        spread = [rng.uniform(-1, 1, n) for n in patch.max(1) + 1]
    truth = [t + w * x for t, w, x in zip(TRUTH, SCATTER, spread, strict=True)]
    for first in range(0, npix, PIECE):
        part = slice(first, min(first + PIECE, npix))
        s = signal * RMS * rng.standard_normal((3, 2, part.stop - first))
        if patch is None:
            beta = {k: v[0] for k, v in zip(KINDS, truth, strict=True)}
            d[..., part] += np.einsum("fc,csp->fsp", np.asarray(mixing(beta)), s)
        else:
            sets, which = np.unique(patch[:, part], axis=1, return_inverse=True)
            values = zip(KINDS, truth, sets, strict=True)
            A = np.asarray(mixing({k: v[i] for k, v, i in values}))[which.ravel()]
            d[..., part] += np.einsum("pfc,csp->fsp", A, s)
    return Sky(nside, nu, depth, d, variance, patch, cells)


def coarse(nside: int, coarse_nside: int) -> np.ndarray:
    """Patches: the cells of a coarser grid, for each of the three kinds."""
    ids = np.arange(12 * nside**2) // (nside // coarse_nside) ** 2
    return np.stack([ids] * 3)


def clusters(nside: int, latitude: float, numbers: tuple) -> tuple:
    """K-means patches of the pixels with |b| above a latitude.

    Returns:
        NEST pixels, and `(kind, pix)` patches.
    """
    from distsep.data import healpix
    from distsep.data.patches import kmeans_patches

    cells = np.arange(12 * nside**2)
    cells = cells[np.abs(healpix.latitude(nside, cells)) > latitude]
    ids = cells.astype(np.uint64)
    found = [kmeans_patches(nside, ids, n, seed=i) for i, n in enumerate(numbers)]
    # A centre without a pixel leaves a number unused: close the gaps.
    return cells, np.stack([np.unique(p, return_inverse=True)[1] for p in found])
