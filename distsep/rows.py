"""What was found in many skies, one row for each, and how it is kept as it comes.

A campaign that was cut short goes on where it ended: a row is one line of a file that
one rank alone writes.
"""

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distsep.data.place import aside, require_folder
from distsep.data.result import Result

_MARK, _ROWS, _RESULTS = "campaign.json", "rows", "results"
OUTPUTS = ("skies.csv", "skies.txt", "pulls.png")


@dataclass(frozen=True)
class SkyRow:
    """What was found in one sky.

    Attributes:
        seed: `sky.seed`.
        values, errors: Of every kind of parameter, and of every global term; of
            patches one for each, NaN where there are no data.
        converged, distance, passes: How the fit ended.
        chi2, dof: Of all samples.
        seconds: From the simulation to the result.
        warnings: Of the separation.
    """

    seed: int
    values: dict[str, list[float]]
    errors: dict[str, list[float]]
    converged: bool
    distance: float
    passes: int
    chi2: float
    dof: int
    seconds: float
    warnings: list[str]

    @classmethod
    def of(cls, seed: int, result: Result, seconds: float) -> "SkyRow":
        """The row of a result."""
        terms = result.global_terms.items()
        values = {**result.parameters, **{k: v for k, (v, _) in terms}}
        errors = {**result.sigma, **{k: e for k, (_, e) in terms}}
        return cls(
            seed=seed,
            values={k: np.atleast_1d(v).tolist() for k, v in values.items()},
            errors={k: np.atleast_1d(e).tolist() for k, e in errors.items()},
            converged=result.converged,
            distance=result.distance,
            passes=result.steps,
            chi2=result.chi2_total,
            dof=result.dof,
            seconds=seconds,
            warnings=list(result.warnings),
        )

    @classmethod
    def read(cls, words: dict[str, Any]) -> "SkyRow | None":
        """The row that was written as these words; None if they are none."""
        convert = {
            **dict.fromkeys(("seed", "passes", "dof"), int),
            **dict.fromkeys(("distance", "chi2", "seconds"), float),
            **dict.fromkeys(("values", "errors"), _numbers),
            "converged": bool,
            "warnings": lambda warnings: [str(w) for w in warnings],
        }
        try:
            row = cls(**{key: convert[key](word) for key, word in words.items()})
        except (TypeError, ValueError, KeyError, AttributeError):
            return None
        same = {k: len(v) for k, v in row.errors.items()} == dict(row.kinds)
        return row if same else None

    @property
    def kinds(self) -> tuple[tuple[str, int], ...]:
        """The kinds of parameters, and how many of each."""
        return tuple((kind, len(own)) for kind, own in self.values.items())

    @property
    def z(self) -> float:
        """Standard deviations that chi2 is above the degrees of freedom."""
        return (
            (self.chi2 - self.dof) / np.sqrt(2 * self.dof) if self.dof > 0 else np.nan
        )


class SkyFolder:
    """The folder of a campaign: its rows, and what all its skies have in common.

    Nothing in it is made or replaced before the first new row is there. Every row
    carries the number of its campaign, so that those of another one, which was replaced
    or goes on beside it, are none of ours.

    Args:
        path: The folder.
        identity: Content of the files that it is made of, by their names.
        results: Whether the result of each sky is kept.
    """

    def __init__(
        self, path: str | Path, identity: Mapping[str, Any], results: bool = False
    ):
        self.path, self.results = Path(path).expanduser(), results
        self._mark, self._rows = self.path / _MARK, self.path / _ROWS
        # As it is when it has been written and read again.
        self._identity = json.loads(json.dumps(dict(identity)))
        self._number, self._is_new = uuid.uuid4().hex, True

    def begin(self, overwrite: bool = False) -> list[SkyRow]:
        """Find the rows of the skies that are done; nothing is written.

        Raises:
            FileExistsError: a store, a file, a folder with other files, or a campaign
                of other skies, which is not to be replaced.
            PermissionError: if nothing can be written there.

        Communication: none; one rank calls it, and hands this folder to the others.
        """
        require_folder(self.path)
        if not self._mark.exists():
            there = {p.name for p in self.path.iterdir()} if self.path.exists() else ()
            if set(there) - {_RESULTS}:  # these may come before the mark
                raise FileExistsError(
                    f"{self.path} exists and is no campaign: choose another "
                    "`output.folder`, or `-o`."
                )
            return []
        if overwrite:
            return []
        self._number = self._of_same(_read(self._mark.read_bytes()))
        self._is_new = False
        rows = self.rows()
        return [r for r in rows if not self.results or self.result(r.seed).exists()]

    def _of_same(self, mark: Any) -> str:
        """The number of the campaign that is there, if its skies are these."""
        remedy = (
            "choose another `output.folder` (`-o`), or start anew with `--overwrite`."
        )
        if not isinstance(mark, dict) or set(mark) != {"number", "files"}:
            raise FileExistsError(f"{self._mark} is damaged: {remedy}")
        if other := _difference(self._identity, mark["files"]):
            raise FileExistsError(
                f"{self.path} has skies that were made with another {other}: {remedy}"
            )
        return str(mark["number"])

    def commit(self, first: Iterable[int]) -> None:
        """Make the folder, in place of what `overwrite` replaces.

        Args:
            first: Seeds of the skies that are done already, whose results may be there.

        Communication: none; one rank calls it, before any adds a row.
        """
        if self._is_new and self._mark.exists():
            self._clear({self.result(seed).name for seed in first})
        self._rows.mkdir(parents=True, exist_ok=True)
        if not self._is_new:
            return
        mark = {"number": self._number, "files": self._identity}
        with aside(self._mark) as new:
            new.write_text(json.dumps(mark, indent=1))

    def _clear(self, kept: set[str]) -> None:
        """Delete what the campaign that is replaced has made, but for these results."""
        for path in (self.path / _RESULTS).glob("*.zarr"):
            if path.name not in kept:
                shutil.rmtree(path)
        shutil.rmtree(self._rows, ignore_errors=True)
        for name in OUTPUTS:
            (self.path / name).unlink(missing_ok=True)

    def result(self, seed: int) -> Path:
        """Where the result of a sky is kept."""
        return self.path / _RESULTS / f"{seed:06d}.zarr"

    def add(self, row: SkyRow, writer: int) -> None:
        """Keep a row; each writer has a file of its own.

        Raises:
            OSError: with the name of the file.

        Communication: none.
        """
        path = self._rows / f"{writer:05d}.jsonl"
        line = json.dumps({"campaign": self._number, **asdict(row)})
        try:
            with path.open("a") as file:
                # A line before that was cut short is ended first.
                file.write(f"\n{line}\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error

    def rows(self) -> list[SkyRow]:
        """The rows there are, by seed. A line that was cut short or harmed is none."""
        read = [
            _read(line)
            for path in sorted(self._rows.glob("*.jsonl"))
            for line in path.read_bytes().splitlines()
        ]
        mine = [r for r in read if isinstance(r, dict)]
        mine = [r for r in mine if r.pop("campaign", None) == self._number]
        rows = [row for row in map(SkyRow.read, mine) if row is not None]
        most = Counter(row.kinds for row in rows).most_common(1)
        found = {row.seed: row for row in rows if row.kinds == most[0][0]}
        return [found[seed] for seed in sorted(found)]


def _numbers(table: dict[str, Any]) -> dict[str, list[float]]:
    return {str(kind): [float(x) for x in own] for kind, own in table.items()}


def _difference(one: Any, other: Any) -> str:
    """The first key in which two tables differ, with those above it; "" if none."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        if isinstance(one, list) and isinstance(other, list):
            return _difference(dict(enumerate(one)), dict(enumerate(other)))
        return "" if one == other else "value"
    for key in [*one, *(k for k in other if k not in one)]:
        inner = _difference(one.get(key), other.get(key))
        if inner:
            return f"{key}" if inner == "value" else f"{key}: {inner}"
    return ""


def _read(text: bytes) -> Any:
    """What JSON says; None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None
