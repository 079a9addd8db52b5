"""Observation: the frequency maps of this rank, in the units used inside.

Everything is checked and converted here, once: pixels in ascending NEST order, only
those observed, brightness in uK_CMB, polarisation COSMO. No files and no MPI.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distsep.data import pages
from distsep.data.blocks import Grid
from distsep.data.given_maps import (
    ascending,
    checked_maps,
    checked_mask,
    in_every_map,
    taken,
)
from distsep.data.healpix import refuse_masked, ring_to_nest, turn_u
from distsep.data.noise import Noise, described_noise, variance_maps
from distsep.data.together import each_map
from distsep.model.instrument import Instrument
from distsep.model.mistakes import is_number
from distsep.model.units import COMPTON_UNIT, MAP_UNITS, check_unit

STOKES = ("I", "QU", "IQU")


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Observation:
    """Frequency maps of the observed pixels of one rank.

    Made from arrays, which are checked and converted, or read from a store with
    `distsep.read`.

    Args:
        maps: `(freq, stokes, pix)`, numpy or jax, float64 or float32. NaN, UNSEEN or
            masked (numpy.ma): not observed in that band; the other bands of the pixel
            still count.
        instrument: The bands, with `depth_i` / `depth_p` unless the noise is given.
        stokes: `"I"`, `"QU"` or `"IQU"`.
        nside: HEALPix resolution; the pixel area comes from it.
        ordering: `"RING"` or `"NEST"` of the pixel axis (and of `cell_ids`).
        unit: Unit of the maps and of the noise, one or one per band.
        coordsys: `"G"`, `"C"` or `"E"`.
        polcconv: `"COSMO"`, or `"IAU"`: then U changes sign here.
        resolution: Common FWHM [arcmin], if the maps share one.
        cell_ids: `(pix,)` pixel numbers, when not the whole sphere.
        noise_variance: [unit^2], `(freq, stokes, pix)` or broadcastable; infinite or
            masked: not observed in that band.
        inverse_noise: [unit^-2], `(..., freq, freq)`; see `noise_from_inverse`.
        hits: `(pix,)` hit counts: variance = depth^2 / (area x hits / norm); masked:
            none.
        hits_norm: The hits at which the depth holds: a number, `"max"` or `"mean"`
            (over hits > 0); required with `hits`. Where ranks hold a part of the sky
            each, only a number is the same for all.
        observed: `(pix,)`, True = use; without it a pixel that is zero in every map is
            not used. A rank may have no pixel at all.

    Raises:
        TypeError, ValueError: one message for the first thing that is wrong.

    Attributes:
        d: Maps [uK_CMB], `(freq, stokes, pix)`; NaN: this band did not observe here.
        noise: Their noise.
        cell_ids: NEST numbers of the pixels, ascending.
        grid: The block grid of the whole data set.
        start: Number of the first local pixel in the data set.
        instrument: Bands, depths, beams.
        stokes: `"I"`, `"QU"` or `"IQU"`: the order of the Stokes axis.
        nside: HEALPix resolution of the pixels.
        coordsys: `"G"`, `"C"` or `"E"`.
        polcconv: Always `"COSMO"` inside.
        resolution: Common FWHM [arcmin] of the maps, or None.
        provenance: Where the data came from.
        caller_polcconv: That of the caller's maps, of templates beside them too.
        caller_npix: Length of the caller's pixel axis, if it came from arrays.
        caller_index: Place of each local pixel on the caller's pixel axis, or None.
        warnings: What the user should hear of.
    """

    d: np.ndarray
    noise: Noise
    cell_ids: np.ndarray
    grid: Grid
    start: int
    instrument: Instrument
    stokes: str
    nside: int
    coordsys: str = "G"
    polcconv: str = "COSMO"
    resolution: float | None = None
    provenance: dict = field(default_factory=dict)
    caller_polcconv: str = "COSMO"
    caller_npix: int | None = None
    caller_index: np.ndarray | None = None
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        maps,
        instrument,
        *,
        stokes: str,
        nside,
        ordering: str = "RING",
        unit="uK_CMB",
        coordsys: str = "G",
        polcconv: str = "COSMO",
        resolution=None,
        cell_ids=None,
        noise_variance=None,
        inverse_noise=None,
        hits=None,
        hits_norm=None,
        observed=None,
    ):
        instrument = Instrument.of(instrument)
        _check_words(
            stokes=(stokes, STOKES),
            coordsys=(coordsys, ("G", "C", "E")),
            polcconv=(polcconv, ("COSMO", "IAU")),
            ordering=(ordering, ("RING", "NEST")),
        )
        nside = _checked_nside(nside)
        resolution = _checked_resolution(resolution)
        d, missing = checked_maps(maps, len(instrument.nu), stokes)
        npix = d.shape[-1]
        nest = _nest_ids(cell_ids, nside, ordering, npix)
        factor = _to_uK(instrument, unit)
        mask = True if observed is None else checked_mask("Observation", observed, npix)
        if noise_variance is not None:
            noise_variance = variance_maps(noise_variance, d.shape)
            if not np.all(mask):  # nothing is asked of the noise there
                noise_variance = np.where(mask, noise_variance, np.inf)
        noise = described_noise(
            instrument,
            stokes,
            nside,
            npix,
            factor,
            noise_variance,
            inverse_noise,
            hits,
            hits_norm,
        )
        if noise_variance is not None:
            # An infinite variance is a band that did not observe.
            missing |= np.isinf(noise_variance)
        # Maps of zeros where they are said to be observed are maps.
        blank = in_every_map(lambda one: one == 0, d) & (observed is None)
        use = ~in_every_map(lambda lost: lost, missing) & ~blank & mask
        if noise.weight is not None:
            use &= noise.weight > 0
        index = np.flatnonzero(use)
        index = index[ascending(nest[index], 12 * nside**2)]
        d = taken(d, missing, index, factor)
        if polcconv == "IAU":
            turn_u(d, stokes)
        noise = noise.select(index)
        if noise.kind.startswith("dense"):
            # A row of zeros in an inverse covariance is a band that did not observe.
            blind = np.diagonal(noise.shape, axis1=1, axis2=2) == 0
            blind = np.moveaxis(blind, -1, 0)
            d[blind if blind.ndim == 3 else blind[..., None] & ~np.isnan(d)] = np.nan
        warnings = ()
        if blank.any():
            warnings = (
                f"{int(blank.sum())} pixels are exactly zero in every band and Stokes "
                "parameter: taken as not observed.",
            )
        self._fill(
            d=d,
            noise=noise,
            cell_ids=nest[index],
            grid=Grid.of(max(len(index), 1)),
            start=0,
            instrument=instrument,
            stokes=stokes,
            nside=nside,
            coordsys=coordsys,
            resolution=resolution,
            caller_polcconv=polcconv,
            caller_npix=npix,
            caller_index=index,
            warnings=warnings,
        )

    def _fill(self, **fields) -> None:
        for f in dataclasses.fields(self):
            if f.name in fields:
                value = fields[f.name]
            elif f.default_factory is not dataclasses.MISSING:
                value = f.default_factory()
            else:
                value = f.default
            object.__setattr__(self, f.name, value)

    @classmethod
    def from_canonical(cls, **fields) -> "Observation":
        """Make an observation from its attributes, as they are: nothing is checked."""
        self = object.__new__(cls)
        self._fill(**fields)
        return self

    def __repr__(self) -> str:
        return (
            f"Observation({len(self.instrument.bands)} bands, {self.stokes}, "
            f"{self.npix} pixels of nside {self.nside}, noise: {self.noise})"
        )

    @property
    def npix(self) -> int:
        """Number of local pixels."""
        return self.d.shape[-1]

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Put `(..., pix)` back in the caller's pixel order, NaN where not observed."""
        if self.caller_index is None:
            return values
        out = pages.empty((*values.shape[:-1], self.caller_npix or 0), values.dtype)
        if len(self.caller_index) < out.shape[-1]:
            out.fill(np.nan)

        def put(k):  # map by map: several times faster than all at once
            out[k][self.caller_index] = values[k]

        each_map(put, values)
        return out

    def replace(self, **changes) -> "Observation":
        """Return a copy with some fields changed."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return self.from_canonical(**{**fields, **changes})

    @property
    def is_share(self) -> bool:
        """Whether these are some of the pixels of a data set, those of one rank."""
        return self.grid.npix != max(self.npix, 1)

    def share(self, comm: Any) -> "Observation":
        """Return the pixels of one rank, of maps that every rank has whole.

        They are whole chunks: what is found with them, by all ranks together, has the
        bits of one process. In the caller's order the pixels of other ranks are NaN.
        Give a mask to `Observation(observed=...)`: that of `separate` would cut later,
        inside of blocks.

        Args:
            comm: Ranks, `distsep.parallel.world()`.

        Raises:
            ValueError: if this is a share already.

        Communication: none.
        """
        if self.is_share:
            raise ValueError(
                f"`Observation.share(comm)` expected the {self.grid.npix} pixels of "
                f"the whole data set, this has {self.npix} of them: share it once."
            )
        start, stop = self.grid.rank_pixels(comm.rank, comm.size)
        mine, index = slice(start, stop), self.caller_index
        return self.replace(
            d=self.d[..., mine],
            noise=self.noise.select(mine),
            cell_ids=self.cell_ids[mine],
            start=start,
            caller_index=None if index is None else index[mine],
        )

    def used(self, observed: np.ndarray) -> "Observation":
        """Return the observation with only the local pixels where `observed` is True.

        The block grid is made anew for them: for one rank, or before cutting.
        """
        keep = np.flatnonzero(observed)
        return self.replace(
            d=self.d[..., keep],
            noise=self.noise.select(keep),
            cell_ids=self.cell_ids[keep],
            grid=Grid.of(max(len(keep), 1)),
            caller_index=None if self.caller_index is None else self.caller_index[keep],
        )


def _check_words(**given: tuple[str, tuple[str, ...]]) -> None:
    for name, (word, known) in given.items():
        if word not in known:
            *first, last = known
            raise ValueError(
                f"`Observation({name}=...)` must be {', '.join(first)} or {last}, got "
                f"{word!r}."
            )


def _checked_nside(nside) -> int:
    """The resolution, a whole number that is a power of two."""
    number = isinstance(nside, int | np.integer) and not isinstance(nside, bool)
    if not number or nside < 1 or nside & (nside - 1):
        raise ValueError(
            f"`Observation(nside=...)` must be an integer, a power of 2, got {nside!r}."
        )
    return int(nside)


def _checked_resolution(resolution) -> float | None:
    if resolution is None:
        return None
    if not is_number(resolution) or resolution <= 0:
        raise ValueError(
            "`Observation(resolution=...)` must be the FWHM [arcmin] that the maps "
            f"share, a positive number, or None, got {resolution!r}."
        )
    return float(resolution)


def _nest_ids(cell_ids, nside, ordering, npix) -> np.ndarray:
    """NEST number of every pixel of the caller's axis."""
    whole = 12 * nside**2
    if cell_ids is None:
        if npix != whole:
            raise ValueError(
                f"`Observation(maps=...)` has {npix} pixels, the whole sphere at nside "
                f"{nside} has {whole}. Give `cell_ids=` for a part of the sky."
            )
        ids = np.arange(whole)
    else:
        refuse_masked(cell_ids=cell_ids)
        ids = np.asarray(cell_ids)
        if not npix and not ids.size:
            ids = np.zeros(0, int)  # [] is an array of floats
        if ids.shape != (npix,) or ids.dtype.kind not in "iu":
            raise ValueError(
                f"`Observation(cell_ids=...)` must be {npix} integers, got shape "
                f"{ids.shape}, dtype {ids.dtype}."
            )
        if npix and (ids.min() < 0 or ids.max() >= whole):
            raise ValueError(
                f"`Observation(cell_ids=...)` must be in [0, {whole}) at nside {nside}."
            )
        if len(np.unique(ids)) != npix:
            raise ValueError("`Observation(cell_ids=...)` names a pixel twice.")
    ids = ids.astype(np.int64)
    return ring_to_nest(nside, ids) if ordering == "RING" else ids


def _to_uK(instrument, unit) -> np.ndarray:
    """Factor per band from the caller's unit to uK_CMB."""
    nfreq = len(instrument.nu)
    alone = isinstance(unit, str) or not np.iterable(unit)
    units = [unit] * nfreq if alone else list(unit)
    if len(units) != nfreq:
        raise ValueError(
            f"`Observation(unit=...)` must be one unit or one per band "
            f"({nfreq}), got {len(units)}."
        )
    factor = {}
    for u in units:
        check_unit(
            u if isinstance(u, str) else repr(u),
            "Observation(unit=...)",
            (*MAP_UNITS, COMPTON_UNIT),
        )
        if u not in factor:
            factor[u] = instrument.conversion(u, "uK_CMB")
    return np.array([factor[u][i] for i, u in enumerate(units)], float)
