"""Instrument: bands, bandpasses, depths and beams; presets. numpy only."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np

from distsep.model import units
from distsep.model.mistakes import listed, unit_of
from distsep.model.quadrature import RESPONSES, Quadrature

# Of the largest transmission: above, a frequency is in the band.
_IN_BAND = 0.01


class Instrument:
    """Frequency bands and what is known of them.

    Args:
        nu: Nominal frequencies [GHz], (freq,).
        depth_p: Noise of Q and U [uK_CMB arcmin], (freq,).
        depth_i: Noise of I [uK_CMB arcmin], (freq,).
        fwhm: Beams [arcmin], (freq,).
        bands: Names of the bands; by default the frequencies ("%g").
        bandpass: For each band None (a single frequency) or (nu, transmission), of any
            length and normalisation; negative samples are kept.
        response: What the transmissions multiply: "intensity" (Planck HFI), "RJ"
            (Rayleigh-Jeans temperature: LFI, WMAP) or "weights" (the brightness in the
            unit of the maps); one word, or one for each band.
        name: Name of the instrument.

    Raises:
        ValueError: lists everything that is wrong.

    Examples:
        >>> Instrument(nu=[95, 150], depth_p=[3.0, 2.0]).bands
        ('95', '150')
    """

    def __init__(
        self,
        nu: Any,
        depth_p: Any = None,
        depth_i: Any = None,
        fwhm: Any = None,
        bands: Sequence[str] | None = None,
        bandpass: Sequence[Any] | None = None,
        response: str | Sequence[str] = "intensity",
        name: str | None = None,
    ) -> None:
        mistakes: list[str] = []
        frequencies = _vector(nu, None, "nu", mistakes)
        if frequencies is None or not len(frequencies):
            raise ValueError(f"`Instrument(nu=...)`: {'; '.join(mistakes) or 'empty'}.")
        self.nu: np.ndarray = frequencies
        nf = len(self.nu)
        self.name = name
        self.depth_p = _vector(depth_p, nf, "depth_p", mistakes)
        self.depth_i = _vector(depth_i, nf, "depth_i", mistakes)
        self.fwhm = _vector(fwhm, nf, "fwhm", mistakes)
        named = (f"{v:g}" for v in self.nu) if bands is None else bands
        self.bands = tuple(map(str, named if np.iterable(named) else [named]))
        words = [response] * nf if isinstance(response, str) else listed(response)
        self.response: tuple[str, ...] = tuple(words)
        if not (np.isfinite(self.nu) & (self.nu > 0)).all():
            mistakes.append(f"`nu` should be positive frequencies [GHz]; got {nu}")
        elif (self.nu > units.LARGEST_NU).any():
            mistakes.append(
                f"`nu` should be in GHz; got {nu}: if that is in Hz, divide it by 1e9"
            )
        if len(self.bands) != nf or len(set(self.bands)) != nf:
            mistakes.append(f"`bands` should be {nf} different names; got {self.bands}")
        elif any("/" in band for band in self.bands):
            mistakes.append(
                f"`bands` should be names without slashes, for files are named after "
                f"them; got {self.bands}"
            )
        elif negative := self._negative():
            mistakes.append(
                f"{negative} should not be negative (NaN says that one is not known)"
            )
        if len(words) != nf or not all(word in RESPONSES for word in words):
            mistakes.append(
                f"`response` should be one of {', '.join(RESPONSES)}, or one for each "
                f"of {nf} bands; got {response!r}"
            )
        tables = [None] * nf if bandpass is None else listed(bandpass)
        if len(tables) != nf:
            mistakes.append(f"`bandpass` should have {nf} entries; got {len(tables)}")
        self.bandpass = tuple(
            None if t is None else _table(t, i, mistakes) for i, t in enumerate(tables)
        )
        mistakes += self._elsewhere()
        if mistakes:
            raise ValueError(f"`Instrument(...)`: {'; '.join(mistakes)}.")

    def __repr__(self) -> str:
        return f"Instrument({self.name!r}, bands={self.bands})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instrument) and self.to_dict() == other.to_dict()

    __hash__ = None  # pyright: ignore

    def quadrature(self, unit: str = "K_CMB", fineness: int | None = 1) -> Quadrature:
        """The bands as sums over samples, for maps in `unit`; see `Quadrature.of`."""
        units.check_unit(unit, "unit")
        return Quadrature.of(
            self.bandpass, self.bands, self.nu, self.response, unit, fineness
        )

    def conversion(self, unit_from: str, unit_to: str) -> np.ndarray:
        """Factors between units of maps, through the bandpasses.

        Args:
            unit_from: A map unit (Jy/sr in the IRAS convention), or `y_SZ`.
            unit_to: A map unit.

        Returns:
            (freq,)
        """
        for unit, argument in ((unit_from, "unit_from"), (unit_to, "unit_to")):
            units.check_unit(unit, argument, (*units.MAP_UNITS, units.COMPTON_UNIT))
        # Transmissions that are "weights" are those of maps in K_CMB.
        quadrature = self.quadrature("K_CMB")
        return quadrature.integral(unit_from) / quadrature.integral(unit_to)

    def depth(self, stokes: str) -> np.ndarray:
        """Noise depth of one Stokes parameter.

        Args:
            stokes: "I", "Q" or "U".

        Returns:
            [uK_CMB arcmin], (freq,).

        Raises:
            ValueError: if it is not known for every band.
        """
        word = "depth_i" if stokes == "I" else "depth_p"
        if stokes not in ("I", "Q", "U"):
            raise ValueError(
                f"`depth(stokes=...)` should be I, Q or U; got {stokes!r}."
            )
        depth = getattr(self, word)
        bad = self.bands if depth is None else self._where(~(depth > 0))
        if depth is None or bad:
            raise ValueError(
                f"The noise of Stokes {stokes} needs `{word}` [uK_CMB arcmin] of every "
                f"band; missing or not positive for {', '.join(bad)}. Give it, give a "
                "noise variance with the maps, or leave out these bands."
            )
        return depth

    @property
    def spectral(self) -> dict[str, Any]:
        """What emission laws are integrated over: `to_dict` without depths and beams.

        A response is none where no band has a bandpass.
        """
        values = self.to_dict()
        found = {key: values[key] for key in ("bands", "nu", "bandpass", "response")}
        return found if found["bandpass"] else {**found, "response": None}

    def _negative(self) -> str:
        """Which numbers that are sizes are negative, in which bands, in words."""
        sizes = {k: getattr(self, k) for k in ("depth_p", "depth_i", "fwhm")}
        found = {k: self._where(v < 0) for k, v in sizes.items() if v is not None}
        return ", ".join(f"`{k}` of {', '.join(b)}" for k, b in found.items() if b)

    def _elsewhere(self) -> list[str]:
        """Say of bandpasses that are not about the frequency of their band."""
        found = []
        for band, nu, table in zip(self.bands, self.nu, self.bandpass, strict=False):
            if table is None or not len(table[0]):
                continue
            inside = table[0][table[1] >= _IN_BAND * table[1].max()]
            if not inside[0] <= nu <= inside[-1]:
                found.append(
                    f"the bandpass of {band} is that of {inside[0]:g} to "
                    f"{inside[-1]:g} GHz, and its `nu` is {nu:g}: it is another "
                    "band's, or in another unit"
                )
        return found

    def _where(self, condition: np.ndarray) -> list[str]:
        return [band for band, bad in zip(self.bands, condition, strict=True) if bad]

    def index(self, band: str) -> int:
        """Position of a band.

        Raises:
            ValueError: if there is none of this name.
        """
        if band not in self.bands:
            raise ValueError(
                f"There is no band {band!r}; bands are {', '.join(self.bands)}."
            )
        return self.bands.index(band)

    def select(self, bands: Sequence[str]) -> "Instrument":
        """The instrument with only these bands, in this order."""
        picks = [self.index(band) for band in bands]
        values = self.to_dict()
        for key, value in values.items():
            if isinstance(value, list):
                values[key] = [value[i] for i in picks]
        return Instrument.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Everything as lists, numbers and strings, for a store."""
        lists = {
            key: None if getattr(self, key) is None else getattr(self, key).tolist()
            for key in ("nu", "depth_p", "depth_i", "fwhm")
        }
        # NaN (no such depth in this band) is not JSON.
        for key, value in lists.items():
            lists[key] = value and [None if v != v else v for v in value]
        bandpass = [
            None if t is None else [t[0].tolist(), t[1].tolist()] for t in self.bandpass
        ]
        return {
            **lists,
            "name": self.name,
            "bands": list(self.bands),
            "bandpass": bandpass if any(bandpass) else None,
            "response": list(self.response),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Instrument":
        """The instrument of which `to_dict` was taken."""
        return cls(**values)

    @classmethod
    def of(cls, source: Any) -> "Instrument":
        """An instrument from an instrument, a preset's name, or fgbuster's objects.

        Args:
            source: Instrument; name of a preset; or any object or mapping with
                `frequency` and perhaps `depth_i`, `depth_p`, `fwhm`. A frequency may
                be a pair (nu, weight), as in fgbuster.

        Raises:
            TypeError: if it is none of these.
        """
        if isinstance(source, Instrument):
            return source
        if isinstance(source, str):
            return instrument(source)
        read = source.get if isinstance(source, Mapping) else _attribute(source)
        frequency = read("frequency")
        if frequency is None:
            raise TypeError(
                "`instrument` should be an Instrument, the name of a preset, or have "
                f"`frequency` and depths, as fgbuster's; got {type(source).__name__}."
            )
        tables = [None if np.ndim(f) == 0 else tuple(f) for f in frequency]
        nominal = [
            float(f) if t is None else float(np.average(t[0], weights=t[1]))
            for f, t in zip(frequency, tables, strict=True)
        ]
        depths = {key: read(key) for key in ("depth_p", "depth_i", "fwhm")}
        return cls(nominal, **depths, bandpass=tables, response="weights")


def _attribute(source: Any) -> Any:
    return lambda key: getattr(source, key, None)


def _vector(
    value: Any, length: int | None, argument: str, mistakes: list[str]
) -> np.ndarray | None:
    if value is None:
        return None
    if unit := unit_of(value):
        mistakes.append(
            f"`{argument}` carries a unit, {unit}, which is not read: give plain "
            "numbers (nu in GHz, depths in uK_CMB arcmin, fwhm in arcmin)"
        )
        return None
    try:
        if isinstance(value, Sequence):
            value = [np.nan if v is None else v for v in value]
        array = np.array(value, dtype=float)  # a copy: the caller's stays as it is
    except (TypeError, ValueError):
        mistakes.append(f"`{argument}` should be numbers; got {value!r}")
        return None
    expected = f"({length},)" if length else "(freq,)"
    if array.ndim != 1 or (length and len(array) != length):
        mistakes.append(
            f"`{argument}` should have the shape {expected}; got {array.shape}"
        )
        return None
    return array


def _table(
    table: Any, band: int, mistakes: list[str]
) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        nu, transmission = (np.array(x, dtype=float) for x in table)
    except (TypeError, ValueError):
        mistakes.append(f"`bandpass[{band}]` should be a pair (nu, transmission)")
        return None
    if nu.ndim != 1 or nu.shape != transmission.shape or nu.size < 2:
        mistakes.append(
            f"`bandpass[{band}]` should be two arrays of one length; got "
            f"{nu.shape} and {transmission.shape}"
        )
        return None
    if not (np.isfinite(nu).all() and nu[0] > 0 and (np.diff(nu) > 0).all()):
        mistakes.append(
            f"`bandpass[{band}]` should have increasing positive frequencies"
        )
    elif nu[-1] > units.LARGEST_NU:
        mistakes.append(
            f"`bandpass[{band}]` should be in GHz; got frequencies up to {nu[-1]:g}: "
            "if that is in Hz, divide them by 1e9"
        )
    if not np.isfinite(transmission).all() or np.trapezoid(transmission, nu) <= 0:
        mistakes.append(
            f"`bandpass[{band}]` should have a finite transmission of positive integral"
        )
    return nu, transmission


@lru_cache(maxsize=1)
def _presets() -> dict[str, dict[str, Any]]:
    text = resources.files("distsep.model").joinpath("instruments.toml").read_text()
    return tomllib.loads(text)


def presets() -> tuple[str, ...]:
    """Names of the instruments that are known; their sources are in the data file."""
    return tuple(_presets())


def instrument(name: str) -> Instrument:
    """A known instrument; `instruments.toml` has the source of every number.

    Args:
        name: One of `presets()`.

    Raises:
        ValueError: if it is not.
    """
    if name not in _presets():
        raise ValueError(
            f"`instrument(name=...)` should be one of {', '.join(presets())}; "
            f"got {name!r}."
        )
    values = _presets()[name]
    keys = ("nu", "depth_p", "depth_i", "fwhm", "bands")
    return Instrument(name=name, **{k: values[k] for k in keys if k in values})
