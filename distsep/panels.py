"""Which maps of a result are looked at, and in which colours. Nothing is drawn here."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from distsep.data.healpix import parents
from distsep.data.observation import Observation
from distsep.data.result import Result
from distsep.data.result_store import pixel_maps

NSIDE_DRAWN = 128
_WORDS = {"uK_CMB": r"$\mu\mathrm{K}_{\rm CMB}$", "uK_RJ": r"$\mu\mathrm{K}_{\rm RJ}$"}


@dataclass(frozen=True)
class Panel:
    """One map to draw.

    Attributes:
        title, note: Above the map, bold and plain.
        m: The whole sphere in NEST order, at most `NSIDE_DRAWN`; NaN = grey.
        unit: Beside the colour bar.
        span: Lowest and highest colour.
        colours: Colour map.
        centre: Value in the middle of the colours; of the span, if None.
    """

    title: str
    note: str
    m: Float[np.ndarray, " whole"]
    unit: str
    span: tuple[float, float]
    colours: str = "RdBu_r"
    centre: float | None = None


@dataclass(frozen=True)
class Sphere:
    """Where the pixels of a result are.

    Attributes:
        nside: Resolution.
        cell_ids: NEST numbers, ascending.
    """

    nside: int
    cell_ids: Integer[np.ndarray, " pix"]

    def drawn(self, values: Float[np.ndarray, " pix"]) -> Float[np.ndarray, " whole"]:
        """Return the whole sphere in NEST order, averaged to at most `NSIDE_DRAWN`."""
        coarse = min(self.nside, NSIDE_DRAWN)
        known = np.isfinite(values)
        cells = parents(self.nside, self.cell_ids[known], coarse)
        size = 12 * coarse**2
        number = np.bincount(cells, minlength=size)
        total = np.bincount(cells, weights=values[known], minlength=size)
        return total / np.where(number > 0, number, np.nan)

    def common(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places, here and in `ids`, of the pixels that both have."""
        place = np.searchsorted(self.cell_ids, ids)
        place = np.minimum(place, len(self.cell_ids) - 1)
        both = self.cell_ids[place] == ids
        return place[both], np.flatnonzero(both)


def sky_panels(result: Result, observation: Any, truth: Any) -> list[Panel]:
    """Return the maps of the first picture: four, or three without `observation`.

    And, of I, Q and U, the intensities of two components.

    Args:
        result: A whole result.
        observation: What was separated, in memory or stored, or None.
        truth: A stored simulation, or None: then the error is what is expected.
    """
    maps = pixel_maps(result)
    sphere = Sphere(result.nside, maps["cell_ids"])
    letter = "Q" if "Q" in result.stokes else "I"
    row, names = result.stokes.index(letter), result.component_names
    cmb = names.index("CMB") if "CMB" in names else 0
    name, unit = names[cmb], result.units.get(names[cmb], "")
    s = maps["amplitudes"][cmb, row]
    panels = []
    if observation is not None:
        seen = np.isfinite(maps["amplitudes"]).any((0, 1))
        panels.append(_band_panel(observation, sphere, seen, letter))
    panels.append(_recovered(result, sphere, s, name, letter, 99.5))
    if truth is not None and _comparable(result, truth.truth, name):
        panels.append(_error_panel(sphere, truth, s, (name, unit), letter, row))
    elif name in result.covariance_names:
        own = result.covariance_names.index(name)
        sigma = np.sqrt(maps["amplitude_covariance"][row, own, own])
        m = sphere.drawn(sigma)
        note = f"median {_three(np.nanmedian(sigma))} {in_words(unit)}"
        title = f"{name} error (sigma), {letter}"
        panels.append(Panel(title, note, m, unit, _range(m), "viridis"))
    elif len(names) > 1:
        other = 1 if cmb == 0 else 0
        s = maps["amplitudes"][other, row]
        panels.append(_recovered(result, sphere, s, names[other], letter, 98.0))
    if result.dof > 0:
        panels.append(_chi2_panel(result, sphere, maps["chi2"]))
    if result.stokes == "IQU":  # the intensity too
        order = [cmb, *(n for n in range(len(names)) if n != cmb)][:2]
        panels += [
            _recovered(result, sphere, maps["amplitudes"][n, 0], names[n], "I", 98.0)
            for n in order
        ]
    return panels


def _recovered(result, sphere, s, name, letter, percentile) -> Panel:
    """Return the amplitudes of a component, in one Stokes parameter."""
    m, unit = sphere.drawn(s), result.units.get(name, "")
    note = f"rms {_three(_rms(s))} {in_words(unit)}"
    title = f"Recovered {_at(result, name)}, {letter}"
    return Panel(title, note, m, unit, _even(m, percentile))


def _comparable(result: Result, truth: Any, name: str) -> bool:
    """Whether there are true amplitudes of a component, in its unit."""
    true = dict(zip(truth.components, truth.units, strict=True))
    return name in true and true[name] == result.units.get(name)


def _at(result: Result, name: str) -> str:
    """Return a component and where its amplitude is taken."""
    nu0 = result.nu0.get(name)
    return name if nu0 is None else f"{name} at {nu0:g} GHz"


def _band_panel(observation: Any, sphere: "Sphere", seen, letter: str) -> Panel:
    """Return the map of the band that is nearest to 100 GHz."""
    nu = np.asarray(observation.instrument.nu)
    band = int(np.argmin(np.abs(np.log(nu / 100))))
    row = observation.stokes.index(letter)
    values = np.full(len(seen), np.nan)
    for part in _parts(observation):
        here, there = sphere.common(part.cell_ids)
        values[here] = part.d[band, row, there]
    m = sphere.drawn(np.where(seen, values, np.nan))
    name = observation.instrument.bands[band]
    name = f"{name} GHz" if name == f"{nu[band]:g}" else name
    title, note = f"Observed, {name}, {letter}", f"one of {len(nu)} bands"
    return Panel(title, note, m, "uK_CMB", _even(m, 98.0))


def _parts(observation: Any) -> Iterator[Observation]:
    """Yield an observation, chunk by chunk if it is stored."""
    if isinstance(observation, Observation):
        yield observation
        return
    for chunk in range(observation.grid.nchunks):
        yield observation.read(chunk, chunk + 1)


def _error_panel(sphere, truth, s, component, letter, row) -> Panel:
    """Return recovered minus true."""
    name, unit = component
    where = truth.truth.components.index(name)
    true = np.full(len(s), np.nan)
    for chunk in range(truth.grid.nchunks):
        ids = truth.read_pixels(chunk, chunk + 1).cell_ids
        here, there = sphere.common(ids)
        true[here] = truth.read_truth(chunk, chunk + 1)[where, row, there]
    error = s - true
    m = sphere.drawn(error)
    note = f"rms {_three(_rms(error))} {in_words(unit)}"
    title = f"Recovered $-$ true {name}, {letter}"
    return Panel(title, note, m, unit, _even(m, 99.5))


def _chi2_panel(result: Result, sphere: "Sphere", chi2: np.ndarray) -> Panel:
    """Return chi2 of the pixels, all Stokes parameters, around what is expected.

    Pixels that lack bands or Stokes parameters have fewer degrees of freedom: what is
    expected is the mean of all of them.
    """
    # A joint fit has one chi2 for all Stokes parameters of a pixel.
    seen = np.isfinite(chi2).any(0)
    total = np.where(seen, np.nansum(chi2, 0), np.nan)
    free = result.dof / max(seen.sum(), 1)
    m = sphere.drawn(total)
    note = f"mean {np.nanmean(total):.2f}, expected {free:.2f}"
    title = r"$\chi^2$ per pixel, " + "+".join(result.stokes)
    half = 3.5 * np.sqrt(2 * free) * min(1.0, NSIDE_DRAWN / result.nside)
    half = max(half, abs(float(np.nanmedian(m)) - free))
    span = max(free - half, 0.0), free + half
    return Panel(title, note, m, "", span, "PuOr_r", centre=free)


def parameter_panels(result: Result) -> list[Panel]:
    """Return two maps, value and error, of each kind of parameter with patches."""
    panels = []
    maps = pixel_maps(result) if result.patches else {}
    for kind in result.patches:
        ids = maps[f"{kind}.patch"][0]
        if ids.max(initial=-1) < 1:
            continue
        used = ids >= 0
        for what, found in (("", result.parameters), ("sigma of ", result.sigma)):
            known = np.asarray(found[kind], float)
            values = np.where(used, known[np.where(used, ids, 0)], np.nan)
            m = Sphere(result.nside, maps["cell_ids"]).drawn(values)
            n = int(np.isfinite(known).sum())
            note = f"{n} patches, median {np.nanmedian(known):.4g}"
            colours = "viridis" if what else "Spectral_r"
            panels.append(Panel(f"{what}{kind}", note, m, "", _range(m), colours))
    return panels


def in_words(unit: str) -> str:
    """Return a unit as it is typeset."""
    return _WORDS.get(unit, unit)


def _three(x: float) -> str:
    """Return three digits, and no exponent."""
    return np.format_float_positional(x, 3, unique=False, fractional=False, trim="-")


def _even(values: np.ndarray, percentile: float) -> tuple[float, float]:
    """Return a range around zero that leaves out the extremes."""
    size = np.abs(values[np.isfinite(values)])
    top = float(np.percentile(size, percentile)) if len(size) else 1.0
    return -(top or 1.0), top or 1.0


def _range(values: np.ndarray) -> tuple[float, float]:
    """Return a range that leaves out the extremes."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = (float(x) for x in np.percentile(known, [1, 99]))
    margin = 0.0 if high > low else 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _rms(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if len(known) else float("nan")
