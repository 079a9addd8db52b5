"""Simulated observations, written chunk by chunk by every rank.

What the sky is made of is in `sky.py`; one sky.toml gives one store on any number of
ranks.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from distsep.config.sky import SkyConfig
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
            part = _part(header, sky, d, *sky.grid.chunk_range(chunk))
            writer.write(chunk, part, truth and s)
            progress(chunk - first + 1, last - first, "observing")


def observe(config: SkyConfig, sky: Sky, comm: Comm | None = None) -> Observation:
    """Observe a sky in memory: the pixels that `simulate` would write.

    Args:
        config: What the sky was made of.
        sky: The sky.
        comm: The ranks that share it.

    Returns:
        The observation of this rank's chunks.

    Communication: none.
    """
    comm = comm or serial()
    start, stop = sky.grid.rank_pixels(comm.rank, comm.size)
    d = np.empty((*sky.sigma.shape, stop - start), config.sky.dtype)
    for chunk in range(*sky.grid.rank_chunks(comm.rank, comm.size)):
        first, last = sky.grid.chunk_range(chunk)
        d[..., first - start : last - start] = sky.chunk(chunk)[0]
    return _part(_header(config, sky), sky, d, start, stop)


def _part(
    header: Observation, sky: Sky, d: np.ndarray, start: int, stop: int
) -> Observation:
    """The pixels from `start` to `stop`."""
    weight = None if sky.weight is None else sky.weight[start:stop]
    return header.replace(
        d=d.astype(header.d.dtype, copy=False),
        cell_ids=sky.cell_ids[start:stop],
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
