"""The commands and their flags. What they do is in `tasks.py` and `doctor.py`."""

import json
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from distsep.cli import options as show
from distsep.cli.options import Devices, LogFile, Overwrite, Quiet, Set, SetAny
from distsep.cli.session import session

app = typer.Typer(
    name="distsep",
    cls=show.Group,
    help="Separate the components of the microwave sky, over MPI ranks and devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"distsep {metadata.version('distsep')}")
        raise typer.Exit
    return asked


@app.callback()
def _whole(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    del version  # answered by its callback


def _overrides(
    assignments: list[str] | None, output: Path | None, key: str = "output.store"
) -> list[str]:
    """`--output` is a short way to set where a file writes; it has the last word."""
    out = [] if output is None else [f"{key}={json.dumps(str(output))}"]
    return [*(assignments or []), *out]


@app.command(cls=show.Command)
def simulate(
    config: Annotated[Path, typer.Argument(help="A sky.toml.")],
    output: Annotated[
        Path | None, show.output("output.store of the file, or sky.zarr")
    ] = None,
    overwrite: Overwrite = False,
    set_: Set = None,
    quiet: Quiet = False,
    log_file: LogFile = None,
) -> None:
    """Draw a sky, observe it with noise, and write the store.

    The keys of the file: see "run.toml" in the README, and launch/examples/sky.toml.

    **Examples**

    `distsep simulate sky.toml`

    `distsep simulate sky.toml -o sky2.zarr --set sky.seed=2`

    `mpirun -n 4 distsep simulate sky.toml` (the same store, sooner)
    """
    from distsep.cli import tasks

    with session(quiet=quiet, log_file=log_file) as current:
        tasks.simulate(current, config, _overrides(set_, output), overwrite)


@app.command(cls=show.Command)
def run(
    config: Annotated[Path, typer.Argument(help="A run.toml.")],
    output: Annotated[
        Path | None, show.output("output.store of the file, or result.zarr")
    ] = None,
    overwrite: Overwrite = False,
    set_: Set = None,
    quiet: Quiet = False,
    log_file: LogFile = None,
    devices: Devices = None,
) -> None:
    """Separate the components of an observation, and write the result.

    Ends with 0 if the fit converged, 3 if it did not (the result is written), 2 if the
    input is bad. The keys of the file: "run.toml" in the README, and the files of
    launch/examples.

    **Examples**

    `distsep run run.toml`

    `mpirun -n 4 distsep run run.toml --devices 2`

    `distsep run run.toml --set fit.solver=newton --set component.Dust.nu0=353`
    """
    from distsep.cli import tasks

    with session(quiet=quiet, log_file=log_file, devices=devices) as current:
        tasks.run(current, config, _overrides(set_, output), overwrite)


@app.command(cls=show.Command)
def campaign(
    config: Annotated[Path, typer.Argument(help="A campaign.toml.")],
    output: Annotated[
        Path | None, show.output("output.folder of the file, or campaign")
    ] = None,
    overwrite: Overwrite = False,
    set_: SetAny = None,
    quiet: Quiet = False,
    log_file: LogFile = None,
    devices: Devices = None,
) -> None:
    """Simulate and separate many skies, and say whether the errors are right.

    Each sky is that of a sky.toml with a seed of its own, separated as a run.toml says.
    What was cut short goes on where it ended when it is started again. Ends with 0 if
    all fits converged, 3 if not, 2 if the input is bad.

    **Examples**

    `mpirun -n 4 distsep campaign campaign.toml`

    `distsep campaign campaign.toml --set campaign.skies=10 --set sky.sky.nside=16
    -o try`
    """
    from distsep.cli import tasks

    with session(quiet=quiet, log_file=log_file, devices=devices) as current:
        overrides = _overrides(set_, output, "output.folder")
        tasks.campaign(current, config, overrides, overwrite)


@app.command("import", cls=show.Command)
def import_(
    maps: Annotated[list[Path], typer.Argument(help="FITS maps, one per band.")],
    output: Annotated[Path | None, show.output("sky.zarr")] = None,
    stokes: Annotated[str, typer.Option(help="I, QU or IQU.")] = "IQU",
    nu: Annotated[
        str | None, typer.Option(help="Frequencies [GHz]: 61,94.", show_default=False)
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="Names of the bands: V,W.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help=f"Known instrument: {show.PRESETS}.", show_default=False),
    ] = None,
    depth_i: Annotated[
        str | None,
        typer.Option(help="Depths of I [uK_CMB arcmin].", show_default=False),
    ] = None,
    depth_p: Annotated[
        str | None,
        typer.Option(help="Depths of Q, U [uK_CMB arcmin].", show_default=False),
    ] = None,
    bandpass: Annotated[
        str | None, typer.Option(help=show.BANDPASS, show_default=False)
    ] = None,
    response: Annotated[
        str | None, typer.Option(help=show.RESPONSE, show_default=False)
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help=f"Unit, where the files do not say: {show.UNITS}.", show_default=False
        ),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="FITS mask, 1 = use.", show_default=False)
    ] = None,
    variance: Annotated[
        str | None,
        typer.Option(
            help="Noise variances [unit^2]: columns of the maps' files, or one FITS "
            "file for each map.",
            show_default=False,
        ),
    ] = None,
    nobs: Annotated[
        str | None,
        typer.Option(
            help="Column of the maps' files with the number of observations N: the "
            "variance is sigma0^2 / N.",
            show_default=False,
        ),
    ] = None,
    sigma0: Annotated[
        str | None,
        typer.Option(
            help="Noise of one observation of each map [its unit].", show_default=False
        ),
    ] = None,
    sigma0_p: Annotated[
        str | None,
        typer.Option(help="The same of Q, U, if another.", show_default=False),
    ] = None,
    hits: Annotated[
        Path | None, typer.Option(help="FITS map of hits.", show_default=False)
    ] = None,
    hits_norm: Annotated[
        str | None,
        typer.Option(
            help="Hits at which the depths hold: a number, max or mean.",
            show_default=False,
        ),
    ] = None,
    ordering: Annotated[
        str | None, typer.Option(help="RING or NEST.", show_default=False)
    ] = None,
    coordsys: Annotated[
        str | None, typer.Option(help="G, C or E.", show_default=False)
    ] = None,
    polcconv: Annotated[
        str | None, typer.Option(help="COSMO or IAU.", show_default=False)
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of each Stokes parameter: 0,1,2.", show_default=False
        ),
    ] = None,
    resolution: Annotated[
        float | None,
        typer.Option(help="Common FWHM of the maps [arcmin].", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    log_file: LogFile = None,
) -> None:
    """Make a store of FITS maps, one file per band.

    What the headers say is checked; what they do not say must be stated here.

    **Examples**

    `distsep import v.fits w.fits --preset WMAP --bands V,W --unit mK_CMB --nobs N_OBS
    --sigma0 3.131,6.544 --sigma0-p 4.442,9.277 --mask mask.fits -o wmap.zarr`

    `distsep import f100.fits f143.fits --preset Planck --bands 100,143
    --variance II_COV,QQ_COV,UU_COV -o planck.zarr`

    `distsep import a.fits b.fits --nu 100,143 --stokes QU --depth-p 118,70
    -o own.zarr`
    """
    from distsep.cli import tasks

    table: dict[str, Any] = {
        "stokes": stokes,
        "unit": unit,
        "mask": None if mask is None else str(mask),
        "variance": _columns(variance),
        "nobs": _columns(nobs),
        "sigma0": _numbers(sigma0, "--sigma0"),
        "sigma0_p": _numbers(sigma0_p, "--sigma0-p"),
        "hits": None if hits is None else str(hits),
        "hits_norm": _number(hits_norm),
        "ordering": ordering,
        "coordsys": coordsys,
        "polcconv": polcconv,
        "resolution": resolution,
    }
    instrument: dict[str, Any] = {
        "preset": preset,
        "nu": _numbers(nu, "--nu"),
        "bands": _words(bands),
        "depth_i": _numbers(depth_i, "--depth-i"),
        "depth_p": _numbers(depth_p, "--depth-p"),
        "bandpass": _words(bandpass),
        "response": _words(response),
    }
    files = [{"file": str(path), "columns": _columns(columns)} for path in maps]
    with session(quiet=quiet, log_file=log_file) as current:
        tasks.import_maps(current, files, table, instrument, output, overwrite)


@app.command(cls=show.Command)
def export(
    store: Annotated[Path, typer.Argument(help="An observation or a result.")],
    output: Annotated[Path | None, show.output("STORE_fits")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Only the observed pixels.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    log_file: LogFile = None,
) -> None:
    """Write the maps of a store as FITS files, one per band or component.

    **Examples**

    `distsep export result.zarr -o maps/`
    """
    from distsep.cli import tasks

    with session(quiet=quiet, log_file=log_file) as current:
        tasks.export(current, store, output, partial, overwrite)


@app.command(cls=show.Command)
def report(
    result: Annotated[Path, typer.Argument(help="A result store.")],
    output: Annotated[Path | None, show.output("RESULT_report")] = None,
    quiet: Quiet = False,
    log_file: LogFile = None,
) -> None:
    """Print the table of a result and draw its picture.

    **Examples**

    `distsep report result.zarr -o report/`
    """
    from distsep.cli import tasks

    with session(quiet=quiet, log_file=log_file) as current:
        tasks.report(current, result, output)


@app.command(cls=show.Command)
def info(
    store: Annotated[Path, typer.Argument(help="An observation or a result.")],
    quiet: Quiet = False,
    log_file: LogFile = None,
) -> None:
    """Say what a store holds.

    **Examples**

    `distsep info sky.zarr`
    """
    from distsep.cli import tasks

    with session(quiet=quiet, log_file=log_file) as current:
        tasks.info(current, store)


@app.command(cls=show.Command)
def doctor(
    quiet: Quiet = False, log_file: LogFile = None, devices: Devices = None
) -> None:
    """Check the installation: versions, MPI, devices, and a small separation.

    **Examples**

    `distsep doctor`

    `mpirun -n 2 distsep doctor --devices 2`
    """
    from distsep.cli import doctor as checks

    with session(quiet=quiet, log_file=log_file, devices=devices) as current:
        checks.examine(current)


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",")]


def _number(text: str | None) -> Any:
    """A number if it reads as one, else the word."""
    for kind in (int, float):
        try:
            return None if text is None else kind(text)
        except ValueError:
            continue
    return text


def _columns(text: str | None) -> list[Any] | None:
    """Names or numbers of columns."""
    return None if text is None else [_number(word) for word in _words(text) or []]


def _numbers(text: str | None, flag: str) -> list[float] | None:
    try:
        return None if text is None else [float(word) for word in _words(text) or []]
    except ValueError:
        message = f"{flag} expected numbers separated by commas, got {text!r}"
        raise typer.BadParameter(message) from None


def main() -> None:
    """Entry point of the command."""
    app()
