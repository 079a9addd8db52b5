"""One FITS extension that holds HEALPix columns: what it says, and its samples.

The only reader of FITS headers of maps. Nothing is guessed here: what a header does not
say is None, and data/fits.py decides.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Inexact, Shaped

from distsep.data import healpix

TURNED = "POLCCONV = IAU: the sign of U is turned; inside it is COSMO."

_NAMES = {
    "I": ("I", "T", "INTENSITY", "TEMPERATURE", "I_STOKES", "STOKES_I", "SIGNAL"),
    "Q": ("Q", "Q_STOKES", "STOKES_Q", "Q_POLARISATION", "Q_POLARIZATION"),
    "U": ("U", "U_STOKES", "STOKES_U", "U_POLARISATION", "U_POLARIZATION"),
}
_VARIANCES = {
    "I": ("II_COV", "COV_II", "II", "TT"),
    "Q": ("QQ_COV", "COV_QQ", "QQ"),
    "U": ("UU_COV", "COV_UU", "UU"),
}
_PIXEL = ("PIXEL", "PIX", "PIXEL_INDEX", "PIXNUM", "HPXPIX")
_COORDSYS = {
    "GALACTIC": "G",
    "CELESTIAL": "C",
    "EQUATORIAL": "C",
    "Q": "C",
    "ECLIPTIC": "E",
    "UNKNOWN": "",  # as some programs write where it was not given
}


@dataclass(frozen=True)
class FitsTable:
    """One FITS extension that holds HEALPix columns."""

    path: Path
    header: Any
    columns: Any
    data: Any
    names: tuple[str, ...]
    nside: int
    ordering: healpix.Ordering

    @classmethod
    def open(
        cls, path: Path, hdu: int | None, ordering: str | None, samples: bool = True
    ) -> "FitsTable":
        """Find the HEALPix extension of a file and what it says of its pixels.

        Args:
            path: FITS file.
            hdu: Number of the extension; None: the first.
            ordering: "RING" or "NEST", where the header does not say.
            samples: Whether the pixels are read, or the header alone.
        """
        from astropy.io import fits

        try:
            file = fits.open(path, memmap=False)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError as error:
            raise OSError(f"{path}: no FITS file: {error}") from None
        with file:
            with _intact(path):
                maps = [
                    number
                    for number, one in enumerate(file)
                    if isinstance(one, fits.BinTableHDU)
                    and {"ORDERING", "NSIDE"} & set(one.header)
                ]
            if not maps or hdu not in (None, *maps):
                raise ValueError(
                    f"{path}: no HEALPix map in extension {hdu}, found them in {maps}."
                    if maps
                    else f"{path}: no extension holds a HEALPix map (binary table with "
                    "ORDERING or NSIDE)."
                )
            with _intact(path):
                one: Any = file[maps[0] if hdu is None else hdu]
                header, columns = one.header, one.columns
                data = one.data if samples else None
                names = tuple(name.upper().strip() for name in columns.names)
                (repeat,) = re.findall(r"^\d*", header["TFORM1"])
                size = header["NAXIS2"] * int(repeat or 1)
        order = _ordering(path, str(header.get("ORDERING", "")).strip(), ordering)
        kept = tuple(name for name in names if name not in _PIXEL)
        nside = header.get("NSIDE") or healpix.nside_of(size, f"map of {path}")
        nside = healpix.check_nside(nside, f"{path}: NSIDE")
        return cls(path, header, columns, data, kept, nside, order)

    @property
    def coordsys(self) -> str | None:
        """COORDSYS as one letter, or as it is written; None if absent."""
        text = str(self.header.get("COORDSYS", "")).strip().upper()
        return _COORDSYS.get(text, text) or None

    @property
    def polcconv(self) -> str | None:
        """POLCCONV as it is written, "COSMO" or "IAU"; None if absent."""
        return str(self.header.get("POLCCONV", "")).strip().upper() or None

    def find(self, stokes: str, chosen: Sequence[str | int] | None) -> list[int]:
        """Return the column numbers of the Stokes parameters."""
        if chosen is not None:
            if len(chosen) != len(stokes):
                raise ValueError(
                    f"{self.path}: `columns` expected {len(stokes)} columns for "
                    f"{stokes}, got {list(chosen)}."
                )
            return [self.find_one(column) for column in chosen]
        found = self._called(stokes, _NAMES)
        if found is None:
            raise ValueError(
                f"{self.path}: cannot tell which columns are {', '.join(stokes)} among "
                f"{', '.join(self.names)}: name them with `--columns` (`columns=`)."
            )
        return found

    def holds(self, stokes: str) -> bool:
        """Return whether the names of the columns tell these Stokes parameters."""
        return self._called(stokes, _NAMES) is not None

    def find_noise(self, stokes: str, chosen: Sequence[str | int] | None) -> list[int]:
        """Return the number of the column with the noise of each Stokes parameter.

        One column, chosen or alone in the file, serves all of them.
        """
        if chosen is None and len(self.names) > 1:
            found = self._called(stokes, _VARIANCES) or self._called(stokes, _NAMES)
            if found is None:
                raise ValueError(
                    f"{self.path}: cannot tell which columns are the noise variances "
                    f"of {', '.join(stokes)} among {', '.join(self.names)}: call them "
                    f"{', '.join(_VARIANCES[letter][0] for letter in stokes)}, or name "
                    "them in a run.toml (`variance_columns` of each map)."
                )
            return found
        columns = [0] if chosen is None else list(chosen)
        return self.find(stokes, columns * (len(stokes) if len(columns) == 1 else 1))

    def covariances(self, stokes: str) -> list[str]:
        """Return the names of columns of covariance between these Stokes parameters."""
        pairs = ["".join(pair) for pair in combinations(stokes, 2)]
        known = {form.format(p) for p in pairs for form in ("{}", "{}_COV", "COV_{}")}
        return [name for name in self.names if name in known]

    def find_one(self, column: str | int) -> int:
        """Return the number of a column given by name or number."""
        if isinstance(column, str) and column.upper() in self.names:
            return self.names.index(column.upper())
        if not isinstance(column, str) and 0 <= column < len(self.names):
            return int(column)
        raise ValueError(
            f"{self.path}: no column {column!r} among {', '.join(self.names)}."
        )

    def unit(self, number: int) -> str | None:
        """Return TUNIT of a column."""
        return self.columns[self._index(number)].unit

    def samples(self, number: int) -> Inexact[np.ndarray, " pix"]:
        """Return a column as native floats, NaN where it is missing."""
        raw = self._raw(number)
        kind = (
            np.float32 if raw.dtype.itemsize <= 4 and raw.dtype.kind == "f" else float
        )
        m = raw.astype(kind)
        bad = self.header.get("BAD_DATA")
        missing = healpix.is_missing(m)
        if isinstance(bad, int | float):
            missing |= np.isclose(m, bad, rtol=1e-5, atol=0)
        m[missing] = np.nan
        return m

    def not_finite(self, number: int) -> tuple[int, int]:
        """Return how many samples of a column are NaN, and how many infinite."""
        raw = self._raw(number)
        if raw.dtype.kind != "f":
            return 0, 0
        return int(np.isnan(raw).sum()), int(np.isinf(raw).sum())

    def nest_ids(self) -> Shaped[np.ndarray, " pix"]:
        """Return the NEST number of every row."""
        pixel = [name for name in self.data.names if name.upper().strip() in _PIXEL]
        with _intact(self.path):
            size = np.size(self.data[self.data.names[0]])
            given = np.ravel(self.data[pixel[0]]).astype(np.int64) if pixel else None
        if given is not None:
            ids = given
        elif size == 12 * self.nside**2:
            ids = np.arange(size)
        else:
            first = int(self.header.get("FIRSTPIX", 0))
            ids = np.arange(first, first + size)
            # A whole sphere, of another resolution than the header says.
            if str(self.header.get("OBJECT", "")).strip().upper() == "FULLSKY":
                raise ValueError(
                    f"{self.path}: OBJECT = FULLSKY and NSIDE = {self.nside} expect "
                    f"{12 * self.nside**2} samples per column, got {size}: correct the "
                    "header."
                )
            if self.header.get("LASTPIX", -1) != ids[-1]:
                raise ValueError(
                    f"{self.path}: {size} samples per column, no PIXEL column, and not "
                    f"the whole sphere at NSIDE = {self.nside}."
                )
        if not ids.size:
            raise ValueError(f"{self.path}: the table has no rows.")
        if ids.min() < 0 or ids.max() >= 12 * self.nside**2:
            raise ValueError(f"{self.path}: pixels outside NSIDE = {self.nside}.")
        if given is not None:
            once = np.zeros(12 * self.nside**2, bool)
            once[ids] = True
            if once.sum() != len(ids):
                raise ValueError(f"{self.path}: {pixel[0]} names a pixel twice.")
        return ids if self.ordering == "NEST" else healpix.ring_to_nest(self.nside, ids)

    def _raw(self, number: int) -> np.ndarray:
        """Return a column as it is in the file, one number per pixel."""
        with _intact(self.path):
            raw = np.ravel(self.data.field(self._index(number)))
            size = np.size(self.data.field(0))
        if raw.dtype.kind not in "biuf" or raw.size != size:
            raise ValueError(
                f"{self.path}: the column {self.names[number]} expected {size} real "
                f"numbers, as many as the first, got {raw.size} of type {raw.dtype}."
            )
        return raw

    def _called(
        self, stokes: str, known: dict[str, tuple[str, ...]]
    ) -> list[int] | None:
        """Return the one column of each Stokes parameter by its name, if there is."""
        plain = [name.replace("-", "_") for name in self.names]
        found = [
            [n for n, name in enumerate(plain) if name in known[letter]]
            for letter in stokes
        ]
        if any(len(numbers) != 1 for numbers in found):
            return None
        return [numbers[0] for numbers in found]

    def _index(self, number: int) -> int:
        """Return the position in the table, pixel columns counted."""
        return [n.upper().strip() for n in self.columns.names].index(self.names[number])


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Name the file if what is inside cannot be read."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path}: the FITS file is damaged or cut short ({type(error).__name__}: "
            f"{error}): copy or write it again."
        ) from None


def _ordering(path: Path, says: str, given: str | None) -> healpix.Ordering:
    """Return the ordering that the header or, where it is silent, the user states."""
    if not says and given is None:
        raise ValueError(
            f"{path}: no ORDERING in the header: state it with `--ordering RING` or "
            "NEST (`ordering=`)."
        )
    order = healpix.check_ordering(says or str(given), f"{path}: ORDERING")
    if given is not None and healpix.check_ordering(given) != order:
        raise ValueError(
            f"{path}: ORDERING = {says!r} in the header, but {given!r} was given: "
            "leave `ordering` out, or correct the header."
        )
    return order
