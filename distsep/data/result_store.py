"""Results in stores: maps chunk by chunk by every rank, the small numbers at the end.

The arrays of a kind of parameter have its name: "Dust.beta_d", "Dust.beta_d.sigma",
"Dust.beta_d.start", and "Dust.beta_d.patch" over the pixels where it has patches.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distsep.data.blocks import Grid
from distsep.data.place import require_whole_chunks
from distsep.data.plain import plain
from distsep.data.result import Result
from distsep.data.store_header import cell_ids_array, labels, sky_attributes
from distsep.data.zarr_group import GroupWriter, PixelArray
from distsep.data.zarr_header import ResultHeader
from distsep.data.zarr_reader import GroupReader
from distsep.parallel import Comm, serial

_MATRICES = ("covariance", "hessian_inverse", "fisher_inverse")
_NUMBERS = ("chi2_total", "neg_log_like", "distance")
_WORDS = (
    "names",
    "component_names",
    "covariance_names",
    "bands",
    "units",
    "nu0",
    "dof",
    "converged",
    "steps",
    "message",
    "reduced",
)
_RUN = ("seconds", "ranks", "devices")
_ENDINGS = {"parameters": "", "sigma": ".sigma", "start": ".start"}
_SKY = ("stokes", "nside", "coordsys", "polcconv", "provenance", "warnings")


class ResultWriter(GroupWriter):
    """Writes a result; see `GroupWriter`. `complete` ends it.

    Args:
        path: Directory of the store.
        grid: The block grid of the observation.
        arrays: What `result_arrays` returns, or (axes, leading lengths, type, unit)
            by name.
        attributes: Attributes known at the start.
        comm: The ranks.
        overwrite: Replace a result. Anything else is never replaced.

    Communication: collective.
    """

    def __init__(
        self,
        path: str | Path,
        grid: Grid,
        arrays: Mapping[str, Any],
        attributes: Mapping[str, Any] | None = None,
        *,
        comm: Comm | None = None,
        overwrite: bool = False,
    ) -> None:
        known = {
            name: spec if isinstance(spec, PixelArray) else PixelArray(*spec)
            for name, spec in arrays.items()
        }
        super().__init__(
            path, "result", grid, known, attributes, comm=comm, overwrite=overwrite
        )

    def complete(self, result: Result) -> None:
        """Write everything of a result that has no pixels, and the mark.

        Communication: barriers.
        """
        self.finish(*summary(result))


def result_arrays(
    components: Sequence[str],
    stokes: str,
    nside: int,
    *,
    units: Mapping[str, str],
    patches: Mapping[str, int] | None = None,
    covariance: int = 0,
    residuals: int = 0,
) -> dict[str, PixelArray]:
    """Return the arrays with pixels that a result has.

    Args:
        components: Names of the components.
        stokes: Stokes parameters.
        nside: Resolution.
        units: Unit of the amplitudes of each component.
        patches: Kinds of parameters with patches, and the length of the first axis of
            their patch maps (1, or one per Stokes parameter).
        covariance: Number of components whose amplitude covariance is kept.
        residuals: Number of bands of residual maps, if they are kept.
    """
    nc, ns = len(components), len(stokes)
    every = {units[name] for name in components}
    said = {"components": list(components), "unit_of": dict(units)}
    arrays = {
        "cell_ids": cell_ids_array(nside),
        "amplitudes": PixelArray(
            ("comp", "stokes", "cells"),
            (nc, ns),
            float,
            every.pop() if len(every) == 1 else "",
            said,
        ),
        "chi2": PixelArray(("stokes", "cells"), (ns,), float),
    }
    if covariance:
        dims = ("stokes", "chosen", "chosen_2", "cells")
        leading = (ns, covariance, covariance)
        arrays["amplitude_covariance"] = PixelArray(dims, leading, float)
    if residuals:
        dims = ("freq", "stokes", "cells")
        arrays["residuals"] = PixelArray(dims, (residuals, ns), float, "uK_CMB")
    for kind, groups in (patches or {}).items():
        dims = ("stokes" if groups == ns > 1 else "patch_group", "cells")
        arrays[f"{kind}.patch"] = PixelArray(dims, (groups,), np.int32)
    return arrays


def summary(result: Result) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the attributes and the small arrays of a result."""
    attributes = {
        **sky_attributes(result),
        **{key: plain(getattr(result, key)) for key in (*_NUMBERS, *_WORDS)},
        "global_terms": plain(result.global_terms),
        "kinds": list(result.parameters),
        "patched": list(result.patches),
        "run": {key: plain(getattr(result, key)) for key in _RUN},
    }
    small: dict[str, Any] = labels(
        comp=result.component_names, stokes=tuple(result.stokes)
    )
    if chosen := result.covariance_names:
        small |= labels(chosen=chosen, chosen_2=chosen)
    for kind, found in result.parameters.items():
        dims = (f"{kind}.patches",) if np.ndim(found) else ()
        for name, ending in _ENDINGS.items():
            small[f"{kind}{ending}"] = (
                dims,
                np.asarray(getattr(result, name)[kind]),
                "",
            )
    if result.residual_power is not None:
        power = result.residual_power
        small["residual_power"] = (("freq", "stokes"), power, "uK_CMB^2")
    for name in _MATRICES:
        if getattr(result, name) is not None:
            small |= labels(param=result.names, param_2=result.names)
            small[name] = (("param", "param_2"), getattr(result, name), "")
    return attributes, small


def save_result(
    result: Result,
    path: str | Path,
    *,
    comm: Comm | None = None,
    overwrite: bool = False,
) -> None:
    """Write a result that is in memory; every rank writes its own chunks.

    Args:
        result: Of this rank's pixels, which are whole chunks of its grid.
        path: Directory of the store.
        comm: The ranks.
        overwrite: Replace a result. Anything else is never replaced.

    Raises:
        FileExistsError: if the path exists and may not be replaced.

    Communication: collective.
    """
    comm = comm or serial()
    maps, start = pixel_maps(result), result.first_pixel
    grid = result.grid or Grid.of(maps["cell_ids"].size)
    npix = maps["cell_ids"].shape[-1]
    held = sum(comm.allgather(npix))
    if held != grid.npix:
        raise ValueError(
            f"`Result.save`: {comm.size} rank(s) hold {held} of the {grid.npix} pixels "
            "of the sky: let all ranks save it, with `comm=`."
        )
    remedy = "Those of `observation.share(comm)` and of stores are."
    require_whole_chunks("Result.save(comm=...)", grid, start, npix, comm, remedy)
    arrays = result_arrays(
        result.component_names,
        result.stokes,
        result.nside,
        units=result.units,
        patches={k: maps[f"{k}.patch"].shape[0] for k in result.patches},
        covariance=len(result.covariance_names),
        residuals=0 if result.residuals is None else len(result.residuals),
    )
    with ResultWriter(path, grid, arrays, comm=comm, overwrite=overwrite) as writer:
        for chunk in range(-(-start // grid.chunk), -(-(start + npix) // grid.chunk)):
            first, last = grid.chunk_range(chunk)
            for name in arrays:
                writer.write(name, chunk, maps[name][..., first - start : last - start])
        writer.complete(result)


def load_result(path: str | Path) -> Result:
    """Read a whole result: amplitudes in the order of `cell_ids`, ascending NEST.

    Raises:
        FileNotFoundError, ValueError: if it is no complete result.
        OSError: if a chunk is missing or truncated; the file is named.

    Communication: none.
    """
    reader = GroupReader(path)
    head = reader.header
    if not isinstance(head, ResultHeader):
        raise ValueError(f"{path} holds an {reader.kind}, not a result.")
    values = {
        name: {kind: reader.read(f"{kind}{ending}") for kind in head.kinds}
        for name, ending in _ENDINGS.items()
    }
    covariance = None
    if "amplitude_covariance" in reader.names:
        covariance = np.moveaxis(reader.read("amplitude_covariance"), -1, 1)
    return Result(
        **values,
        **{name: _optional(reader, name) for name in _MATRICES},
        **{name: _number(getattr(head, name)) for name in _NUMBERS},
        **{name: getattr(head, name) for name in (*_WORDS, *_SKY)},
        **{name: getattr(head.run, name) for name in _RUN},
        global_terms={
            name: tuple(map(_numbers, pair)) for name, pair in head.global_terms.items()
        },
        amplitudes=_optional(reader, "amplitudes"),
        amplitude_covariance=covariance,
        chi2=_optional(reader, "chi2"),
        residuals=_optional(reader, "residuals"),
        residual_power=_optional(reader, "residual_power"),
        grid=reader.grid,
        cell_ids=reader.read("cell_ids"),
        patches={kind: reader.read(f"{kind}.patch") for kind in head.patched},
    )


def pixel_maps(result: Result) -> dict[str, np.ndarray]:
    """Return the maps of a result in the order of its cells, pixels last.

    Names are those of the store; `(stokes, comp, comp, pix)` for covariances.

    Raises:
        ValueError: if the maps were streamed to a store and are not in memory.
    """
    s, chi2, cell_ids = result.amplitudes, result.chi2, result.cell_ids
    if s is None or chi2 is None or cell_ids is None:
        raise ValueError(
            "the maps of this result are not in memory, they went to its store chunk "
            "by chunk: `distsep.read` the store."
        )
    maps = {"amplitudes": s, "chi2": chi2}
    if result.amplitude_covariance is not None:
        maps["amplitude_covariance"] = np.moveaxis(result.amplitude_covariance, 1, -1)
    if result.residuals is not None:
        maps["residuals"] = result.residuals
    if result.caller_index is not None:
        maps = {name: m[..., result.caller_index] for name, m in maps.items()}
    npix = len(cell_ids)
    for kind, ids in result.patches.items():
        maps[f"{kind}.patch"] = np.broadcast_to(ids, (len(ids), npix))
    return {**maps, "cell_ids": cell_ids}


def _optional(reader: GroupReader, name: str) -> Any:
    return reader.read(name) if name in reader.names else None


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def _numbers(value: Any) -> Any:
    return np.array(value, float) if isinstance(value, list) else _number(value)
