"""Patches of a parameter: from what the user wrote to the patch of every pixel."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distsep.data.observation import Observation
from distsep.data.patches import (
    checked_ids,
    kmeans_patches,
    map_patches,
    nside_patches,
)
from distsep.model.mistakes import InputError

PatchOf = Callable[[Observation], np.ndarray]
Patches = tuple[int, PatchOf | None]
"""Number of patches, and the function that gives those of a part's pixels,
`observation -> (stokes or 1, pix)` integers, -1 = not used; None: one patch for all."""


class Spec(NamedTuple):
    """Patches as one rank knows them, before the ranks have spoken.

    Attributes:
        where: What they are of, for messages.
        number: Patches; of an integer map on the pixels of a rank, those it has.
        of: The function, or None.
        kmeans: Seed of K-means, which is run when all is known to be right; or None.
        groups: Group of each Stokes parameter, where each has values of its own.
        by_stokes: Whether Stokes parameters may have different patches.
    """

    where: str
    number: int = 1
    of: PatchOf | None = None
    kmeans: int | None = None
    groups: tuple[int, ...] = (0,)
    by_stokes: bool = False

    @property
    def total(self) -> int:
        """Patches, those of all groups of Stokes parameters together."""
        return self.number * (max(self.groups) + 1)


def read_patches(spec: Any, where: str, header: Any) -> Spec:
    """Read what the user wrote about the patches of a parameter.

    Args:
        spec: None or 0: one value; an nside, whose cells are numbered in NEST, those
            without data too; an integer map on the caller's pixels or the whole
            sphere (RING); or one of the mappings `{"nside": n}`,
            `{"kmeans": n, "seed": 0}`, `{"map": ids, "ordering": "RING"}`,
            `{"stokes": ["I", "QU"]}`, alone or together with one of the others:
            values of its own for each group of letters, those of the first group first.
        where: What they are of, for messages.
        header: Of the maps of this rank.

    Raises:
        InputError: no such specification, or a map of another length.

    Communication: none.
    """
    if spec is None or (is_whole(spec) and spec == 0):
        return Spec(where)
    try:
        return _read(spec, where, header)
    except ValueError as error:
        raise InputError("separate(...)", str(error)) from None


def agree(
    specs: Mapping[str, Spec], source: Any, comm: Any, wrong: list[str]
) -> dict[str, Spec]:
    """Bring the specifications of all ranks to the same numbers of patches.

    Args:
        specs: By name; a rank may lack those that it found wrong.
        source: Parts of the maps of this rank.
        comm: Ranks.
        wrong: Takes what only all ranks together can tell.

    Communication: one allgather of a number per name.
    """
    clustered = any(spec.kmeans is not None for spec in specs.values())
    npix = int(source.used(_cell_ids(source)).sum()) if clustered else 0
    every = comm.allgather((npix, {name: spec.number for name, spec in specs.items()}))
    total = sum(n for n, _ in every)
    agreed = {}
    for name, spec in specs.items():
        number = max(numbers.get(name, 0) for _, numbers in every)
        agreed[name] = spec._replace(number=number)
        if number == 0:
            wrong.append(f"{spec.where} is -1 in every observed pixel: none is used")
        if spec.kmeans is not None and number > total:
            wrong.append(
                f"{spec.where} expected between 1 and {total} K-means patches "
                f"(observed pixels), got {number}"
            )
    return agreed


def make_patches(spec: Spec, source: Any, comm: Any) -> Patches:
    """Make the patches of a specification that all ranks agree on.

    Communication: for K-means as `kmeans_patches`; otherwise none.
    """
    if spec.kmeans is None:
        return grouped((spec.number, spec.of), spec.groups)
    cells, first = _cell_ids(source), source.pixels(0).start
    used, nside = source.used(cells), source.header.nside
    ids = np.full(len(cells), -1, np.int64)
    ids[used] = kmeans_patches(
        nside, cells[used], spec.number, seed=spec.kmeans, comm=comm
    )

    def of(obs):
        return ids[None, obs.start - first :][:, : len(obs.cell_ids)]

    return grouped((spec.number, of), spec.groups)


def _cell_ids(source: Any) -> np.ndarray:
    """NEST numbers of the pixels of all parts of a rank."""
    return np.concatenate([source.pixels(i).cell_ids for i in range(source.number)])


def grouped(patches: Patches, groups: Sequence[int]) -> Patches:
    """Give each group of Stokes parameters patches of its own, one after another.

    Args:
        patches: Those of one group.
        groups: Group of each Stokes parameter.
    """
    number, of = patches
    first = number * np.array(groups, np.int64)[:, None]
    if not first.any():
        return number, of

    def ids(obs):
        own = np.zeros((1, 1), np.int64) if of is None else of(obs)
        return np.where(own < 0, -1, own + first)

    return number * (max(groups) + 1), ids


_EXTRA = {"nside": (), "map": ("ordering",), "kmeans": ("seed",)}
_KEYS = "nside, map, kmeans or stokes"


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
                f"the keys {_KEYS}, got {spec!r}."
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
    known = {"stokes", *kinds, *(key for kind in kinds for key in _EXTRA[kind])}
    if len(kinds) > 1 or not spec or set(spec) - known:
        raise ValueError(
            f"{where} expected one of the keys {_KEYS} (`ordering` goes with map, "
            f"`seed` with kmeans, stokes with any), got "
            f"{', '.join(map(str, spec)) or 'none'}."
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


def _read(spec: Any, where: str, header: Any) -> Spec:
    spec = _checked(spec, where, header)
    read = Spec(where)
    if "nside" in spec:
        read = _cells(spec["nside"], where, header.nside)
    elif "kmeans" in spec:
        read = Spec(where, int(spec["kmeans"]), kmeans=int(spec.get("seed", 0)))
    elif "pixels" in spec:
        read = _pixels(spec["pixels"], where, header)
    elif "map" in spec:
        read = _sphere(spec, where, header)
    if "stokes" in spec:
        groups = _stokes_groups(spec["stokes"], where, header.stokes)
        read = read._replace(groups=groups, by_stokes=True)
    return read


def _cells(coarse: int, where: str, nside: int) -> Spec:
    if coarse > nside or coarse < 1 or coarse & (coarse - 1):
        raise ValueError(
            f"{where} expected an nside, a power of two of at most {nside}, that of "
            f"the maps; got {coarse}."
        )

    def of(obs):
        cells = nside_patches(obs.nside, obs.cell_ids, coarse)
        return cells[None].astype(np.int64)

    return Spec(where, 12 * coarse**2, of)


def _stokes_groups(spec, where, stokes) -> tuple[int, ...]:
    listed = isinstance(spec, list | tuple) and all(isinstance(g, str) for g in spec)
    groups = [set(g) for g in spec] if listed else []
    found = [[i for i, g in enumerate(groups) if s in g] for s in stokes]
    if any(len(w) != 1 for w in found):
        raise ValueError(
            f"{where} expected `stokes` to be a list of words with each of "
            f"{', '.join(stokes)} in one of them, got {spec!r}."
        )
    return tuple(group for (group,) in found)


def _pixels(ids, where, header) -> Spec:
    rows = (1, len(header.stokes))
    if ids.ndim > 2 or (ids.ndim == 2 and len(ids) not in rows):
        raise ValueError(
            f"{where} expected integers (pix,) or (stokes, pix) = ({rows[1]}, "
            f"{header.caller_npix}), got shape {ids.shape}."
        )
    own = np.atleast_2d(ids)[:, header.caller_index]
    number = int(ids.max(initial=-1)) + 1  # those without data have no parameter
    return Spec(where, number, lambda _: own, by_stokes=len(own) > 1)


def _sphere(spec, where, header) -> Spec:
    whole, ordering = spec["map"], spec.get("ordering", "RING")
    if str(ordering).upper() not in ("RING", "NEST", "NESTED"):
        raise ValueError(
            f'{where} expected `ordering` to be "RING" or "NEST", got {ordering!r}.'
        )
    sizes = [12 * 4**k for k in range(int(header.nside).bit_length())]
    if whole.ndim != 1 or len(whole) not in sizes:
        own = getattr(header, "caller_npix", None)
        raise ValueError(
            f"{where} expected a map (pix,) of a whole sphere, of nside {header.nside} "
            f"or coarser{f', or of the {own} pixels of the maps' if own else ''}, got "
            f"shape {whole.shape}{_nside_of(whole.shape[-1])}."
        )

    def of(obs):
        return map_patches(whole, obs.nside, obs.cell_ids, ordering=ordering)[None]

    return Spec(where, int(whole.max()) + 1, of)


def _nside_of(npix: int) -> str:
    """In words, the nside of a sphere of so many pixels."""
    nside = round((npix / 12) ** 0.5)
    return f", nside {nside}" if 12 * nside**2 == npix and npix else ""
