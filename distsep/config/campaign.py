"""campaign.toml: many skies of one sky.toml, each separated as one run.toml says."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from distsep.config.check_data import Known
from distsep.config.checks import run_problems
from distsep.config.errors import ConfigError, Problem
from distsep.config.model import build_instrument
from distsep.config.run import ComponentTable, RunConfig
from distsep.config.sky import SkyConfig, read_sky
from distsep.config.tables import FileTable, LawTable, Table, read_tables

_LARGEST = 2**63  # of a seed
_MOST = 10**7  # skies


class CampaignTable(Table):
    """Which skies, and how the ranks share them.

    Attributes:
        sky, run: The files; `observation.store` of the latter is not looked at.
        skies: How many.
        first_seed: `sky.seed` of the first; those of the others follow.
        ranks_per_sky: Ranks that separate one sky together.
    """

    sky: str = "sky.toml"
    run: str = "run.toml"
    skies: Annotated[int, Field(ge=1, le=_MOST)]
    first_seed: Annotated[int, Field(ge=0, lt=_LARGEST)] = 0
    ranks_per_sky: Annotated[int, Field(ge=1)] = 1

    @property
    def seeds(self) -> range:
        """`sky.seed` of every sky."""
        return range(self.first_seed, self.first_seed + self.skies)


class CampaignOutputTable(Table):
    """What is kept, and where.

    Attributes:
        folder: Of the table and the picture.
        results: Whether the result of each sky is kept there too, with its maps.
    """

    folder: str = "campaign"
    results: bool = False


class CampaignConfig(FileTable):
    """All of campaign.toml."""

    campaign: CampaignTable
    output: CampaignOutputTable = CampaignOutputTable()


class Campaign(NamedTuple):
    """The three files of a campaign, known to be good."""

    config: CampaignConfig
    sky: SkyConfig
    run: RunConfig

    @property
    def identity(self) -> dict[str, Any]:
        """What its skies have in common: rows of another are not added to its own."""
        run: Any = {"output": True, "observation": {"store"}}
        sky: Any = {"output": True, "sky": {"seed"}}
        tables = {
            self.config.campaign.sky: self.sky.model_dump(mode="json", exclude=sky),
            self.config.campaign.run: self.run.model_dump(mode="json", exclude=run),
        }
        return {**tables, "file": dict(_files(tables))}

    def sky_of(self, seed: int) -> SkyConfig:
        """The configuration of one sky."""
        found = self.sky.model_copy(
            update={"sky": self.sky.sky.model_copy(update={"seed": seed})}
        )
        said = self.sky.provenance
        own = [*said.get("overrides", ()), f"sky.seed={seed}"]
        found._source = {**said, "overrides": own}
        return found


def read_campaign(path: str | Path, overrides: Sequence[str] = ()) -> Campaign:
    """Read campaign.toml and the files it names, and check what can be checked.

    Args:
        path: The file.
        overrides: Assignments `section.key=value` to its own keys, or to those of the
            other two: `sky.section.key=value`, `run.section.key=value`.

    Raises:
        ConfigError: listing all mistakes of the file; then those of the other two.

    Communication: none.
    """
    others = {name: [*_for(name, overrides)] for name in ("sky", "run")}
    own = [o for o in overrides if not o.startswith(("sky.", "run."))]
    config = read_tables(CampaignConfig, LawTable, path, own, _problems)
    problems: list[str] = []
    sky = _collect(problems, config.campaign.sky, read_sky, others["sky"])
    read_run = partial(_read_run, known=Known() if sky is None else _known(sky))
    run = _collect(problems, config.campaign.run, read_run, others["run"])
    if sky is None or run is None:
        raise ConfigError(str(path), problems)
    return Campaign(config, sky, run)


def _problems(config: CampaignConfig) -> Iterator[Problem]:
    for key in ("sky", "run"):
        name = getattr(config.campaign, key)
        if not Path(name).expanduser().is_file():
            message = f"there is no file `{name}`: see launch/examples for one"
            yield ("campaign", key), message
    if Path(config.campaign.sky) == Path(config.campaign.run):
        yield ("campaign", "run"), "is the file of `campaign.sky`: give one of its own"


def _for(name: str, overrides: Sequence[str]) -> Iterator[str]:
    """The assignments to the keys of one of the files."""
    yield from (
        o.removeprefix(f"{name}.") for o in overrides if o.startswith(f"{name}.")
    )


def _files(tables: Any) -> Iterator[tuple[str, str]]:
    """The files that are named anywhere in tables, and what tells their content."""
    if isinstance(tables, dict | list):
        for own in tables.values() if isinstance(tables, dict) else tables:
            yield from _files(own)
    elif isinstance(tables, str) and (path := Path(tables).expanduser()).is_file():
        with path.open("rb") as file:
            yield tables, hashlib.file_digest(file, "sha256").hexdigest()


def _collect(problems: list[str], path: str, read: Any, overrides: list[str]) -> Any:
    """What a file says, or None and its mistakes."""
    try:
        return read(Path(path).expanduser(), overrides)
    except ConfigError as error:
        problems += [f"{path}: {line}" for line in error.problems]
        return None


def _read_run(path: Path, overrides: list[str], known: Known) -> RunConfig:
    problems = partial(run_problems, simulated=known)
    return read_tables(RunConfig, ComponentTable, path, overrides, problems)


def _known(sky: SkyConfig) -> Known:
    """What the skies will be."""
    instrument = build_instrument(sky.instrument)
    shape = sky.sky.stokes, sky.sky.nside, sky.sky.coordsys
    return Known(list(instrument.bands), *shape, instrument)
