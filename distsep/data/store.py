"""Stores: observations and results on disk, as zarr v3 that xarray and xdggs open.

The names that the rest of the package uses; the work is in data/observation_store.py,
data/stored_observation.py and data/result_store.py. data/zarr_group.py writes zarr,
data/zarr_reader.py reads it, data/zarr_header.py is what a header holds.
"""

from pathlib import Path

from distsep.data.observation import Observation
from distsep.data.observation_store import ObservationWriter, save_observation
from distsep.data.place import require_place
from distsep.data.result import Result
from distsep.data.result_store import (
    ResultWriter,
    load_result,
    result_arrays,
    save_result,
    summary,
)
from distsep.data.stored_observation import StoredObservation
from distsep.data.zarr_header import Truth
from distsep.data.zarr_reader import GroupReader

__all__ = [
    "ObservationWriter",
    "ResultWriter",
    "StoredObservation",
    "Truth",
    "open_observation",
    "read",
    "require_place",
    "result_arrays",
    "save_observation",
    "save_result",
    "summary",
]


def open_observation(path: str | Path) -> StoredObservation:
    """Open an observation; no pixel is read yet. See `StoredObservation`."""
    return StoredObservation(path)


def read(path: str | Path) -> Observation | Result:
    """Read a whole store, an observation or a result, into this process.

    Raises:
        FileNotFoundError, ValueError: if it is no complete store of distsep.
        OSError: if a chunk is missing or truncated; the file is named.

    Communication: none.
    """
    if GroupReader(path).kind == "result":
        return load_result(path)
    return open_observation(path).read()
