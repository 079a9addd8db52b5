"""What run.toml and sky.toml have in common: table types, and the reader.

The reader says everything that is wrong with a file at once. A configuration is data:
nothing in it is evaluated, and nothing is computed before all of it is known to be
good. File names are relative to the working directory.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PrivateAttr,
    model_validator,
)

from distsep.config.errors import (
    ConfigError,
    Problem,
    apply_overrides,
    collect,
    follows_from,
    read_toml,
    spell,
)
from distsep.config.model import default_name

OPTION_TABLES = {"lines"}  # keys of a component that are tables but no parameters
Stokes = Literal["I", "QU", "IQU"]
Response = Literal["intensity", "RJ", "weights"]
Ordering = Literal["RING", "NEST"]
Positive = Annotated[FiniteFloat, Field(gt=0)]


def _norm(value: Any) -> Any:
    """One message for whatever is no normalisation of hits."""
    try:
        good = value in ("max", "mean") or 0 < float(value) < math.inf
    except (TypeError, ValueError):
        good = False
    if not good or isinstance(value, bool):
        raise ValueError(f'expected a number above 0, "max" or "mean", got {value!r}')
    return value


HitsNorm = Annotated[Positive | Literal["max", "mean"], BeforeValidator(_norm)]
Columns = list[Annotated[str | int, Field(union_mode="left_to_right")]]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]
# A band is named; `bands = [40, 50]` means the bands named "40" and "50".
Band = Annotated[
    str, BeforeValidator(lambda v: f"{v:g}" if type(v) in (int, float) else v)
]


def listed(value: Any) -> Any:
    """One value as a list of one."""
    return [value] if type(value) in (int, float, str) else value


class Table(BaseModel):
    """A table whose keys are known and whose values are not converted by guessing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PriorTable(Table):
    """A Gaussian prior, in the unit of what it is about; `[mean, std]` is one too."""

    mean: FiniteFloat = 0.0
    std: Positive

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        pair = isinstance(value, list) and len(value) == 2
        return {"mean": value[0], "std": value[1]} if pair else value


class LawTable(Table):
    """An emission law: a `kind` known to distsep, or an `expression`.

    `parameters` are the keys that carry a table and no name known here, `options` the
    other unknown keys; in the file both stand beside `kind`. Whether they exist in the
    law is found out in `checks.py`.
    """

    kind: str | None = None
    expression: str | None = None
    name: str | None = None
    unit: str | None = None
    nu0: Positive | None = None
    options: dict[str, Any] = {}

    @property
    def label(self) -> str:
        """The name its parameters are called by: `name`, else that of its kind."""
        return self.name or default_name(self.kind)


class SystematicTable(Table):
    """An instrumental parameter of some bands; the bands left out are the reference."""

    bands: Annotated[list[Band], Field(min_length=1)]
    std: Annotated[list[Positive], BeforeValidator(listed)] | None = None
    start: FiniteFloat | None = None


# What a run may fit of the instrument, and its value in one that is perfect.
SYSTEMATICS = {"calibration": 1.0, "band_shift": 0.0, "angle": 0.0}


class InstrumentTable(Table):
    """A preset or the bands themselves, and the instrumental parameters to fit.

    Frequencies in GHz, depths in uK_CMB arcmin, FWHM in arcmin. `bandpass` has a file
    of (GHz, transmission) for each band, or "" for none. `std` is relative for
    `calibration`, in GHz for `band_shift` and in rad for `angle`.
    """

    preset: str | None = None
    name: str | None = None
    nu: Annotated[list[Positive], Field(min_length=1)] | None = None
    bands: list[Band] | None = None
    depth_i: list[Positive] | None = None
    depth_p: list[Positive] | None = None
    fwhm: list[NotNegative] | None = None
    bandpass: list[str] | None = None
    response: Annotated[list[Response], BeforeValidator(listed)] = ["intensity"]
    calibration: SystematicTable | None = None
    band_shift: SystematicTable | None = None
    angle: SystematicTable | None = None

    @property
    def described(self) -> bool:
        """Whether the table says what the instrument is."""
        return self.preset is not None or self.nu is not None


class FileTable(Table):
    """A whole file; remembers the words it was read from."""

    _source: dict = PrivateAttr(default_factory=dict)

    @property
    def provenance(self) -> dict:
        """The text of the file and the overrides: what a result should remember."""
        return self._source


File = TypeVar("File", bound=FileTable)


def gather_parameters(raw: dict, law: type[LawTable]) -> None:
    """Move the parameter keys of each [[component]] under `parameters`, in place."""
    known = set(law.model_fields) - {"parameters", "options"}
    tables = raw.get("component")
    for table in tables if isinstance(tables, list) else []:
        if isinstance(table, dict):
            rest = {k: table.pop(k) for k in list(table) if k not in known}
            own = {k for k, v in rest.items() if type(v) is dict} - OPTION_TABLES
            table["parameters"] = {k: v for k, v in rest.items() if k in own}
            table["options"] = {k: v for k, v in rest.items() if k not in own}


def read_tables(
    model: type[File],
    law: type[LawTable],
    path: str | Path,
    overrides: Sequence[str],
    find_problems: Callable[[File], Iterable[Problem]],
) -> File:
    """Read a TOML file into its model, or say everything that is wrong with it.

    Args:
        model: The type of the whole file.
        law: The type of its [[component]] tables.
        path: The file.
        overrides: Assignments `section.key=value` (see `apply_overrides`).
        find_problems: The checks beyond types and key names.

    Raises:
        ConfigError: listing all mistakes, each with its key.
    """
    path = Path(path)
    raw = read_toml(path)
    apply_overrides(raw, overrides)
    gather_parameters(raw, law)
    config = check_tables(model, raw, str(path), find_problems)
    text = path.read_text(encoding="utf-8")
    config._source.update(configuration=text, overrides=list(overrides))
    return config


def check_tables(
    model: type[File],
    raw: dict,
    source: str,
    find_problems: Callable[[File], Iterable[Problem]],
    spelled: Callable[[list[Problem]], list[str]] | None = None,
) -> File:
    """Make a model of raw tables, or say everything that is wrong with them.

    Args:
        model: The type of the whole file.
        raw: Its tables.
        source: What to call them.
        find_problems: The checks beyond types and key names.
        spelled: Makes lines of the problems; by default, the key and the words.

    Raises:
        ConfigError: listing all mistakes, each with its key.
    """
    config, problems = collect(model, raw)
    if config is not None:
        seen = [place for place, _ in problems]
        problems += [p for p in find_problems(config) if not follows_from(p[0], seen)]
    if config is None or problems:
        lines = [f"{spell(place, raw)}: {message}" for place, message in problems]
        raise ConfigError(source, spelled(problems) if spelled else lines)
    return config
