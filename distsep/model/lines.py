"""Line: spectral lines, whose brightness in a band is a constant of that band."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from distsep.model import units
from distsep.model.law import Bounds, Law, pair
from distsep.model.mistakes import (
    Real,
    fixed_mistakes,
    number_mistakes,
    start_mistakes,
    word_mistakes,
)
from distsep.model.quadrature import Quadrature

CO_LINES = {"10": 115.2712018, "21": 230.538, "32": 345.7959899}
"""Frequencies of the first rotational lines of CO [GHz] (CDMS)."""


class Line:
    r"""Lines of one amplitude, $A_b = \sum_l r_l F_{lb}$.

    $F_{lb}$ is the brightness in band b of the line l at 1 K_RJ km/s; the amplitude is
    that of the first line, and $r_l$ ("ratio_NAME") the ratio of each other line to it.

    Args:
        lines: For each line its frequency [GHz], and F follows from the bandpasses; or
            F itself, {band: K_CMB per amplitude}, 0 for bands that are not named.
        name: Name of the component.
        amplitude_unit: Unit of the amplitude, a name only where F is given.
        fixed: Ratios that are not fitted. Keywords do the same; None is free.
        defaults: Starting values of free ratios, 1 where none is given.
        bounds: (lower, upper) of free ratios.

    Raises:
        ValueError: for a ratio of no line, or a start outside its bounds.

    References:
        Planck 2013 results XIII (2014), A&A 571, A13.

    Examples:
        >>> Line({"10": 115.27, "21": 230.54}, name="CO", ratio_21=None).parameters
        ('ratio_21',)
    """

    table = None
    text = None

    def __init__(
        self,
        lines: Mapping[str, Real | Mapping[str, Real]],
        *,
        name: str = "Line",
        amplitude_unit: str = units.LINE_UNIT,
        fixed: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        bounds: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        self.name = name
        self.amplitude_unit = amplitude_unit
        self.nu0 = None
        self.lines = {
            line: dict(value) if isinstance(value, Mapping) else float(value)
            for line, value in lines.items()
        }
        ratios = [f"ratio_{line}" for line in list(self.lines)[1:]]
        given = {**(fixed or {}), **keywords}
        defaults, bounds = defaults or {}, bounds or {}
        mistakes = [] if self.lines else ["`lines` is empty"]
        mistakes += word_mistakes("name", name)
        mistakes += [w for line in self.lines for w in word_mistakes("lines", line)]
        mistakes += number_mistakes({**given, **defaults})
        mistakes += [
            f"`{key}` is not among the ratios of these lines: {', '.join(ratios)}"
            for key in {**given, **defaults, **bounds}
            if key not in ratios
        ]
        self.fixed = {n: float(v) for n in ratios if (v := given.get(n)) is not None}
        self.parameters = tuple(n for n in ratios if n not in self.fixed)
        self.defaults = {n: float(defaults.get(n, 1)) for n in self.parameters}
        self.bounds: dict[str, Bounds] = {
            n: pair(bounds.get(n)) for n in self.parameters
        }
        mistakes += start_mistakes(self.defaults, self.bounds)
        mistakes += fixed_mistakes(
            self.fixed, {n: pair(bounds.get(n)) for n in self.fixed}
        )
        if mistakes:
            raise ValueError(f"`Line(name={name!r})`: {'; '.join(mistakes)}.")

    def __repr__(self) -> str:
        return f"Line({self.name!r}, lines=({', '.join(self.lines)}))"

    def band_law(
        self,
        quadrature: Quadrature,
        parameters: Mapping[str, Any],
        shift: Any = None,
        order: int = 2,
    ) -> Law:
        """The lines in the bands of an instrument, as `Component.band_law`."""
        values = {**self.fixed, **parameters}
        first: dict[str, Any] = {}
        total = jnp.zeros(len(quadrature.bands))
        for line, where in self.lines.items():
            ratio = f"ratio_{line}"
            constant = jnp.asarray(self._constant(quadrature, where, shift))
            total = total + values.get(ratio, 1.0) * constant
            if order > 0 and ratio in parameters:
                first[ratio] = constant
        return Law(total, first, {})

    def band_values(
        self, quadrature: Quadrature, parameters: Mapping[str, float]
    ) -> np.ndarray:
        """The value of `band_law`, (freq,)."""
        return np.asarray(self.band_law(quadrature, parameters, order=0).value)

    def _constant(self, quadrature: Quadrature, where: Any, shift: Any) -> Any:
        if isinstance(where, float):
            return quadrature.line(where, shift)
        given = np.array([where.get(band, 0.0) for band in quadrature.bands])
        return given * quadrature.integral("K_CMB")

    def band_mistakes(self, quadrature: Quadrature) -> list[str]:
        """Bands without a bandpass, and constants for bands that do not exist."""
        mistakes = []
        pairs = zip(quadrature.bands, quadrature.tables, strict=True)
        single = [band for band, table in pairs if table is None]
        for line, where in self.lines.items():
            if isinstance(where, float) and single:
                mistakes.append(
                    f"line {line!r} of `{self.name}` needs the bandpass of every band, "
                    f"or its constants {{band: K_CMB per amplitude}}; bands "
                    f"{', '.join(single)} are single frequencies"
                )
            elif isinstance(where, dict):
                unknown = [band for band in where if band not in quadrature.bands]
                if unknown:
                    mistakes.append(
                        f"line {line!r} of `{self.name}` names the bands "
                        f"{', '.join(unknown)}, which do not exist; bands are "
                        f"{', '.join(quadrature.bands)}"
                    )
        return mistakes


def CO(
    ratio_21: Real | None = 0.595,
    ratio_32: Real | None = 0.297,
    *,
    name: str = "CO",
    **options: Any,
) -> Line:
    """The first three rotational lines of CO; the amplitude is J=1-0 in K km/s.

    Args:
        ratio_21: J=2-1 over J=1-0.
        ratio_32: J=3-2 over J=1-0.
        name: Name of the component.
        options: `defaults` and `bounds`, see `Line`.

    References:
        Planck 2013 results XIII (2014), A&A 571, A13: the ratios of its type 3 map.
    """
    return Line(CO_LINES, name=name, ratio_21=ratio_21, ratio_32=ratio_32, **options)
