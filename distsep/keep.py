"""What becomes of the maps of a run: kept in memory, or written chunk by chunk."""

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distsep.data.place import require_whole_chunks
from distsep.data.result import Result
from distsep.data.store import ResultWriter, require_place, result_arrays
from distsep.inference.amplitudes import Maps


def keeping_mistakes(residuals: Any, output: Any, overwrite: Any, tell: Any) -> list:
    """Say which settings of what is kept, and told, are none."""
    wrong = [
        f"`{name}` should be True or False, got {value!r:.80}"
        for name, value in (("residuals", residuals), ("overwrite", overwrite))
        if not isinstance(value, bool | np.bool_)
    ]
    if not (output is None or isinstance(output, str | PathLike)):
        wrong.append(f"`output` should be the path of a directory, got {output!r:.80}")
    if not (tell is None or callable(tell)):
        wrong.append(
            "`tell` should be a function of (phase, passes, distance in sigma), got "
            f"{tell!r:.80}"
        )
    return wrong


class Kept(NamedTuple):
    """What is kept of a run.

    Attributes:
        units: Unit of the amplitudes of each component that has maps.
        nu0: Reference frequency of each [GHz], or None.
        scale: Factor to that unit, by component.
        patch_of: By kind the function that gives the patches of a part's pixels.
        covariance: Components whose amplitude covariance is kept.
        residuals: Whether residual maps per band are kept.
        regional: Unit of each component that has an amplitude per region instead.
    """

    units: Mapping[str, str]
    nu0: Mapping[str, float | None]
    scale: np.ndarray
    patch_of: Mapping[str, Any]
    covariance: tuple[str, ...]
    residuals: bool
    regional: Mapping[str, str]

    @property
    def chosen(self) -> np.ndarray:
        """Places of the components whose covariance is kept."""
        return np.array([list(self.units).index(c) for c in self.covariance], int)


class Keeper:
    """Takes the maps of the second pass, part by part.

    Where the data are in memory the maps are too; with `output` every rank writes its
    own chunks, and the mark of completeness comes last.

    Args:
        source: Parts of the maps of this rank.
        kept: What is kept.
        output: Directory of the result store, or None.
        overwrite: Replace an existing result.
        comm: Ranks.

    Raises:
        FileExistsError, PermissionError: the place of `output` is taken, or closed.
        ValueError: with `output`, ranks that do not hold whole chunks.

    Communication: collective, with `output`.
    """

    def __init__(
        self, source, kept: Kept, *, output: str | Path | None, overwrite: bool, comm
    ):
        self._source, self._kept = source, kept
        self._maps: dict[str, list[np.ndarray]] = {}
        self._squares: list[np.ndarray] = []
        self._output, self._overwrite, self._comm = output, overwrite, comm
        self._writer: ResultWriter | None = None
        if output is not None:
            own = source.pixels(0)
            require_whole_chunks(
                "separate(output=...)",
                own.grid,
                own.start,
                own.npix,
                comm,
                "Give a mask to `Observation(observed=...)` before it is shared, leave "
                "`output` out, or let all ranks read one store "
                "(`distsep.open_observation`).",
            )
            require_place(output, "result", overwrite=overwrite, comm=comm)

    def open(self) -> None:
        """Make the store, once there are maps to write. Communication: collective."""
        if self._output is None:
            return
        kept, header, probe = self._kept, self._source.header, self._source.pixels(0)
        arrays = result_arrays(
            tuple(kept.units),
            header.stokes,
            header.nside,
            units=kept.units,
            patches={k: f(probe).shape[0] for k, f in kept.patch_of.items()},
            covariance=len(kept.covariance),
            residuals=len(header.instrument.bands) if kept.residuals else 0,
        )
        self._writer = ResultWriter(
            self._output,
            header.grid,
            arrays,
            comm=self._comm,
            overwrite=self._overwrite,
        )

    def take(self, maps: Maps) -> None:
        """Keep or write the maps of one part. Communication: none."""
        obs, kept = maps.observation, self._kept
        one = bool((kept.scale == 1).all())
        values: dict[str, np.ndarray] = {
            "cell_ids": obs.cell_ids,
            "amplitudes": maps.s if one else maps.s * kept.scale[:, None, None],
            "chi2": maps.chi2,
        }
        if maps.covariance is not None:
            c = kept.chosen
            factor = np.outer(kept.scale[c], kept.scale[c])[:, :, None]
            values["amplitude_covariance"] = maps.covariance[:, c][:, :, c] * factor
        if maps.residuals is not None:
            values["residuals"] = maps.residuals
            seen = np.isfinite(maps.residuals)
            squares = np.stack([np.where(seen, maps.residuals**2, 0.0), seen])
            starts = np.arange(0, obs.npix, obs.grid.block)
            self._squares.append(np.add.reduceat(squares, starts, axis=-1))
        for k, of in kept.patch_of.items():
            ids = of(obs)
            values[f"{k}.patch"] = np.broadcast_to(ids, (ids.shape[0], obs.npix))
        if self._source.resident:
            for name, v in values.items():
                self._maps.setdefault(name, []).append(v)
        if self._writer is None:
            return
        grid, start = obs.grid, obs.start
        for chunk in grid.whole_chunks(start, obs.npix) or ():
            first, last = grid.chunk_range(chunk)
            for name, v in values.items():
                self._writer.write(name, chunk, v[..., first - start : last - start])

    def maps(self) -> dict[str, Any]:
        """Return the fields of a result that have pixels, and what they are."""
        header, kept = self._source.header, self._kept
        restore = getattr(header, "restore", lambda x: x)

        def held(name, put=lambda x: x):
            parts = self._maps.get(name)
            if parts is None:
                return None
            out = put(parts[0] if len(parts) == 1 else np.concatenate(parts, -1))
            return out.copy() if out is parts[0] else out  # the result's own

        covariance = held("amplitude_covariance", restore)
        return {
            "amplitudes": held("amplitudes", restore),
            "chi2": held("chi2", restore),
            "residuals": held("residuals", restore),
            "amplitude_covariance": None
            if covariance is None
            else np.moveaxis(covariance, -1, 1),
            "cell_ids": held("cell_ids"),
            "patches": {
                k: np.zeros((1, 0), int) if ids is None else ids
                for k, ids in ((k, held(f"{k}.patch")) for k in kept.patch_of)
            },
            "component_names": tuple(kept.units),
            "covariance_names": kept.covariance,
            "units": {**kept.units, **kept.regional},
            "nu0": dict(kept.nu0),
            "bands": tuple(header.instrument.bands),
            "stokes": header.stokes,
            "nside": header.nside,
            "coordsys": header.coordsys,
            "polcconv": header.polcconv,
            "provenance": dict(header.provenance),
            "grid": header.grid,
            "first_pixel": getattr(header, "start", 0),
            "caller_index": getattr(header, "caller_index", None),
        }

    def residual_power(self, block_sum: Callable) -> np.ndarray | None:
        """Mean square of the residuals of every band and Stokes parameter, or NaN.

        Args:
            block_sum: Adds `(..., block)` over all blocks of all ranks.

        Communication: one allreduce, if kept.
        """
        if not self._kept.residuals:
            return None
        total = block_sum(np.concatenate(self._squares, -1))
        return np.where(total[1] > 0, total[0] / np.maximum(total[1], 1), np.nan)

    def finish(self, result: Result) -> None:
        """Complete the store. Communication: barriers."""
        if self._writer is not None:
            self._writer.complete(result)
