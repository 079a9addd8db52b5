"""The tables of run.toml: what `distsep run` separates, and how."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, FiniteFloat, model_validator

from distsep.config import checks
from distsep.config.arguments import separate_arguments
from distsep.config.flags import spell_flags
from distsep.config.tables import (
    Band,
    Columns,
    FileTable,
    HitsNorm,
    InstrumentTable,
    LawTable,
    Ordering,
    Positive,
    PriorTable,
    Stokes,
    Table,
    check_tables,
    listed,
    read_tables,
)


class PatchTable(Table):
    """Where a parameter has one value: exactly one of `nside`, `map` and `kmeans`.

    `stokes` gives each listed group of Stokes parameters values of its own, alone or
    together with one of the three.
    """

    nside: Annotated[int, Field(ge=1)] | None = None
    map: str | None = None
    field: Annotated[int, Field(ge=0)] = 0
    kmeans: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    stokes: list[str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_nside(cls, value: Any) -> Any:
        return {"nside": value} if type(value) is int else value


class ParameterTable(Table):
    """One spectral parameter: free (from `start`), `fixed`, or `shared`."""

    start: FiniteFloat | None = None
    fixed: FiniteFloat | None = None
    shared: str | None = None
    bounds: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    prior: PriorTable | None = None
    patches: PatchTable | None = None


class ComponentTable(LawTable):
    """A component to separate."""

    parameters: dict[str, ParameterTable] = {}


class BandTable(Table):
    """The FITS map of one band; what is absent is taken from `[observation]`.

    Attributes:
        band: Name of the band in the instrument; the bands in order if absent.
        columns: Name or number of the column of each Stokes parameter.
        variance: FITS file with the noise variance [unit^2] per pixel.
        variance_columns: One column for each Stokes parameter, or one for all.
    """

    file: str
    band: Band | None = None
    unit: str | None = None
    columns: Columns | None = None
    variance: str | None = None
    variance_columns: Columns | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_string_is_a_file(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value


class ObservationTable(Table):
    """What was measured: a `store`, or one FITS map for each band.

    Attributes:
        variance: Noise variance [unit^2]: FITS files, one for each map; or columns of
            the maps' own files, one for each Stokes parameter, or one for all.
        nobs: Columns of the maps' files with the number of observations N; then the
            variance is sigma0^2 / N.
        sigma0: Noise of one observation [unit] of each map.
        sigma0_p: The same of Q and U, if it is another.
    """

    store: str | None = None
    fits: list[BandTable] | None = None
    hdu: Annotated[int, Field(ge=1)] | None = None
    stokes: Stokes | None = None
    unit: str | None = None
    ordering: Ordering | None = None
    coordsys: Literal["G", "C", "E"] | None = None
    polcconv: Literal["COSMO", "IAU"] | None = None
    resolution: Positive | None = None
    mask: str | None = None
    variance: Annotated[Columns, BeforeValidator(listed)] | None = None
    nobs: Annotated[Columns, BeforeValidator(listed)] | None = None
    sigma0: Annotated[list[Positive], BeforeValidator(listed)] | None = None
    sigma0_p: Annotated[list[Positive], BeforeValidator(listed)] | None = None
    hits: str | None = None
    hits_norm: HitsNorm | None = None

    @property
    def variance_files(self) -> list[str] | None:
        """The files of `variance`, which have a dot or a slash; None: columns."""
        words = [str(word) for word in self.variance or []]
        return words if any("." in word or "/" in word for word in words) else None


class GlobalTable(Table):
    """Coefficients shared by the whole sky, or one amplitude per region.

    Attributes:
        kind: "region": the component named has one amplitude per region.
        bands, stokes: Where the coefficients act; all if absent.
        file: FITS file of a template, with `columns`: one, or one for each Stokes
            parameter of the data (then they share their coefficients).
        common: One coefficient for all bands.
        component, regions: Of a "region".
        prior: Of each coefficient, in uK_CMB (per unit of the template); of a "region"
            in a millionth of the unit of its law, uK_RJ of K_RJ.
    """

    kind: Literal["monopole", "dipole", "template", "region"]
    name: str | None = None
    bands: list[Band] | None = None
    stokes: str | None = None
    file: str | None = None
    columns: Columns | None = None
    common: bool = False
    component: str | None = None
    regions: PatchTable | None = None
    prior: PriorTable | None = None


class FitTable(Table):
    """How the optimum is looked for; `tolerance` is in sigma."""

    solver: Literal["adam", "lbfgs", "newton"] = "adam"
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    max_steps: Annotated[int, Field(ge=1)] = 1000


class OutputTable(Table):
    """What is kept, and where.

    Attributes:
        store: The result.
        report: Directory of the table and the pictures; "" for none. If absent, it is
            named after the store.
    """

    store: str = "result.zarr"
    report: str | None = None
    amplitude_unit: str = "uK_CMB"
    residuals: bool = False
    amplitude_covariance: list[str] = []


def report_directory(store: str | Path) -> Path:
    """Where the report of a result goes by default: beside it."""
    return Path(f"{str(store).removesuffix('.zarr')}_report")


class RunConfig(FileTable):
    """All of run.toml, known to be good."""

    observation: ObservationTable = ObservationTable()
    component: Annotated[list[ComponentTable], Field(min_length=1)]
    global_: list[GlobalTable] = Field(default=[], alias="global")
    instrument: InstrumentTable = InstrumentTable()
    fit: FitTable = FitTable()
    output: OutputTable = OutputTable()

    @property
    def report_directory(self) -> Path | None:
        """Where the pictures go, if anywhere."""
        if self.output.report is None:
            return report_directory(self.output.store)
        return Path(self.output.report) if self.output.report else None

    def separate_arguments(self, *, nside: int, coordsys: str) -> dict[str, Any]:
        """The arguments of `separate` (see `config.arguments`)."""
        return separate_arguments(self, nside=nside, coordsys=coordsys)


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read run.toml, apply `--set`, and check everything that can be checked.

    Args:
        path: The file.
        overrides: Assignments `section.key=value` (see `apply_overrides`).

    Returns:
        The configuration; every file it names exists, every name is known.

    Raises:
        ConfigError: listing all mistakes, each with its key.

    Communication: none; under MPI one rank reads and the others are told.
    """
    return read_tables(RunConfig, ComponentTable, path, overrides, checks.run_problems)


def import_tables(
    observation: dict[str, Any], instrument: dict[str, Any]
) -> tuple[ObservationTable, InstrumentTable]:
    """Check the tables that `distsep import` makes of its flags.

    Raises:
        ConfigError: listing all mistakes, each with its key.
    """
    raw = {
        "observation": {k: v for k, v in observation.items() if v is not None},
        "instrument": {k: v for k, v in instrument.items() if v is not None},
        # The checks of a run want a component; its own can find nothing wrong.
        "component": [{"kind": "CMB"}],
    }
    flags = {*observation, *instrument, "columns"} - {"fits"}
    config = check_tables(
        RunConfig,
        raw,
        "import",
        checks.run_problems,
        lambda problems: spell_flags(problems, flags),
    )
    return config.observation, config.instrument
