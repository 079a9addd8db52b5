"""Patches of a parameter: from what the user wrote to the patch of every pixel."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distsep.data import healpix
from distsep.data.observation import Observation
from distsep.data.patches import (
    checked_ids,
    kmeans_patches,
    map_patches,
    nside_patches,
)

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
    if spec is None or (is_whole(spec) and spec == 0):
        return 1, None
    header, where = source.header, f"`separate(patches={{{name!r}: ...}})`"
    spec = _checked(spec, where, header)
    if "nside" in spec:
        return _cells(spec["nside"], name, header.nside)
    if "kmeans" in spec:
        return _clusters(spec, where, source, comm)
    if "stokes" in spec:
        return _stokes_groups(spec["stokes"], where, header.stokes)
    if "pixels" in spec:
        return _pixels(spec["pixels"], where, header, comm)
    return _sphere(spec, where, header)


_EXTRA = {"nside": (), "map": ("ordering",), "kmeans": ("seed",), "stokes": ()}


def is_whole(value: Any) -> bool:
    """Whether a value is one integer; True and 2.0 are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _checked(spec: Any, where: str, header: Any) -> Mapping[str, Any]:
    """Return what was written as a mapping whose values are of the right kind."""
    if is_whole(spec):
        return {"nside": int(spec)}
    if not isinstance(spec, Mapping):
        if not isinstance(spec, list | tuple) and np.ndim(spec) == 0:
            raise ValueError(
                f"{where} expected an integer (an nside), an integer map, or one of "
                f"the keys {', '.join(_EXTRA)}, got {spec!r}."
            )
        ids = checked_ids(spec, where, 12 * header.nside**2)
        own = getattr(header, "caller_npix", None)
        if ids.shape[-1:] != (own,):
            return {"map": ids}
        dtype = np.asarray(spec).dtype
        if dtype.kind == "f":
            raise ValueError(
                f"{where} must be integers (pix,) or (stokes, pix), -1 = not used; got "
                f"{dtype}."
            )
        return {"pixels": ids}
    kinds = [key for key in _EXTRA if key in spec]
    known = kinds and {kinds[0], *_EXTRA[kinds[0]]}
    if len(kinds) != 1 or set(spec) - set(known):
        raise ValueError(
            f"{where} expected one of the keys {', '.join(_EXTRA)} (`ordering` goes "
            f"with map, `seed` with kmeans), got {', '.join(map(str, spec)) or 'none'}."
        )
    for key, least in (("nside", 1), ("kmeans", 1), ("seed", 0)):
        if key in spec and not (is_whole(spec[key]) and spec[key] >= least):
            raise ValueError(
                f"{where} expected `{key}` to be an integer of at least {least}, got "
                f"{spec[key]!r}."
            )
    if "map" in spec:
        spec = {**spec, "map": checked_ids(spec["map"], where, 12 * header.nside**2)}
    return spec


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


def _clusters(spec, where, source, comm) -> tuple[int, PatchOf]:
    parts = [source.pixels(i) for i in range(source.number)]
    cells = np.concatenate([p.cell_ids for p in parts])
    n = int(spec["kmeans"])
    seed = int(spec.get("seed", 0))
    nside = source.header.nside
    ids = kmeans_patches(nside, cells, n, seed=seed, comm=comm, name=where)
    first = parts[0].start
    return n, lambda obs: ids[None, obs.start - first :][:, : len(obs.cell_ids)]


def _stokes_groups(spec, where, stokes) -> tuple[int, PatchOf]:
    listed = isinstance(spec, list | tuple) and all(isinstance(g, str) for g in spec)
    groups = [set(g) for g in spec] if listed else []
    found = [[i for i, g in enumerate(groups) if s in g] for s in stokes]
    if any(len(w) != 1 for w in found):
        raise ValueError(
            f"{where} expected `stokes` to be a list of words with each of "
            f"{', '.join(stokes)} in one of them, got {spec!r}."
        )
    ids = np.array(found, np.int64)
    return len(groups), lambda _: ids


def _pixels(ids, where, header, comm) -> tuple[int, PatchOf]:
    rows = (1, len(header.stokes))
    if ids.ndim > 2 or (ids.ndim == 2 and len(ids) not in rows):
        raise ValueError(
            f"{where} expected integers (pix,) or (stokes, pix) = ({rows[1]}, "
            f"{header.caller_npix}), got shape {ids.shape}."
        )
    own = np.atleast_2d(ids)[:, header.caller_index]
    number = max(comm.allgather(int(own.max(initial=-1)))) + 1
    if number == 0:
        raise ValueError(f"{where} is -1 in every observed pixel: none is used.")
    return number, lambda _: own


def _sphere(spec, where, header) -> tuple[int, PatchOf]:
    whole, ordering = spec["map"], spec.get("ordering", "RING")
    healpix.check_ordering(ordering, f"{where[1:-1]}: ordering")
    sizes = [12 * 4**k for k in range(int(header.nside).bit_length())]
    if whole.ndim != 1 or len(whole) not in sizes:
        own = getattr(header, "caller_npix", None)
        raise ValueError(
            f"{where} expected a map (pix,) of a whole sphere, of nside {header.nside} "
            f"or coarser{f', or of the {own} pixels of the maps' if own else ''}, got "
            f"shape {whole.shape}."
        )
    number = int(whole.max()) + 1
    if number == 0:
        raise ValueError(f"{where} is -1 in every pixel: none is used.")

    def of(obs):
        return map_patches(whole, obs.nside, obs.cell_ids, ordering=ordering)[None]

    return number, of


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
