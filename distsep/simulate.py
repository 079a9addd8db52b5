"""Simulated observations, written chunk by chunk by every rank.

What the sky is made of is in `sky.py`; one sky.toml gives one store on any number of
ranks.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from distsep.config.sky import SkyConfig
from distsep.data.blocks import Grid
from distsep.data.noise import Noise
from distsep.data.observation import Observation
from distsep.data.observation_store import ObservationWriter
from distsep.data.zarr_header import Truth
from distsep.parallel import Comm, serial
from distsep.sky import Sky, make_sky


def simulate(
    config: SkyConfig,
    path: str | Path,
    *,
    comm: Comm | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> None:
    """Draw the sky of a configuration, observe it, and write the store.

    Args:
        config: What `read_sky` returned.
        path: Store to write, the truth in it if `output.truth`.
        comm: The ranks; each makes and writes its own chunks.
        overwrite: Replace an existing observation.
        progress: Called with (done, of, words).

    Communication: collective; a broadcast of each whole map, barriers of the store.
    """
    comm = comm or serial()
    sky = make_sky(config, comm, progress)
    header = _header(config, sky)
    truth = None
    if config.output.truth:
        names, units = sky.mixing.component_names, sky.mixing.amplitude_units
        truth = Truth(names, units, sky.constants)
    first, last = sky.grid.rank_chunks(comm.rank, comm.size)
    with ObservationWriter(
        path, header, truth=truth, comm=comm, overwrite=overwrite
    ) as writer:
        for chunk in range(first, last):
            d, s = sky.chunk(chunk)
            pixels = slice(*sky.grid.chunk_range(chunk))
            part = _part(header, sky, d, pixels, pixels.start)
            writer.write(chunk, part, truth and s)
            progress(chunk - first + 1, last - first, "observing")


def observe(
    config: SkyConfig,
    sky: Sky,
    comm: Comm | None = None,
    observed: Bool[np.ndarray, " pix"] | None = None,
) -> Observation:
    """Observe a sky in memory: the pixels that `simulate` would write.

    Args:
        config: What the sky was made of.
        sky: The sky.
        comm: The ranks that share it.
        observed: True for each NEST pixel of the sphere to use; None: all.

    Returns:
        The observation of this rank's chunks, of the pixels that are used.

    Raises:
        ValueError: if none is.

    Communication: none.
    """
    comm, npix = comm or serial(), len(sky.cell_ids)
    used = np.arange(npix) if observed is None else observed[sky.cell_ids].nonzero()[0]
    if not len(used):
        raise ValueError("`observation.mask`: leaves no pixel of the simulated sky.")
    grid = Grid.of(len(used))
    start, stop = grid.rank_pixels(comm.rank, comm.size)
    mine = used[start:stop]
    d = np.empty((*sky.sigma.shape, len(mine)), config.sky.dtype)
    for chunk in range(sky.grid.nchunks):
        first, last = sky.grid.chunk_range(chunk)
        a, b = np.searchsorted(mine, (first, last))
        if a == b:
            continue
        inside = slice(None) if b - a == last - first else mine[a:b] - first
        d[..., a:b] = sky.chunk(chunk)[0][..., inside]
    header = _header(config, sky).replace(grid=grid)
    return _part(header, sky, d, mine, start)


def _part(
    header: Observation, sky: Sky, d: np.ndarray, pixels: Any, start: int
) -> Observation:
    """Some of the pixels of a sky; the first is number `start` of all that are used."""
    weight = None if sky.weight is None else sky.weight[pixels]
    return header.replace(
        d=d.astype(header.d.dtype, copy=False),
        cell_ids=sky.cell_ids[pixels],
        noise=Noise(header.noise.shape, "uniform", weight),
        start=start,
    )


def _header(config: SkyConfig, sky: Sky) -> Observation:
    """The observation without its pixels."""
    weight = None if sky.weight is None else np.zeros(0)
    versions = {"simulated": True, "seed": sky.seed, **config.provenance}
    return Observation.from_canonical(
        d=np.zeros((*sky.sigma.shape, 0), config.sky.dtype),
        noise=Noise(1 / sky.sigma**2, "uniform", weight),
        cell_ids=np.zeros(0, np.int64),
        grid=sky.grid,
        start=0,
        instrument=sky.mixing.instrument,
        stokes=sky.stokes,
        nside=sky.nside,
        coordsys=config.sky.coordsys,
        polcconv="COSMO",
        resolution=config.sky.resolution,
        provenance=versions,
    )
