"""From an observation and a mixing matrix to pools, layout and parameters.

Everything about the run that does not change while it runs. The ranks come in as the
function `allgather`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from distsep.data.layout import Layout, PieceSum, Pools, make_layout, make_pools
from distsep.data.observation import Observation
from distsep.data.patches import kmeans_patches, map_patches, nside_patches
from distsep.data.samples import NoiseClasses, noise_classes, rows


class Samples(NamedTuple):
    """The samples of this rank, numbered and laid out.

    Attributes:
        used: `(group, pix)` True where a sample enters.
        seen: Number of bands of all used samples, all of this rank.
        classes: Noise classes.
        pools: Pools.
        layout: Lanes and tiles.
        tile_class: `(block, tile)` noise class.
        pieces: The sum over blocks and ranks.
        pool_rows: Samples in each pool, this rank.
    """

    used: np.ndarray
    seen: int
    few: int
    classes: NoiseClasses
    pools: Pools
    layout: Layout
    tile_class: np.ndarray
    pieces: PieceSum


def make_samples(
    obs: Observation, patch_ids, ncolumn: int, joint: bool, allgather: Callable
) -> Samples:
    """Decide which samples are used, number their pools and lay them out.

    Args:
        obs: Observation of this rank.
        patch_ids: For each kind its patch on `(group, pix)` or broadcastable.
        ncolumn: Amplitudes per sample; a sample with fewer bands is not used.
        joint: Whether Stokes parameters are fitted jointly.
        allgather: `x -> [x of every rank]`.

    Communication: a few allgathers of pools and patterns; none of pixels.
    """
    observed = rows(~np.isnan(obs.d), joint)
    number = observed.sum(0)
    used = number >= max(ncolumn, 1)
    few = int((~used).sum())
    classes = noise_classes(obs.noise, observed, joint, allgather)
    pools = make_pools(patch_ids, classes.sample, used, allgather)
    layout = make_layout(pools.sample, obs.grid.block, allgather)
    pieces = PieceSum(layout, pools.number, allgather)
    used = pools.sample >= 0
    return Samples(
        used,
        int(number[used].sum()),
        few,
        classes,
        pools,
        layout,
        pools.noise_class[layout.pool] if pools.number else layout.pool,
        pieces,
    )


def resolve_patches(
    spec: Any, name: str, obs: Observation, comm: Any
) -> tuple[np.ndarray | None, int]:
    """Patch of every local pixel, and the number of patches.

    Args:
        spec: None or 0: one value; an nside; an integer map on the caller's pixels or
            the whole sphere (RING); or one of the mappings `{"nside": n}`,
            `{"kmeans": n, "seed": 0}`, `{"map": ids, "ordering": "RING"}`,
            `{"stokes": ["I", "QU"]}` (its own value for each group of letters).
        name: Of the parameter, for messages.
        obs: Observation of this rank.
        comm: Ranks, or None.

    Returns:
        `(stokes or 1, pix)` integers, -1 = not used, or None where there is one patch.

    Raises:
        ValueError: no such specification, or a map of another length.

    Communication: for K-means as `kmeans_patches`; else one allgather of a number.
    """
    allgather = (lambda x: [x]) if comm is None else comm.allgather
    if spec is None or (np.isscalar(spec) and spec == 0):
        return None, 1
    if isinstance(spec, int | np.integer):
        spec = {"nside": int(spec)}
    if not isinstance(spec, Mapping):
        ids = np.asarray(spec)
        spec = {"pixels": ids} if ids.shape[-1:] == (obs.caller_npix,) else {"map": ids}
    if "nside" in spec:
        coarse = int(spec["nside"])
        if coarse > obs.nside:
            raise ValueError(
                f"`separate(patches={{{name!r}: {coarse}}})`: expected an nside of at "
                f"most {obs.nside}, that of the maps."
            )
        return nside_patches(obs.nside, obs.cell_ids, coarse)[None].astype(
            int
        ), 12 * coarse**2
    if "kmeans" in spec:
        n = int(spec["kmeans"])
        ids = kmeans_patches(
            obs.nside, obs.cell_ids, n, seed=int(spec.get("seed", 0)), comm=comm
        )
        return ids[None], n
    if "stokes" in spec:
        groups = [set(g) for g in spec["stokes"]]
        where = [[i for i, g in enumerate(groups) if s in g] for s in obs.stokes]
        if any(len(w) != 1 for w in where):
            raise ValueError(
                f"`separate(patches={{{name!r}: {dict(spec)!r}}})`: expected each of "
                f"{', '.join(obs.stokes)} in one group."
            )
        return np.array(where, int), len(groups)
    if "pixels" in spec:
        ids = np.asarray(spec["pixels"])
        if ids.dtype.kind not in "iu" or ids.ndim > 2:
            raise ValueError(
                f"`separate(patches={{{name!r}: ...}})` must be integers (pix,) or "
                f"(stokes, pix), -1 = not used; got {ids.dtype}, shape {ids.shape}."
            )
        ids = np.atleast_2d(ids)[:, obs.caller_index].astype(int)
    elif "map" in spec:
        ids = map_patches(
            np.asarray(spec["map"]),
            obs.nside,
            obs.cell_ids,
            ordering=spec.get("ordering", "RING"),
            name=name,
        )[None]
    else:
        raise ValueError(
            f"`separate(patches={{{name!r}: {dict(spec)!r}}})`: expected an nside, an "
            "integer map, or one of the keys nside, map, kmeans, stokes."
        )
    return ids, max(allgather(int(ids.max(initial=-1)))) + 1
