"""Template maps on the pixels of a part: what global terms are multiplied by."""

from typing import Any

import numpy as np

from distsep.data import healpix
from distsep.data.observation import Observation


def plain_map(m: Any) -> np.ndarray:
    """Return a map as numbers, NaN where a masked array hides it."""
    return np.asarray(healpix.filled(m, np.nan), float)


class PixelMaps:
    """Gives maps on the pixels of each part of a rank's observation.

    Args:
        header: The observation, or that of a store; knows the caller's pixels.
    """

    def __init__(self, header: Any):
        self._header = header

    plain = staticmethod(plain_map)

    def unit_vectors(self, obs: Observation) -> np.ndarray:
        """Directions of the pixels, `(pix, 3)`."""
        return healpix.unit_vectors(obs.nside, obs.cell_ids)

    def map(
        self, m: np.ndarray, obs: Observation, ordering: str | None, name: str
    ) -> np.ndarray:
        """Take a map of the caller's pixels, or of the whole sphere, to a part.

        A map of a whole sphere that the maps cover too is in the caller's order, unless
        an ordering is given. U of a map per Stokes parameter is in the convention of
        the caller's maps.

        Raises:
            ValueError: another length, or a pixel without a value.
        """
        whole, own = 12 * obs.nside**2, getattr(self._header, "caller_npix", None)
        sphere = m.shape[-1] == whole and ordering is not None
        if m.shape[-1] == own and not sphere:
            if ordering is not None:
                raise ValueError(
                    f"`Template(name={name!r})`: `ordering` is that of a whole sphere, "
                    f"and this map has the {own} pixels of the maps, in their order: "
                    "leave it out."
                )
            values = m[..., self._header.caller_index]
        elif m.shape[-1] == whole:
            cells = obs.cell_ids
            if healpix.check_ordering(ordering or "RING") == "RING":
                cells = healpix.nest_to_ring(obs.nside, cells)
            values = m[..., cells]
        else:
            raise ValueError(
                f"`Template(name={name!r})` has {m.shape[-1]} pixels, expected "
                f"{whole}, the whole sphere at nside {obs.nside}"
                + (f", or {own}, those of the maps." if own else ".")
            )
        bad = ~np.isfinite(values) | healpix.is_missing(values)
        if bad.any():
            raise ValueError(
                f"`Template(name={name!r})` has no value in {int(bad.sum())} observed "
                "pixels: mask them with `observed=`, or fill the template."
            )
        turned = getattr(self._header, "caller_polcconv", "COSMO") == "IAU"
        if turned and m.ndim == 2:
            values = values.copy()
            healpix.turn_u(values, obs.stokes)
        return values
