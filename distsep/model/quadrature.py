"""Quadrature: the bands of an instrument as sums over sample frequencies.

Everything is numpy, and becomes constants of the compiled A(beta); only a band shift
makes the weights functions of a parameter.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from distsep.model import units
from distsep.model.nodes import compress

RESPONSES = ("intensity", "RJ", "weights")
"""What a transmission multiplies: the intensity; the Rayleigh-Jeans temperature (that
is, the intensity over nu^2); or the brightness in the unit of the maps."""


@dataclass(frozen=True, eq=False)
class Quadrature:
    r"""Integrals over the bands, as sums over samples.

    A band with response $r(\nu)$ to intensity, calibrated in a map unit of intensity
    $u(\nu)$, sees an emission of intensity $S(\nu)$ as
    $\int r S\,d\nu / \int r u\,d\nu$. A map unit of Jy/sr is the intensity at the
    nominal frequency of a spectrum with constant $\nu I_\nu$ (the IRAS convention).

    Attributes:
        nu: Sample frequencies [GHz], (freq, sample); short tables are padded.
        width: Transmission times width, (freq, sample); 0 in the padding.
        tables: (nu, transmission) of each band, None where it is a single frequency.
        bands: Names of the bands.
        nominal: Nominal frequency of each band [GHz], (freq,).
        response: One of `RESPONSES` for each band.
        unit: Unit of the maps.
    """

    nu: np.ndarray
    width: np.ndarray
    tables: tuple[tuple[np.ndarray, np.ndarray] | None, ...]
    bands: tuple[str, ...]
    nominal: np.ndarray
    response: tuple[str, ...]
    unit: str

    @classmethod
    def of(
        cls,
        tables: tuple[tuple[np.ndarray, np.ndarray] | None, ...],
        bands: tuple[str, ...],
        nominal: np.ndarray,
        response: tuple[str, ...],
        unit: str,
        fineness: int | None = 1,
    ) -> "Quadrature":
        """Trapezoid rule on ragged tables, long ones with fewer nodes.

        With `fineness` as of `compress`, or all samples for None; the other arguments
        are the attributes.
        """

        def points_of(table: tuple[np.ndarray, np.ndarray]) -> tuple:
            nu, weight = table[0], table[1] * _widths(table)
            return (nu, weight) if fineness is None else compress(nu, weight, fineness)

        points = [
            (nominal[i : i + 1], np.ones(1)) if t is None else points_of(t)
            for i, t in enumerate(tables)
        ]
        longest = max(len(nu) for nu, _ in points)
        nu = [np.pad(x, (0, longest - len(x)), mode="edge") for x, _ in points]
        width = [np.pad(w, (0, longest - len(w))) for _, w in points]
        samples, widths = np.stack(nu), np.stack(width)
        return cls(samples, widths, tables, bands, nominal, response, unit)

    def edges(self) -> list[tuple[float, float]]:
        """Lowest and highest frequency [GHz] where each band has 1% of its maximum."""
        used = np.abs(self.width) >= 0.01 * self.width.max(axis=1, keepdims=True)
        rows = zip(self.nu, used, strict=True)
        return [(float(n[u].min()), float(n[u].max())) for n, u in rows]

    def shifted(self, shift: Any) -> Any:
        """Sample frequencies [GHz] after a shift (freq,) of the bands, or None."""
        if shift is None:
            return self.nu
        # Tables that begin near 0 stay positive.
        return jnp.maximum(self.nu + jnp.asarray(shift)[:, None], self.nu / 2)

    def weights(self, unit: str, shift: Any = None) -> Any:
        """Weights that integrate a law written in `unit` to the unit of the maps.

        Args:
            unit: A unit of brightness, or `y_SZ`.
            shift: Shift of every band [GHz], (freq,); the transmission moves with it.

        Returns:
            (freq, sample), numpy without a shift.
        """
        xp = np if shift is None else jnp
        nu = self.shifted(shift)
        response = self.width * self._per_transmission(nu, xp)
        return response * units.intensity(unit, nu, xp) / self._norm(nu, response, xp)

    def integral(self, unit: str) -> np.ndarray:
        """One `unit`, itself a unit of maps or `y_SZ`, in the unit of the maps."""
        response = self.width * self._per_transmission(self.nu, np)
        total = (response * self._map_intensity(self.nu, np, unit)).sum(axis=1)
        return total / self._norm(self.nu, response, np)[:, 0]

    def line(self, nu_line: float, shift: Any = None) -> Any:
        """A spectral line of 1 K_RJ km/s in the unit of the maps.

        Args:
            nu_line: Frequency of the line [GHz].
            shift: Shift of every band [GHz], (freq,), or None.

        Returns:
            (freq,); 0 where a table does not reach the line, NaN for bands without
            a table.

        References:
            Planck 2013 results IX (2014), A&A 571, A9, section 4.
        """
        xp = np if shift is None else jnp
        nu = self.shifted(shift)
        norm = self._norm(nu, self.width * self._per_transmission(nu, xp), xp)[:, 0]
        offset = [0.0] * len(self.tables) if shift is None else shift
        at_line = [
            np.nan if t is None else xp.interp(nu_line - offset[i], *t, left=0, right=0)
            for i, t in enumerate(self.tables)
        ]
        ones = np.full((len(self.tables), 1), float(nu_line))
        response = xp.stack(at_line) * self._per_transmission(ones, xp)[:, 0]
        velocity = 1e3 * nu_line / units.LIGHT_SPEED  # GHz per km/s
        return response * units.intensity("K_RJ", float(nu_line)) * velocity / norm

    def _per_transmission(self, nu: Any, xp: Any) -> Any:
        """Response to intensity of a transmission of 1."""
        kind = np.array(self.response)[:, None]
        result = xp.where(kind == "RJ", 1 / nu**2, xp.ones_like(nu))
        if "weights" in self.response:
            u = self._map_intensity(nu, xp, self.unit)
            result = xp.where(kind == "weights", 1 / u, result)
        return result

    def _norm(self, nu: Any, response: Any, xp: Any) -> Any:
        u = self._map_intensity(nu, xp, self.unit)
        return (response * u).sum(axis=1, keepdims=True)

    def _map_intensity(self, nu: Any, xp: Any, unit: str) -> Any:
        value = units.intensity(unit, nu, xp)
        return value * self.nominal[:, None] / nu if unit.endswith("Jy/sr") else value


def _widths(table: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Weights of the trapezoid rule."""
    steps = np.diff(table[0])
    return (np.append(steps, 0) + np.append(0, steps)) / 2
