"""What stores say of their pixels, their sphere and their noise.

The attribute `dggs` is that of the zarr DGGS convention; older readers find the same
on the array of pixel numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distsep.data.plain import plain
from distsep.data.zarr_group import PixelArray

UNIT = "uK_CMB"
PER_UNIT = "uK_CMB^-2"
NOISE_DIMS = {
    "uniform": ("freq", "stokes"),
    "pixel": ("freq", "stokes", "cells"),
    "dense": ("stokes", "freq", "freq_2"),
    "dense_pixel": ("stokes", "freq", "freq_2", "cells"),
}


_CONVENTION = {
    "name": "dggs",
    "uuid": "7b255807-140c-42ca-97f6-7a1cfecdbc38",
    "spec_url": "https://github.com/zarr-conventions/dggs/blob/v1/README.md",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/dggs/refs/tags/"
    "v1/schema.json",
}


def cell_ids_array(nside: int) -> PixelArray:
    """Return what the array of pixel numbers is; xdggs reads its attributes."""
    said = {
        "grid_name": "healpix",
        "level": int(nside).bit_length() - 1,
        "indexing_scheme": "nested",
    }
    return PixelArray(("cells",), (), np.uint64, attributes=said)


def labels(**axes: Sequence[str]) -> dict[str, tuple]:
    """Return small arrays that name the places along axes: xarray's coordinates."""
    words = np.dtypes.StringDType()
    return {axis: ((axis,), np.array(axes[axis], words), "") for axis in axes}


def sky_attributes(header: Any) -> dict[str, Any]:
    """Return the attributes that observations and results share."""
    return {
        "zarr_conventions": [_CONVENTION],
        "dggs": {
            "name": "healpix",
            "refinement_level": int(header.nside).bit_length() - 1,
            "indexing_scheme": "nested",
            "spatial_dimension": "cells",
            "coordinate": "cell_ids",
            "compression": "none",
        },
        "stokes": header.stokes,
        "coordsys": header.coordsys,
        "polcconv": header.polcconv,
        "provenance": plain(header.provenance),
        "warnings": list(header.warnings),
    }
