"""The tables of sky.toml: what `distsep simulate` draws, observes and writes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from distsep.config.check_basics import (
    file_problems,
    hits_problems,
    power_of_two,
    unit_problems,
)
from distsep.config.check_data import instrument_problems
from distsep.config.checks import build_laws
from distsep.config.errors import Place, Problem
from distsep.config.tables import (
    SYSTEMATICS,
    FileTable,
    HitsNorm,
    InstrumentTable,
    LawTable,
    NotNegative,
    Positive,
    Stokes,
    Table,
    read_tables,
)
from distsep.model.units import UNITS

SOURCES = ("spectrum", "power_law", "file", "random")  # of an amplitude
WITH_DEFAULT = ("CMB", "Dust", "Synchrotron")  # components with one of their own


class SkyTable(Table):
    """Which pixels are observed, in which Stokes parameters, and the seed.

    Attributes:
        latitude: Pixels with |b| [deg] below it are not observed.
        mask: FITS file; pixels above 0 are observed.
        hits: FITS file; with `hits_norm`, the noise of a pixel goes as 1/sqrt(hits).
        noise: Whether white noise at the depths of the instrument is added.
        resolution: FWHM [arcmin] of a Gaussian beam common to all maps.
    """

    nside: Annotated[int, Field(ge=1, le=8192)] = 64
    stokes: Stokes = "QU"
    seed: Annotated[int, Field(ge=0)] = 0
    coordsys: Literal["G", "C", "E"] = "G"
    latitude: Annotated[FiniteFloat, Field(ge=0, lt=90)] = 0.0
    mask: str | None = None
    hits: str | None = None
    hits_norm: HitsNorm | None = None
    noise: bool = True
    resolution: Positive | None = None
    dtype: Literal["float64", "float32"] = "float64"


class PowerLawTable(Table):
    """Spectra D_l = amplitude * (l / 80)^slope, D_l = l(l+1)C_l / 2 pi, [unit^2]."""

    tt: NotNegative = 0.0
    ee: NotNegative = 0.0
    bb: NotNegative = 0.0
    te: FiniteFloat = 0.0
    slope_tt: FiniteFloat = -0.5
    slope_ee: FiniteFloat = -0.5
    slope_bb: FiniteFloat = -0.5
    slope_te: FiniteFloat = -0.5


class AmplitudeTable(Table):
    """The amplitude of a component: exactly one of the first four keys.

    Attributes:
        spectrum: "camb", or a FITS file of C_l (TT, EE, BB, TE).
        power_law: Spectra as power laws of l.
        file: FITS file with one column for each Stokes parameter.
        random: rms of values drawn independently in each pixel: cheap at any nside.
        r: Tensor-to-scalar ratio of "camb".
        fields: Names or numbers of the columns of `file`.
        unit: Unit of the amplitude; that of the component if absent.
        nu: Frequency [GHz] it holds at; the component's `nu0` if absent.
    """

    spectrum: str | None = None
    power_law: PowerLawTable | None = None
    file: str | None = None
    random: NotNegative | None = None
    r: NotNegative = 0.0
    fields: list[str] | list[int] | None = None
    unit: str | None = None
    nu: Positive | None = None


class TruthTable(Table):
    """The true value of a parameter: a number, or a column of a FITS file."""

    value: FiniteFloat | None = None
    file: str | None = None
    field: str | int = 0


class SkyComponentTable(LawTable):
    """One component of the sky; a parameter is a number or `{ file, field }`.

    Attributes:
        seed: Of its amplitude alone: the same whatever `sky.seed`, which it has if
            absent.
    """

    amplitude: AmplitudeTable | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    parameters: dict[str, TruthTable] = {}


class SkyOutputTable(Table):
    """Where the observation goes, and whether the truth goes with it."""

    store: str = "sky.zarr"
    truth: bool = True


class SkyConfig(FileTable):
    """All of sky.toml, known to be good."""

    sky: SkyTable = SkyTable()
    instrument: InstrumentTable = InstrumentTable(preset="LiteBIRD")
    component: Annotated[list[SkyComponentTable], Field(min_length=1)]
    output: SkyOutputTable = SkyOutputTable()


def read_sky(path: str | Path, overrides: Sequence[str] = ()) -> SkyConfig:
    """Read sky.toml, apply `--set`, and check everything that can be checked.

    Raises:
        ConfigError: listing all mistakes, each with its key.

    Communication: none.
    """
    return read_tables(SkyConfig, SkyComponentTable, path, overrides, sky_problems)


def sky_problems(config: SkyConfig) -> Iterator[Problem]:
    """Yield everything wrong with sky.toml that its types do not show."""
    yield from power_of_two(("sky", "nside"), config.sky.nside)
    yield from file_problems(("sky",), config.sky, "mask", "hits")
    yield from hits_problems(("sky",), config.sky)
    yield from instrument_problems(config.instrument)
    for key in SYSTEMATICS:
        if getattr(config.instrument, key) is not None:
            yield ("instrument", key), "is fitted by a run: a sky is simulated without"
    laws = yield from build_laws(config.component, fix_numbers=False)
    for n, (table, law) in enumerate(zip(config.component, laws, strict=True)):
        place = ("component", n)
        for name, truth in table.parameters.items():
            where = (*place, "parameters", name)
            if (truth.value is None) == (truth.file is None):
                yield where, "give a number, or `file` (and `field`)"
            yield from file_problems(where, truth, "file")
        given = {*table.parameters, *table.options}
        for name in law.parameters if law is not None else ():
            if name not in given and table.expression is not None:
                yield (*place, name), "is required: the sky needs its value"
        yield from _amplitude_problems((*place, "amplitude"), table)


def _amplitude_problems(place: Place, table: SkyComponentTable) -> Iterator[Problem]:
    a = table.amplitude
    if a is None:
        if table.kind not in WITH_DEFAULT:
            yield place, "is required for this component"
        return
    if sum(getattr(a, key) is not None for key in SOURCES) != 1:
        yield place, f"give exactly one of {', '.join(SOURCES)}"
    yield from file_problems(place, a, "file")
    if a.spectrum != "camb":
        yield from file_problems(place, a, "spectrum")
    yield from unit_problems((*place, "unit"), a.unit, UNITS)
