"""What becomes of the maps of a run: kept in memory, or written chunk by chunk."""

from pathlib import Path
from typing import Any

import numpy as np

from distsep.data.result import Result
from distsep.data.store import ResultWriter, result_arrays
from distsep.inference.amplitudes import Maps


class Keeper:
    """Takes the maps of the second pass, part by part.

    Where the data are in memory the maps are too; with `output` every rank writes its
    own chunks, and the mark of completeness comes last.

    Args:
        source: Parts of the maps of this rank.
        mixing: Mixing matrix.
        where: For each kind the number of its patches and their function.
        output: Directory of the result store, or None.
        overwrite: Replace an existing result.
        comm: Ranks.

    Communication: collective, with `output`.
    """

    def __init__(
        self, source, mixing, where, *, output: str | Path | None, overwrite, comm
    ):
        self._source, self._mixing = source, mixing
        self._patch_of = {
            k: f for k, (_, f) in zip(mixing.names, where, strict=True) if f is not None
        }
        header = source.header
        self.units = dict(
            zip(mixing.component_names, mixing.amplitude_units, strict=True)
        )
        self._s, self._chi2, self._ids, self._patches = [], [], [], []
        self._writer = None
        if output is not None:
            probe = source.pixels(0)
            arrays = result_arrays(
                mixing.component_names,
                header.stokes,
                header.nside,
                units=self.units,
                patches={k: f(probe).shape[0] for k, f in self._patch_of.items()},
            )
            self._writer = ResultWriter(
                output, header.grid, arrays, comm=comm, overwrite=overwrite
            )

    def take(self, maps: Maps) -> None:
        """Keep or write the maps of one part. Communication: none."""
        obs = maps.observation
        patches = {
            k: np.broadcast_to(f(obs), (f(obs).shape[0], obs.npix))
            for k, f in self._patch_of.items()
        }
        if self._source.resident:
            self._s.append(maps.s)
            self._chi2.append(maps.chi2)
            self._ids.append(obs.cell_ids)
            self._patches.append(patches)
        if self._writer is None:
            return
        values = {"cell_ids": obs.cell_ids, "amplitudes": maps.s, "chi2": maps.chi2}
        values |= {f"{k}.patch": v for k, v in patches.items()}
        grid, start = obs.grid, obs.start
        for chunk in range(start // grid.chunk, -(-(start + obs.npix) // grid.chunk)):
            first, last = grid.chunk_range(chunk)
            for name, v in values.items():
                self._writer.write(name, chunk, v[..., first - start : last - start])

    def maps(self) -> dict[str, Any]:
        """Return the fields of a result that have pixels, and what they are."""
        header = self._source.header
        restore = getattr(header, "restore", lambda x: x)
        known = self._source.resident
        patches = (
            {
                k: np.concatenate([p[k] for p in self._patches], -1)
                for k in self._patch_of
            }
            if known
            else {k: np.zeros((1, 0), int) for k in self._patch_of}
        )
        return dict(
            amplitudes=restore(np.concatenate(self._s, -1)) if known else None,
            chi2=restore(np.concatenate(self._chi2, -1)) if known else None,
            amplitude_covariance=None,
            cell_ids=np.concatenate(self._ids) if known else None,
            patches=patches,
            component_names=self._mixing.component_names,
            units=self.units,
            bands=tuple(header.instrument.bands),
            stokes=header.stokes,
            nside=header.nside,
            coordsys=header.coordsys,
            polcconv=header.polcconv,
            provenance=dict(header.provenance),
            grid=header.grid,
            first_pixel=getattr(header, "start", 0),
            caller_index=getattr(header, "caller_index", None),
        )

    def finish(self, result: Result) -> None:
        """Complete the store. Communication: barriers."""
        if self._writer is not None:
            self._writer.complete(result)
