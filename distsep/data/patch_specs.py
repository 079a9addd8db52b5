"""Patches of a parameter: from what the user wrote to the patch of every pixel."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distsep.data.observation import Observation
from distsep.data.patches import kmeans_patches, map_patches, nside_patches

PatchOf = Callable[[Observation], np.ndarray]


def resolve_patches(
    spec: Any, name: str, source: Any, comm: Any
) -> tuple[int, PatchOf | None]:
    """Number of patches, and the function that gives those of a part's pixels.

    Args:
        spec: None or 0: one value; an nside; an integer map on the caller's pixels or
            the whole sphere (RING); or one of the mappings `{"nside": n}`,
            `{"kmeans": n, "seed": 0}`, `{"map": ids, "ordering": "RING"}`,
            `{"stokes": ["I", "QU"]}` (its own value for each group of letters).
        name: Of the parameter, for messages.
        source: Parts of the maps of this rank.
        comm: Ranks.

    Returns:
        The number, and `observation -> (stokes or 1, pix)` integers, -1 = not used;
        None where there is one patch for all.

    Raises:
        ValueError: no such specification, or a map of another length.

    Communication: for K-means as `kmeans_patches`; for maps one allgather of a number.
    """
    if spec is None or (np.isscalar(spec) and spec == 0):
        return 1, None
    if isinstance(spec, int | np.integer):
        spec = {"nside": int(spec)}
    header = source.header
    if not isinstance(spec, Mapping):
        ids = np.asarray(spec)
        own = getattr(header, "caller_npix", None)
        spec = {"pixels": ids} if ids.shape[-1:] == (own,) else {"map": ids}
    if "nside" in spec:
        return _cells(int(spec["nside"]), name, header.nside)
    if "kmeans" in spec:
        return _clusters(spec, source, comm)
    if "stokes" in spec:
        return _stokes_groups(spec["stokes"], name, header.stokes)
    if "pixels" in spec:
        return _pixels(np.asarray(spec["pixels"]), name, header, comm)
    if "map" in spec:
        whole = np.asarray(spec["map"])
        number = int(np.nanmax(whole, initial=-1)) + 1

        def of(obs):
            ids = map_patches(
                whole,
                obs.nside,
                obs.cell_ids,
                ordering=spec.get("ordering", "RING"),
                name=name,
            )
            return ids[None]

        return max(number, 1), of
    raise ValueError(
        f"`separate(patches={{{name!r}: {dict(spec)!r}}})`: expected an nside, an "
        "integer map, or one of the keys nside, map, kmeans, stokes."
    )


def _cells(coarse: int, name: str, nside: int) -> tuple[int, PatchOf]:
    if coarse > nside or coarse < 1 or coarse & (coarse - 1):
        raise ValueError(
            f"`separate(patches={{{name!r}: {coarse}}})`: expected an nside, a power "
            f"of two of at most {nside}, that of the maps."
        )
    number = 12 * coarse**2
    return number, lambda obs: nside_patches(obs.nside, obs.cell_ids, coarse)[
        None
    ].astype(np.int64)


def _clusters(spec, source, comm) -> tuple[int, PatchOf]:
    parts = [source.pixels(i) for i in range(source.number)]
    cells = np.concatenate([p.cell_ids for p in parts])
    n = int(spec["kmeans"])
    seed = int(spec.get("seed", 0))
    ids = kmeans_patches(source.header.nside, cells, n, seed=seed, comm=comm)
    first = parts[0].start
    return n, lambda obs: ids[None, obs.start - first :][:, : len(obs.cell_ids)]


def _stokes_groups(spec, name, stokes) -> tuple[int, PatchOf]:
    groups = [set(g) for g in spec]
    where = [[i for i, g in enumerate(groups) if s in g] for s in stokes]
    if any(len(w) != 1 for w in where):
        raise ValueError(
            f"`separate(patches={{{name!r}: {{'stokes': {list(spec)}}}}})`: expected "
            f"each of {', '.join(stokes)} in one group."
        )
    ids = np.array(where, np.int64)
    return len(groups), lambda _: ids


def _pixels(ids, name, header, comm) -> tuple[int, PatchOf]:
    if ids.dtype.kind not in "iu" or ids.ndim > 2:
        raise ValueError(
            f"`separate(patches={{{name!r}: ...}})` must be integers (pix,) or "
            f"(stokes, pix), -1 = not used; got {ids.dtype}, shape {ids.shape}."
        )
    own = np.maximum(np.atleast_2d(ids)[:, header.caller_index].astype(np.int64), -1)
    number = max(comm.allgather(int(own.max(initial=-1)))) + 1
    return max(number, 1), lambda _: own


def resolve_regions(
    spec: Any, name: str, nstokes: int, source: Any, comm: Any
) -> tuple[int, PatchOf | None]:
    """Like `resolve_patches`, with regions of its own for each Stokes parameter.

    Returns:
        The number of regions times that of Stokes parameters, and the function.
    """
    number, of = resolve_patches(spec, name, source, comm)
    if nstokes == 1:
        return number, of
    first = number * np.arange(nstokes)[:, None]

    def ids(obs):
        own = np.zeros((1, 1), np.int64) if of is None else of(obs)
        return np.where(own < 0, -1, own + first)

    return number * nstokes, ids
