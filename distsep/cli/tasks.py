"""What the commands do, once the ranks are together and the voice is there."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

import distsep
from distsep.cli.session import NOT_CONVERGED, Session, in_words_of, is_bad_input
from distsep.config import (
    Campaign,
    ConfigError,
    RunConfig,
    read_campaign,
    read_config,
    read_sky,
)
from distsep.config.inputs import describe, read_fits
from distsep.config.run import import_tables, report_directory
from distsep.data import store
from distsep.data.fits_scalar import read_mask
from distsep.data.observation import Observation
from distsep.data.place import aside, require_folder
from distsep.rows import OUTPUTS, SkyFolder, SkyRow
from distsep.skies import Skies

_log = logging.getLogger(__name__)

# Times that a campaign says how far it is.
_PARTS = 10
# What a run adds to where its maps came from.
_OF_A_RUN = ("run", "observation")


def _is_there(path: str | Path) -> None:
    """Stop if there is nothing to read."""
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no {path}.")


def simulate(
    session: Session, path: Path, overrides: list[str], overwrite: bool
) -> None:
    """`distsep simulate`."""
    from distsep.simulate import simulate as make

    def read() -> Any:
        config = read_sky(path, overrides)
        store.require_place(config.output.store, "observation", overwrite=overwrite)
        return config

    config = session.together(read)
    with session.voice.progress("simulating") as progress:
        make(
            config,
            config.output.store,
            comm=session.comm,
            overwrite=overwrite,
            progress=progress,
        )
    if session.comm.rank == 0:
        session.voice.say(_about(config.output.store))


def run(session: Session, path: Path, overrides: list[str], overwrite: bool) -> None:
    """`distsep run`: leaves 3 as exit code if the fit did not converge."""
    comm, voice = session.comm, session.voice

    def read() -> RunConfig:
        config = read_config(path, overrides)
        store.require_place(config.output.store, "result", overwrite=overwrite)
        if config.report_directory is not None:
            require_folder(config.report_directory)
        return config

    config = session.together(read)
    data, observed = _maps(config, comm)
    arguments = config.separate_arguments(nside=data.nside, coordsys=data.coordsys)
    voice.say(describe(data.instrument))
    with voice.progress("separating") as progress:
        result = distsep.separate(
            observation=data,
            observed=observed,
            output=config.output.store,
            overwrite=overwrite,
            comm=comm,
            tell=_teller(progress, config.fit.max_steps),
            **arguments,
        )
    if not result.converged:
        session.code = NOT_CONVERGED
    if comm.rank == 0:
        _look(session, config, result)


def _look(session: Session, config: RunConfig, result: Any) -> None:
    """Say what came out, and draw it. The result is written: nothing ends the run."""
    voice, most = session.voice, config.fit.max_steps
    path, directory = Path(config.output.store), config.report_directory
    found = _found(path)
    voice.answer(found.text)
    if not result.converged and result.steps >= most:
        newton = ', or fit.solver = "newton"'
        other = newton if config.fit.solver != "newton" else ""
        voice.warn(f"reached max_steps = {most}: raise fit.max_steps{other}.")
    voice.say(f"wrote {path}")
    try:
        files = found.draw(directory) if directory is not None else []
    except Exception as error:
        if not is_bad_input(error):
            raise
        words = f"no report, but the result is written: {in_words_of(error)}"
        voice.warn(f"{words} `distsep report {path} -o FOLDER` makes it.")
        return
    for file in files:
        voice.say(f"wrote {file}")


def _maps(config: RunConfig, comm: Any) -> tuple[Any, Any]:
    """The observation of a configuration, and the pixels of the sphere to use."""
    table = config.observation
    said: dict[str, Any] = {"run": config.provenance}
    if table.store is None:
        data = read_fits(table, config.instrument).share(comm)
        return data.replace(provenance={**data.provenance, **said}), None
    data = store.open_observation(table.store)
    said["observation"] = table.store
    data.provenance = {**data.provenance, **said}
    observed = None
    if table.mask is not None:
        mask = read_mask(table.mask, nside=data.nside, coordsys=data.coordsys)
        observed = {"map": mask, "ordering": "NEST"}
    return data, observed


def _teller(progress: Callable[[int, int, str], None], most: int) -> Callable:
    """What `separate` tells, as a progress bar."""

    def tell(phase: str, passes: int, distance: float | None = None) -> None:
        words = phase if distance is None else f"{phase}, {distance:.1g} sigma to go"
        progress(passes, most, words)

    return tell


def campaign(
    session: Session, path: Path, overrides: list[str], overwrite: bool
) -> None:
    """`distsep campaign`: leaves 3 as exit code if a fit did not converge."""
    from distsep.campaign import require_groups, run_campaign

    voice = session.voice

    def read() -> tuple[Campaign, SkyFolder, list[SkyRow]]:
        found = read_campaign(path, overrides)
        require_groups(found, session.comm.size)
        output = found.config.output
        folder = SkyFolder(output.folder, found.identity, output.results)
        return found, folder, folder.begin(overwrite)

    found, folder, done = session.together(read)
    if done:
        voice.say(f"{folder.path} has {len(done)} of the skies already")
    with voice.progress("campaign") as bar:

        def progress(done: int, of: int, words: str) -> None:
            bar(done, of, words)
            if done * _PARTS // of > (done - 1) * _PARTS // of and done < of:
                voice.say(f"{done} of {of} skies")

        skies = run_campaign(found, folder, done, session.comm, progress)
    session.code = session.comm.bcast(_sum_up(session, folder, skies))


def _sum_up(session: Session, folder: SkyFolder, skies: Skies | None) -> int:
    """Say what the skies are like together, and draw it; the exit code."""
    if skies is None:
        return 0
    text = skies.text()
    session.voice.answer(text)
    table, words, picture = (folder.path / name for name in OUTPUTS)
    skies.write(table)
    with aside(words) as new:
        new.write_text(text)
    files = [table, words]
    if pulls := skies.pulls():
        from distsep.report import pull_plot

        files.append(pull_plot(pulls, picture))
    for file in files:
        session.voice.say(f"wrote {file}")
    return 0 if len(skies.good) == len(skies.rows) else NOT_CONVERGED


def import_maps(
    session: Session,
    files: list[dict],
    table: dict[str, Any],
    instrument: dict[str, Any],
    output: Path | None,
    overwrite: bool,
) -> None:
    """`distsep import`: the same tables as [observation] and [instrument]."""
    path = output or Path("sky.zarr")

    def work() -> Table:
        store.require_place(path, "observation", overwrite=overwrite)
        try:
            where, what = import_tables({**table, "fits": files}, instrument)
        except ConfigError as error:
            raise ValueError(f"{error}\nTry 'distsep import -h'.") from None
        data = read_fits(where, what)
        store.save_observation(data, path, overwrite=overwrite)
        about = _about(path)
        if gaps := _gaps(data):
            about.add_row("gaps", gaps)
        return about

    session.voice.say(session.together(work))


def _gaps(data: Observation) -> str:
    """The pixels in use that some bands did not observe."""
    bands = data.instrument.bands
    counts = np.isnan(data.d).any(axis=1).sum(axis=-1)
    return "\n".join(
        f"{band}: {n} pixels not observed"
        for band, n in zip(bands, counts, strict=True)
        if n
    )


def export(
    session: Session, path: Path, output: Path | None, partial: bool, overwrite: bool
) -> None:
    """`distsep export`: one FITS file per band, or per component and for chi2."""
    from distsep.data.export import export_store

    def work() -> list[Path]:
        directory = output or Path(f"{path.name.removesuffix('.zarr')}_fits")
        _is_there(path)
        return export_store(path, directory, partial=partial, overwrite=overwrite)

    for file in session.together(work):
        session.voice.say(f"wrote {file}")


def report(session: Session, path: Path, output: Path | None) -> None:
    """`distsep report`: the table on the terminal, the pictures beside the store."""

    def work() -> tuple[str, list[Path]]:
        found = _found(path)
        return found.text, found.draw(output or report_directory(path))

    text, files = session.together(work)
    session.voice.answer(text)
    for file in files:
        session.voice.say(f"wrote {file}")


class _Found(NamedTuple):
    """A stored result: its table, and what it was made of if that is still there."""

    text: str
    result: Any
    observation: Any

    def draw(self, directory: Path) -> list[Path]:
        """The pictures and the table, as files."""
        from distsep.report import report

        return report(self.result, directory, self.observation)


def _found(path: Path) -> _Found:
    """Read a result."""
    from distsep.table import text_table

    _is_there(path)
    result = store.read(path)
    if not isinstance(result, distsep.Result):
        raise ValueError(f"{path} holds an observation, not a result.")
    observation = _separated(result)
    truth = observation.truth if observation is not None else None
    text = text_table(result, truth.parameters if truth is not None else None)
    return _Found(text, result, observation)


def _separated(result: Any) -> Any:
    """What a result was made of, if it is still where it was; or None."""
    source = result.provenance.get("observation")
    if source is None or not Path(source).is_dir():
        return None
    try:
        found = store.open_observation(source)
    except ValueError:  # something else is there now
        return None
    other = found.nside, found.stokes, found.instrument.bands, found.provenance
    ours = {k: v for k, v in result.provenance.items() if k not in _OF_A_RUN}
    if other == (result.nside, result.stokes, tuple(result.bands), ours):
        return found
    _log.warning("%s was written again since: compared without it.", source)
    return None


def info(session: Session, path: Path) -> None:
    """`distsep info`: the header of a store; no pixel is read."""
    session.voice.answer(session.together(lambda: _about(path)))


def _about(path: str | Path) -> Table:
    """What a store holds."""
    _is_there(path)
    reader = store.GroupReader(path)
    table = Table("what", f"{path} ({reader.kind})", title_justify="left")
    for name, value in _facts(reader):
        table.add_row(name, value)
    return table


def _facts(reader: Any) -> list[tuple[str, str]]:
    head, grid = reader.header, reader.grid
    sky = 100 * grid.npix / (12 * head.nside**2)
    facts = [
        (
            "pixels stored",
            f"{grid.npix} of nside {head.nside}, {sky:.1f}% of the sky",
        ),
        ("stokes", f"{head.stokes}, {head.coordsys}, {head.polcconv}"),
        ("chunks", f"{grid.nchunks} of {grid.chunk} pixels"),
    ]
    if reader.kind == "observation":
        stored = store.StoredObservation(reader)
        facts += [
            ("instrument", describe(stored.instrument)),
            ("noise", stored.noise_in_words),
            ("type", str(stored.dtype)),
        ]
        if stored.resolution:
            facts.append(("resolution", f"{stored.resolution:g} arcmin"))
        if stored.truth is not None:
            known = stored.truth.parameters.items()
            words = (f"{k} = {'varies' if v is None else v}" for k, v in known)
            facts.append(("truth", ", ".join(words)))
    else:
        state = "converged" if head.converged else "not converged"
        facts += [
            ("components", ", ".join(head.component_names)),
            ("parameters", f"{len(head.names)}: {', '.join(head.kinds)}"),
            ("fit", f"{state}: {head.message}"),
        ]
    facts += [("warning", text) for text in head.warnings]
    return facts
