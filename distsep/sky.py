"""A simulated sky of components, as an instrument sees it, chunk by chunk.

Every random number belongs to a chunk of observed pixels or to a whole map, never to a
rank: one sky.toml gives one store on any number of ranks. Components with a spectrum or
a template need whole maps in memory; `random` amplitudes are drawn as they are written.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from distsep.config.model import build_instrument, build_law
from distsep.config.sky import AmplitudeTable, SkyComponentTable, SkyConfig
from distsep.data import healpix
from distsep.data.blocks import Grid
from distsep.data.fits_scalar import read_mask, read_scalar
from distsep.model.components import Component
from distsep.model.mixing import MixingMatrix
from distsep.model.units import MAP_UNITS, conversion, micro
from distsep.parallel import Comm, serial
from distsep.spectra import DEFAULTS, whole_maps

NOISE, WHOLE, RANDOM = range(3)  # streams of random numbers
PIECE = 2**20  # pixels whose positions are computed at once


class Amplitude(NamedTuple):
    """How strong a component is.

    Attributes:
        size: Map `(stokes, whole sphere)` in NEST order, or the rms of values that are
            independent in every pixel; millionths of the amplitude's unit.
        nu: Frequency [GHz] it holds at; None: where the law is 1.
    """

    size: Any
    nu: float | None


@dataclass(frozen=True)
class Sky:
    """A sky to be observed, chunk by chunk.

    Attributes:
        mixing: Emission laws in the bands of the instrument.
        amplitudes: One for each component.
        values: True parameters: numbers, or maps of the whole sphere in NEST order.
        cell_ids: NEST numbers of all observed pixels, ascending.
        weight: Inverse noise variance of each, relative to the depths; None: 1.
        sigma: Noise [uK_CMB] of weight 1, `(freq, stokes)`.
        noisy: Whether noise is added.
        nside, seed: Resolution, and seed of the noise.
        seeds: Seed of the amplitude of each component.
        grid: The block grid of the observed pixels.
    """

    mixing: MixingMatrix
    amplitudes: tuple[Amplitude, ...]
    values: dict[str, Any]
    cell_ids: Shaped[np.ndarray, " pix"]
    weight: Float[np.ndarray, " pix"] | None
    sigma: Float[np.ndarray, "freq stokes"]
    noisy: bool
    nside: int
    seed: int
    seeds: tuple[int, ...]
    grid: Grid

    @property
    def stokes(self) -> str:
        """Stokes parameters observed."""
        return self.mixing.stokes

    @property
    def constants(self) -> dict[str, float | None]:
        """The true parameters; None for those that vary over the sky."""
        return constants(self.values)

    def chunk(
        self, chunk: int
    ) -> tuple[
        Float[np.ndarray, "freq stokes pix"], Float[np.ndarray, "comp stokes pix"]
    ]:
        """Observe one chunk of pixels.

        Returns:
            Frequency maps [uK_CMB], and the true amplitudes where the laws are 1.

        Communication: none.
        """
        start, stop = self.grid.chunk_range(chunk)
        cells = self.cell_ids[start:stop]
        beta = {
            name: value if np.ndim(value) == 0 else value[cells]
            for name, value in self.values.items()
        }
        A = self._mixing_at(beta, len(cells))
        s = np.stack(
            [self._amplitude(n, chunk, cells, beta) for n in range(A.shape[-2])]
        )
        d = np.zeros((A.shape[0], *s.shape[1:]))
        # One product after the other: the order of a library's sums is not ours.
        for n in range(len(s)):
            d += A[:, n, None, :] * s[n]
        if self.noisy:
            draw = generator(self.seed, NOISE, chunk).standard_normal(d.shape)
            draw *= self.sigma[..., None]
            d += (
                draw if self.weight is None else draw / np.sqrt(self.weight[start:stop])
            )
        return d, s

    def _mixing_at(self, beta: dict[str, Any], npix: int) -> np.ndarray:
        """A `(freq, comp, pix)`, the last axis 1 where no parameter varies."""
        if not any(np.ndim(value) for value in beta.values()):
            return self._constant_mixing
        # Chunks are filled to one length, so that A is compiled once.
        fill = lambda x: np.pad(
            np.broadcast_to(x, npix), (0, self.grid.chunk - npix), mode="edge"
        )
        A = np.asarray(self.mixing({name: fill(x) for name, x in beta.items()}))
        return np.moveaxis(A[:npix], 0, -1)

    def _amplitude(
        self, n: int, chunk: int, cells: np.ndarray, beta: dict[str, Any]
    ) -> Float[np.ndarray, "stokes pix"]:
        """The true amplitude of component `n` where its law is 1."""
        size, nu = self.amplitudes[n]
        if np.ndim(size) == 0:
            shape = (len(self.stokes), len(cells))
            draw = generator(self.seeds[n], RANDOM, n, chunk)
            s = size * draw.standard_normal(shape)
        else:
            s = size[:, cells].astype(float)
        if nu is None:
            return s
        constant = self._constant_laws[n]
        return s / (self._law(n, beta) if constant is None else constant)

    def _law(self, n: int, beta: dict[str, Any]) -> np.ndarray:
        """The law of component `n` where its amplitude holds, `(pix,)` or a number."""
        law, nu = self.mixing.components[n], self.amplitudes[n].nu
        own = {name: beta[f"{law.name}.{name}"] for name in law.parameters}
        return np.asarray(law.sed(np.array([nu]), law.amplitude_unit, **own))[..., 0]

    @cached_property
    def _constant_mixing(self) -> np.ndarray:
        """A `(freq, comp, 1)` of a sky whose parameters do not vary."""
        return np.asarray(self.mixing(self.values))[..., None]

    @cached_property
    def _constant_laws(self) -> list[np.ndarray | None]:
        """`_law` of each component; None where a parameter of it varies."""
        varies = [
            any(np.ndim(self.values[f"{law.name}.{p}"]) for p in law.parameters)
            for law in self.mixing.components
        ]
        return [
            None if vary or nu is None else self._law(n, self.values)
            for n, (vary, (_, nu)) in enumerate(
                zip(varies, self.amplitudes, strict=True)
            )
        ]


def generator(seed: int, *key: int) -> np.random.Generator:
    """Random numbers that belong to a key, independent of those of other keys."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def make_sky(
    config: SkyConfig,
    comm: Comm | None = None,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Sky:
    """Prepare what a sky needs of the whole sphere.

    Communication: one broadcast for each component with a map of the whole sphere.
    """
    comm = comm or serial()
    sky = config.sky
    seeds = _seeds(config)
    instrument = build_instrument(config.instrument)
    components = [_law(table) for table in config.component]
    amplitudes = []
    for n, law in enumerate(components):
        progress(n, len(components), f"drawing {law.name}")
        amplitudes.append(_strength(config, n, law, seeds[n], comm))
    cell_ids, weight = observed_pixels(config)
    depth = np.stack([instrument.depth(letter) for letter in sky.stokes], axis=1)
    return Sky(
        mixing=MixingMatrix(components, instrument, stokes=sky.stokes),
        amplitudes=tuple(amplitudes),
        values=true_values(config),
        cell_ids=cell_ids,
        weight=weight,
        sigma=depth / np.sqrt(healpix.pixel_area_arcmin2(sky.nside)),
        noisy=sky.noise,
        nside=sky.nside,
        seed=sky.seed,
        seeds=seeds,
        grid=Grid.of(len(cell_ids)),
    )


def redraw(sky: Sky, config: SkyConfig, comm: Comm | None = None) -> Sky:
    """The sky of another `sky.seed`; what does not depend on it is kept.

    Args:
        sky: What `make_sky` returned.
        config: The same but for the seed.
        comm: The ranks.

    Communication: one broadcast for each map of the whole sphere that is drawn.
    """
    seeds, comm = _seeds(config), comm or serial()
    amplitudes = [
        old
        if seeds[n] == sky.seeds[n]
        else _strength(config, n, sky.mixing.components[n], seeds[n], comm)
        for n, old in enumerate(sky.amplitudes)
    ]
    return replace(sky, amplitudes=tuple(amplitudes), seed=config.sky.seed, seeds=seeds)


def _seeds(config: SkyConfig) -> tuple[int, ...]:
    """The seed of each component's amplitude; 0 for maps that are read."""
    return tuple(
        0
        if table.amplitude is not None and table.amplitude.file is not None
        else config.sky.seed
        if table.seed is None
        else table.seed
        for table in config.component
    )


def observed_pixels(
    config: SkyConfig,
) -> tuple[Shaped[np.ndarray, " pix"], Float[np.ndarray, " pix"] | None]:
    """NEST numbers of the pixels that are observed, ascending, and their weights.

    Raises:
        ValueError: if there are none.

    Communication: none; every rank finds the same.
    """
    sky, npix = config.sky, 12 * config.sky.nside**2
    same = {"nside": sky.nside, "coordsys": sky.coordsys}
    mask = read_mask(sky.mask, **same) if sky.mask else None
    weight = None
    if sky.hits:
        weight = np.nan_to_num(read_scalar(sky.hits, **same), nan=0.0)
        counts = weight[weight > 0]
        norms = {"max": counts.max, "mean": counts.mean}
        norm = sky.hits_norm
        weight = weight / (norms[norm]() if isinstance(norm, str) else norm)
    kept = []
    for start in range(0, npix, PIECE):
        ids = np.arange(start, min(start + PIECE, npix))
        use = np.ones(len(ids), bool)
        if sky.latitude:
            use &= np.abs(healpix.latitude(sky.nside, ids)) >= sky.latitude
        if mask is not None:
            use &= mask[ids]
        if weight is not None:
            use &= weight[ids] > 0
        kept.append(ids[use])
    cell_ids = np.concatenate(kept)
    if not len(cell_ids):
        raise ValueError("`[sky]`: the latitude, mask and hits leave no pixel.")
    return cell_ids, None if weight is None else weight[cell_ids]


def _law(table: SkyComponentTable) -> Component:
    law, problems = build_law(table, fix_numbers=False)
    if law is None or problems:
        raise ValueError(f"`[[component]]` {table.label}: {problems}")
    return law


def _strength(
    config: SkyConfig, n: int, law: Component, seed: int, comm: Comm
) -> Amplitude:
    """How strong component `n` is. Communication: a broadcast of its map, if any."""
    table = config.component[n]
    a = table.amplitude or DEFAULTS[str(table.kind)]
    size: Any = a.random
    if size is None:
        draw = lambda: generator(seed, WHOLE, n)
        size = comm.bcast(whole_maps(config.sky, a, draw) if comm.rank == 0 else None)
    nu = None if a.nu is None or a.nu == law.nu0 else a.nu
    return Amplitude(size * _factor(a, law), nu)


def _factor(amplitude: AmplitudeTable, law: Component) -> float:
    """From the unit of the table to millionths of the amplitude's, where it holds."""
    own = law.amplitude_unit
    unit = amplitude.unit or micro(own)
    if unit == micro(own):
        return 1.0
    if unit == own:
        return 1e6
    nu = amplitude.nu or law.nu0
    if not {unit, own} <= set(MAP_UNITS) or nu is None:
        raise ValueError(
            f"the amplitude of {law.name} is in {own} (or {micro(own)}), got {unit!r}."
        )
    return 1e6 * float(conversion(unit, own, nu))


def constants(values: dict[str, Any]) -> dict[str, float | None]:
    """Parameters that are one number; None for those that vary over the sky."""
    return {k: float(v) if np.ndim(v) == 0 else None for k, v in values.items()}


def true_values(config: SkyConfig) -> dict[str, Any]:
    """The true parameters of every law, by full name: numbers, or maps (NEST).

    Communication: none.
    """
    sky, values = config.sky, {}
    for table in config.component:
        law = _law(table)
        for name in law.parameters:
            said = table.parameters.get(name)
            if said is None:
                value = table.options.get(name, law.defaults[name])
            elif said.file is None:
                value = said.value
            else:
                same = {"nside": sky.nside, "coordsys": sky.coordsys}
                value = read_scalar(said.file, said.field, **same)
            values[f"{law.name}.{name}"] = value
    return values
