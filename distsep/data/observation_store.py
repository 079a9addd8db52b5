"""Observations into stores: every rank writes and reads its own chunks.

Nothing is gathered. data/stored_observation.py reads them back.
"""

from pathlib import Path
from typing import Any

import numpy as np

from distsep.data.noise import Noise, unit_shape
from distsep.data.observation import Observation
from distsep.data.store_header import (
    NOISE_DIMS,
    PER_UNIT,
    UNIT,
    cell_ids_array,
    labels,
    sky_attributes,
)
from distsep.data.zarr_group import GroupWriter, PixelArray
from distsep.data.zarr_header import Truth
from distsep.parallel import Comm, serial


class ObservationWriter:
    """Writes an observation chunk by chunk: no rank needs more than one in memory.

    Leaving a `with` block without an error completes the store.

    Args:
        path: Directory of the store.
        header: An observation of the same kind: all but its pixels is written. Only
            the type of `d` and of the noise, and the grid, matter of those.
        truth: For a simulation; then `write` takes the true amplitudes too.
        comm: The ranks.
        overwrite: Replace an observation. Anything else is never replaced.

    Raises:
        FileExistsError: if the path exists and may not be replaced.

    Communication: collective (one broadcast at the start, barriers at the end).
    """

    def __init__(
        self,
        path: str | Path,
        header: Observation,
        *,
        truth: Truth | None = None,
        comm: Comm | None = None,
        overwrite: bool = False,
    ) -> None:
        self._header, self._comm = header, comm or serial()
        nf, ns = len(header.instrument.bands), len(header.stokes)
        noise = header.noise
        arrays = {
            "maps": PixelArray(
                ("freq", "stokes", "cells"), (nf, ns), header.d.dtype, UNIT
            ),
            "cell_ids": cell_ids_array(header.nside),
        }
        if noise.kind.endswith("pixel"):
            dims = NOISE_DIMS[noise.kind]
            leading = noise.shape.shape[:-1]
            arrays["inverse_noise"] = PixelArray(dims, leading, float, PER_UNIT)
        if noise.weight is not None:
            arrays["weight"] = PixelArray(("cells",), (), float)
        attributes = {**sky_attributes(header), **_attributes(header)}
        self._components = () if truth is None else truth.components
        if truth is not None:
            n = len(truth.components)
            dims = ("comp", "stokes", "cells")
            arrays["truth"] = PixelArray(dims, (n, ns), float)
            attributes["truth"] = {
                "components": truth.components,
                "units": truth.units,
                "parameters": dict(truth.parameters),
            }
        self._arrays, self._missing = arrays, False
        self._writer = GroupWriter(
            path,
            "observation",
            header.grid,
            arrays,
            attributes,
            comm=self._comm,
            overwrite=overwrite,
        )

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Complete the store, unless something failed."""
        if error is None:
            self.finish()
        self._writer.__exit__(kind, error, trace)

    def write(
        self, chunk: int, part: Observation, truth: np.ndarray | None = None
    ) -> None:
        """Write the pixels of one chunk.

        Args:
            chunk: Its number.
            part: Observation of exactly its pixels.
            truth: True amplitudes `(comp, stokes, pix)`, if the store has them.
        """
        values = {
            "maps": part.d,
            "cell_ids": part.cell_ids,
            "inverse_noise": part.noise.shape,
            "weight": part.noise.weight,
            "truth": truth,
        }
        self._missing |= bool(np.isnan(part.d).any())
        for name in self._arrays:
            if values[name] is None:
                raise ValueError(
                    f"`ObservationWriter.write`: the store has an array {name!r} but "
                    f"chunk {chunk} does not."
                )
            self._writer.write(name, chunk, values[name])

    def finish(self) -> None:
        """Write what has no pixels and the mark of completeness.

        Communication: an allgather and barriers.
        """
        header = self._header
        nu = np.asarray(header.instrument.nu, float)
        small = {"freq": (("freq",), nu, "GHz"), **labels(stokes=tuple(header.stokes))}
        if self._components:
            small |= labels(comp=self._components)
        if not header.noise.kind.endswith("pixel"):
            dims = NOISE_DIMS[header.noise.kind]
            small["inverse_noise"] = (dims, header.noise.shape, PER_UNIT)
        missing = any(self._comm.allgather(self._missing))
        self._writer.finish({"complete_bands": not missing}, small)


def save_observation(
    observation: Observation,
    path: str | Path,
    *,
    comm: Comm | None = None,
    overwrite: bool = False,
) -> None:
    """Write an observation that is in memory; every rank writes its own chunks.

    Args:
        observation: Pixels of this rank; `start` at a chunk boundary.
        path: Directory of the store.
        comm: The ranks.
        overwrite: Replace an observation. Anything else is never replaced.

    Raises:
        ValueError: if the pixels of the ranks are not whole chunks of one data set.
        FileExistsError: if the path exists and may not be replaced.

    Communication: collective.
    """
    comm = comm or serial()
    grid, start = observation.grid, observation.start
    stop = start + observation.npix
    chunks = grid.whole_chunks(start, observation.npix)
    owned = sum(comm.allgather(observation.npix))
    if not owned:
        raise ValueError("`save_observation`: no pixel is observed.")
    cut = any(comm.allgather(chunks is None))
    if chunks is None or cut or owned != grid.npix:
        raise ValueError(
            f"`save_observation`: the ranks hold {owned} of {grid.npix} pixels, this "
            f"one [{start}, {stop}): expected whole chunks of {grid.chunk}, as "
            "`grid.rank_pixels(rank, size)` gives them."
        )
    observation = observation.replace(noise=one_noise(observation, comm))
    with ObservationWriter(path, observation, comm=comm, overwrite=overwrite) as writer:
        for chunk in chunks:
            first, last = grid.chunk_range(chunk)
            pixels = slice(first - start, last - start)
            writer.write(
                chunk,
                observation.replace(
                    d=observation.d[..., pixels],
                    noise=observation.noise.select(pixels),
                    cell_ids=observation.cell_ids[pixels],
                ),
            )


def _attributes(header: Observation) -> dict[str, Any]:
    """Return the attributes of an observation alone."""
    return {
        "bands": list(header.instrument.bands),
        "instrument": header.instrument.to_dict(),
        "resolution": header.resolution,
    }


def one_noise(observation: Observation, comm: Comm) -> Noise:
    """Return this rank's noise in a form that all ranks share.

    Ranks that have their own arrays may have found shapes that differ by a factor: it
    goes into the weights. Or different shapes or kinds: then every pixel gets its own.

    Raises:
        ValueError: hits in units of the largest, or the mean, of each rank's own.

    Communication: one allgather of the noise, pixels apart.
    """
    own = observation.noise
    header = own.select(slice(0, 0)), observation.npix, observation.is_share
    gathered = comm.allgather(header)
    seen = [noise for noise, npix, _ in gathered if npix]
    if not seen:
        return own
    parts = [noise.norm for noise, npix, is_share in gathered if npix and not is_share]
    if len(parts) > 1 and (norm := next(filter(None, parts), None)):
        raise ValueError(
            f"`Observation(hits_norm={norm!r})`: that of the pixels of one rank, and "
            f"{len(parts)} ranks have pixels of their own: give the hits at which the "
            "depth holds as a number, the same on all ranks."
        )
    if all(_same(noise, seen[0]) for noise in seen):
        return own if observation.npix else seen[0]
    if all(_alike(noise, seen[0]) for noise in seen):
        shape = unit_shape(seen[0].shape)
        if not observation.npix:
            return Noise(shape, "uniform", np.zeros(0))
        factor = np.full(observation.npix, own.shape.flat[0] / shape.flat[0])
        weight = factor if own.weight is None else factor * own.weight
        return Noise(shape, "uniform", weight)
    shape = own.shape
    if not own.kind.endswith("pixel"):
        shape = np.repeat(shape[..., None], observation.npix, axis=-1)
    if own.weight is not None:
        shape = shape * own.weight
    return Noise(shape, "dense_pixel" if own.kind.startswith("dense") else "pixel")


def _alike(one: Noise, other: Noise) -> bool:
    """Return whether the depths of two ranks differ by a common factor alone."""
    if one.kind != "uniform" or other.kind != "uniform":
        return False
    factor = one.shape.sum() / other.shape.sum()
    return bool(np.allclose(one.shape, factor * other.shape, rtol=1e-13, atol=0))


def _same(one: Noise, other: Noise) -> bool:
    """Return whether two ranks describe their noise by the same arrays."""
    alike = one.kind == other.kind and (one.weight is None) == (other.weight is None)
    return alike and np.array_equal(one.shape, other.shape)
