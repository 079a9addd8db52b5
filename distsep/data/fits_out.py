"""FITS maps written: files that healpy and astropy read, and that say what they hold.

No choice of what to write here: the caller names the columns and their units.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from distsep.data import healpix
from distsep.data.place import aside


def write_maps(
    path: str | Path,
    maps: Shaped[np.ndarray, "column pix"],
    *,
    names: Sequence[str],
    units: Sequence[str],
    nside: int,
    coordsys: str,
    ordering: str = "NEST",
    cell_ids: Shaped[np.ndarray, " pix"] | None = None,
    polcconv: str = "COSMO",
    cards: Mapping[str, Any] | None = None,
    partial: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write maps as the columns of one FITS file, in RING order.

    Args:
        path: File to write.
        maps: One map per column, floats or integers. NaN is written as UNSEEN, which
            BAD_DATA names.
        names: TTYPEn, all different.
        units: TUNITn; "" for none.
        nside: Resolution.
        coordsys: "G", "C" or "E".
        ordering: Ordering of `maps` and of `cell_ids`.
        cell_ids: Numbers of the pixels; None: `maps` is the whole sphere.
        polcconv: "COSMO" or "IAU", as `maps` is; nothing is turned.
        cards: More of the header.
        partial: Write only the pixels of `cell_ids`, with a PIXEL column, instead of
            the whole sphere.
        overwrite: Replace an existing file.

    Returns:
        The path written.

    Raises:
        FileExistsError: if the file exists and is not to be overwritten.
        ValueError: if the columns cannot be told apart or do not fit the pixels.
    """
    from astropy.io import fits

    path = Path(path)
    _check(path, maps, names, units, coordsys, polcconv, overwrite)
    order = healpix.check_ordering(ordering)
    size = 12 * healpix.check_nside(nside) ** 2
    if cell_ids is None and maps.shape[1] != size:
        raise ValueError(
            f"`write_maps(maps=...)` has {maps.shape[1]} pixels, the sphere at nside "
            f"{nside} has {size}: give `cell_ids`."
        )
    ids = np.arange(size) if cell_ids is None else np.asarray(cell_ids, np.int64)
    ring = ids if order == "RING" else healpix.nest_to_ring(nside, ids)
    known = maps
    if maps.dtype.kind == "f":
        known = np.where(np.isfinite(maps), maps, maps.dtype.type(healpix.UNSEEN))
    if partial:
        ascending = np.argsort(ring)
        table = [("PIXEL", "", ring[ascending])]
        table += zip(names, units, known[:, ascending], strict=True)
        scheme = [("INDXSCHM", "EXPLICIT"), ("OBJECT", "PARTIAL")]
        scheme += [("OBS_NPIX", len(ring)), ("GRAIN", 1)]
    else:
        empty = healpix.UNSEEN if maps.dtype.kind == "f" else -1
        whole = np.full((len(maps), size), empty, maps.dtype)
        whole[:, ring] = known
        table = list(zip(names, units, whole, strict=True))
        scheme = [("INDXSCHM", "IMPLICIT"), ("OBJECT", "FULLSKY")]
        scheme += [("FIRSTPIX", 0), ("LASTPIX", size - 1)]
    hdu = fits.BinTableHDU.from_columns([_column(*one, not partial) for one in table])
    for card, value in [
        ("PIXTYPE", "HEALPIX"),
        ("ORDERING", "RING"),
        ("NSIDE", nside),
        ("COORDSYS", coordsys),
        ("POLCCONV", polcconv),
        ("BAD_DATA", healpix.UNSEEN),
        *scheme,
        ("CREATOR", "distsep"),
        *(cards or {}).items(),
    ]:
        hdu.header[card] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as new:
        hdu.writeto(new, overwrite=True)
    return path


def _column(name: str, unit: str, samples: np.ndarray, whole: bool):
    """Return a column; of a whole sphere 1024 samples a row, as HEALPix does."""
    from astropy.io import fits

    code = {"f4": "E", "f8": "D", "i2": "I", "i4": "J", "i8": "K"}
    letter = code[samples.dtype.str[1:]]
    rows = samples
    if whole and len(samples) % 1024 == 0:
        letter, rows = f"1024{letter}", samples.reshape(-1, 1024)
    return fits.Column(name=name, format=letter, unit=unit or None, array=rows)


def _check(path, maps, names, units, coordsys, polcconv, overwrite) -> None:
    """Refuse what could not be read back."""
    distinct = {name.upper() for name in names} - {"PIXEL"}
    if len(distinct) != len(maps) or not len(names) == len(units) == len(maps):
        raise ValueError(
            "`write_maps(names=..., units=...)` need one entry per map, the names all "
            f"different and not PIXEL: got {len(maps)} maps, names {list(names)}, "
            f"units {list(units)}."
        )
    if coordsys not in healpix.COORDSYS or polcconv not in ("COSMO", "IAU"):
        raise ValueError(
            "`write_maps` expected coordsys G, C or E and polcconv COSMO or IAU, got "
            f"{coordsys!r}, {polcconv!r}."
        )
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another name or `--overwrite`.")
