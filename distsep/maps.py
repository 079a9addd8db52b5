"""The maps a separation is given: of one rank or of many, in memory or in a store."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from distsep.agreement import differences, in_words
from distsep.data import healpix
from distsep.data.given_maps import checked_mask
from distsep.data.observation import Observation
from distsep.data.observation_store import one_noise
from distsep.data.source import ArraySource, StoreSource, placed
from distsep.data.stored_observation import StoredObservation


def source_of(observation: Any, observed: Any, comm: Any) -> ArraySource | StoreSource:
    """Maps in memory, or the chunks of a store that this rank owns.

    Args:
        observation: An `Observation`, of this rank's pixels, or a stored one.
        observed: True for each pixel to use, or None: of maps in memory those this rank
            was given, in their order; of a store those of the sphere, in RING order, or
            `{"map": ..., "ordering": "NEST"}`.
        comm: Ranks.

    Raises:
        TypeError, ValueError: what they are given is no observation, no mask, or not
            the parts of one data set.

    Communication: a few allgathers, of maps in memory.
    """
    if not isinstance(observation, Observation | StoredObservation):
        raise TypeError(
            "`separate(observation=...)`: expected `distsep.Observation(maps, ...)` or "
            f"`distsep.open_observation(path)`, got {type(observation).__name__}."
        )
    if observed is not None:
        observed = _mask(observed, observation)
    if not isinstance(observation, Observation):
        first, last = observation.grid.rank_chunks(comm.rank, comm.size)
        return StoreSource(observation, first, last, observed, comm.size)
    _require_one_sky(observation, comm)
    if comm.size == 1 and observation.is_share:
        raise ValueError(
            f"`separate(observation=...)`: these are {observation.npix} of the "
            f"{observation.grid.npix} pixels of a data set, the share of one of "
            "several ranks, and this is one process: give "
            "`comm=distsep.parallel.world()`, or the whole observation."
        )
    # Before a mask: whether they are the ranks' own pixels is then still known.
    observation = observation.replace(noise=one_noise(observation, comm))
    if observed is not None:
        own = observation.caller_index
        own = observation.cell_ids if own is None else own
        observation = observation.used(observed[own])
    npix = comm.allgather(observation.npix)
    if not sum(npix):
        raise ValueError("`separate(observation=...)`: no pixel is observed.")
    cells = observation.cell_ids
    ends = [(int(cells[0]), int(cells[-1]))] if len(cells) else []
    spans = [(r, *end) for r, rank in enumerate(comm.allgather(ends)) for end in rank]
    for (r, a, b), (q, first, last) in zip(spans, spans[1:], strict=False):
        if b >= first:
            raise ValueError(
                f"`separate(comm=...)`: rank {r} holds NEST pixels {a} to {b}, rank "
                f"{q} {first} to {last}: expected ranges that ascend with the rank and "
                "do not overlap, as a cut in RING order does. Take a rank's part of "
                "maps that all have (`observation.share(comm)`), cut the sky by NEST "
                "numbers (`cell_ids=`, `ordering='NEST'`), or let all ranks read one "
                "store (`distsep.open_observation`)."
            )
    return ArraySource(placed(observation, comm.rank, npix))


def _mask(observed: Any, observation: Observation | StoredObservation) -> np.ndarray:
    """A mask of the caller's pixels; or of the sphere, in NEST order."""
    if isinstance(observation, Observation) and observation.caller_npix is not None:
        return checked_mask("separate", observed, observation.caller_npix)
    ordering = "RING"
    if isinstance(observed, Mapping):
        if "map" not in observed or not set(observed) <= {"map", "ordering"}:
            raise ValueError(
                "`separate(observed=...)`: expected {'map': ..., 'ordering': 'NEST'}, "
                f"got the keys {', '.join(map(repr, observed))}."
            )
        ordering, observed = observed.get("ordering", "RING"), observed["map"]
    nside = observation.nside
    of = f"the sphere of nside {nside}"
    mask = checked_mask("separate", observed, 12 * nside**2, of)
    return healpix.reorder(mask, healpix.check_ordering(ordering), "NEST")


def _require_one_sky(observation: Observation, comm: Any) -> None:
    """Refuse ranks that hold parts of different skies. Communication: an allgather."""
    what = {
        "nside": observation.nside,
        "stokes": observation.stokes,
        "coordsys": observation.coordsys,
        **observation.instrument.spectral,
        "bandpass": observation.instrument.bandpass,  # arrays have few words
    }
    words = {name: in_words(value) for name, value in what.items()}
    for name, rank, other, first in differences(comm, words):
        raise ValueError(
            f"`separate(observation=..., comm=...)`: rank {rank} has {name} {other}, "
            f"rank 0 has {first}: expected parts of one data set."
        )
