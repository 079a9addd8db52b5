"""The header of a store: what it holds by name and type, read or said to be damaged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainValidator,
    ValidationError,
    model_validator,
)

from distsep.data.blocks import Grid
from distsep.data.healpix import COORDSYS
from distsep.data.observation import STOKES
from distsep.model.instrument import Instrument

FORMAT = 1
CELLS = "cells"

Axes = Mapping[str, tuple[str, ...]]
Words = tuple[str, ...]
Number = FiniteFloat | None
"""A number; one that is not finite is none in JSON."""


@dataclass(frozen=True)
class Truth:
    """What a simulated sky was made of; it goes with its observation.

    Attributes:
        components: Names of the components.
        units: Unit of each one's amplitudes.
        parameters: True values; None where a parameter varies over the sky.
    """

    components: tuple[str, ...]
    units: tuple[str, ...]
    parameters: Mapping[str, float | None]


class _Part(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )


def _one_of(known: tuple[str, ...]) -> AfterValidator:
    """Refuse words other than those that observations have."""

    def check(word: str) -> str:
        if word not in known:
            raise ValueError(f"expected one of {', '.join(known)}")
        return word

    return AfterValidator(check)


class Dggs(_Part):
    """The sphere, in the words of the zarr DGGS convention."""

    name: Literal["healpix"]
    refinement_level: int = Field(ge=0, le=29)
    indexing_scheme: Literal["nested"]
    spatial_dimension: Literal["cells"]
    coordinate: Literal["cell_ids"]
    compression: Literal["none"]


class Header(_Part):
    """What observations and results share."""

    grid: Grid
    dggs: Dggs
    stokes: Annotated[str, _one_of(STOKES)]
    coordsys: Annotated[str, _one_of(COORDSYS)]
    polcconv: Literal["COSMO"]
    bands: Words
    provenance: dict[str, Any]
    warnings: Words

    @model_validator(mode="after")
    def _on_the_sphere(self) -> "Header":
        if self.grid.npix > 12 * self.nside**2:
            raise ValueError(
                f"{self.grid.npix} pixels, more than the sphere of nside {self.nside}"
            )
        return self

    @property
    def nside(self) -> int:
        """Resolution."""
        return 2**self.dggs.refinement_level

    @property
    def lengths(self) -> dict[str, int]:
        """Lengths of the axes of its arrays."""
        return {
            CELLS: self.grid.npix,
            "stokes": len(self.stokes),
            "freq": len(self.bands),
            "freq_2": len(self.bands),
        }

    @property
    def axes(self) -> Axes:
        """Axes of the arrays that have to be there."""
        return {"cell_ids": (CELLS,)}


def _instrument(value: Any) -> Instrument:
    try:
        return Instrument.from_dict(value)
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


class ObservationHeader(Header):
    """The header of an observation."""

    instrument: Annotated[Instrument, PlainValidator(_instrument)]
    resolution: Number = Field(gt=0)
    complete_bands: bool = False
    truth: Truth | None = None

    @model_validator(mode="after")
    def _same_bands(self) -> "ObservationHeader":
        if self.bands != self.instrument.bands:
            own = ", ".join(self.instrument.bands)
            raise ValueError(f"bands {', '.join(self.bands)}, of the instrument {own}")
        return self

    @property
    def lengths(self) -> dict[str, int]:
        """Lengths of the axes of its arrays."""
        truth = {} if self.truth is None else {"comp": len(self.truth.components)}
        return super().lengths | truth

    @property
    def axes(self) -> Axes:
        """Axes of the arrays that have to be there."""
        truth = {} if self.truth is None else {"truth": ("comp", "stokes", CELLS)}
        return {**super().axes, "maps": ("freq", "stokes", CELLS), **truth}


class Run(_Part):
    """How a fit was cut, and what it took."""

    seconds: dict[str, Number]
    ranks: int
    devices: int


class ResultHeader(Header):
    """The header of a result: the fields of `Result` that are no arrays."""

    names: Words
    component_names: Words
    covariance_names: Words
    units: dict[str, str]
    nu0: dict[str, Number]
    kinds: Words
    patched: Words
    global_terms: dict[str, tuple[Number | list[Number], Number | list[Number]]]
    dof: int
    chi2_total: Number
    neg_log_like: Number
    distance: Number
    converged: bool
    steps: int
    message: str
    reduced: tuple[int, int] | None
    run: Run

    @model_validator(mode="after")
    def _known_names(self) -> "ResultHeader":
        for what, names, known in (
            ("patched", self.patched, self.kinds),
            ("covariance_names", self.covariance_names, self.component_names),
            ("component_names", self.component_names, self.units),
        ):
            if unknown := set(names) - set(known):
                raise ValueError(
                    f"{what} names {sorted(unknown)[0]!r}, and no other does"
                )
        return self

    @property
    def lengths(self) -> dict[str, int]:
        """Lengths of the axes of its arrays."""
        n, chosen = len(self.names), len(self.covariance_names)
        own = {"param": n, "param_2": n, "chosen": chosen, "chosen_2": chosen}
        return super().lengths | own | {"comp": len(self.component_names)}

    @property
    def axes(self) -> Axes:
        """Axes of the arrays that have to be there."""
        maps = {"amplitudes": ("comp", "stokes", CELLS), "chi2": ("stokes", CELLS)}
        return {**super().axes, **maps}


_Header = TypeVar("_Header", bound=Header)
HEADERS = {"observation": ObservationHeader, "result": ResultHeader}


def checked(path: Path, kind: type[_Header], attributes: Mapping[str, Any]) -> _Header:
    """Return the attributes of a store by name and type.

    Raises:
        ValueError: the first that is missing or of another type.
    """
    try:
        return kind.model_validate_json(json.dumps(attributes))
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False)
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        raise ValueError(damaged(path, f"{name!r} is missing"))
    what = f"{name} = {first['input']!r:.60}: " if name else ""
    what += first["msg"].removeprefix("Value error, ").rstrip(".")
    raise ValueError(damaged(path, what))


def damaged(path: Path, what: object, array: str = "") -> str:
    """Say that the header of a store, or of one of its arrays, is damaged."""
    file = Path(array, "zarr.json")
    return f"the store {path} is damaged ({file}: {what}): write it again."


def is_json(file: Path) -> bool:
    """Whether a file holds a JSON object."""
    try:
        return isinstance(json.loads(file.read_text()), dict)
    except ValueError:
        return False


def read_header(path: Path) -> dict[str, Any] | None:
    """Return the attributes of a group that distsep wrote, or None."""
    try:
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return attributes if "distsep" in attributes else None
