"""What was found in many skies: one row for each, kept as it comes, and their pulls.

A campaign that was cut short goes on where it ended: a row is one line of a file that
one rank alone writes.
"""

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from distsep.data.place import require_folder
from distsep.data.result import Result
from distsep.table import aligned

_MARK, _ROWS, _RESULTS = "campaign.json", "rows", "results"
_NAMED = 10  # seeds that are listed
_NUMBER = re.compile(r"[-+]?\d[\d.e+-]*")


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

    @property
    def z(self) -> float:
        """Standard deviations that chi2 is above the degrees of freedom."""
        return (self.chi2 - self.dof) / np.sqrt(2 * self.dof) if self.dof else np.nan


class SkyFolder:
    """The folder of a campaign: its rows, and what all its skies have in common.

    Args:
        path: The folder.
        identity: Content of the files it was made with, by their names.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any]):
        self.path, self.identity = Path(path), dict(identity)

    def begin(self, overwrite: bool = False) -> list[SkyRow]:
        """Make the folder, or find the rows of the skies that are done.

        Raises:
            FileExistsError: a store, a file, a folder with other files, or a campaign
                with other skies, which is not to be replaced.
            PermissionError: if nothing can be written there.

        Communication: none; one rank calls it.
        """
        require_folder(self.path)
        mark = self.path / _MARK
        if not mark.exists() and self.path.exists() and any(self.path.iterdir()):
            raise FileExistsError(
                f"{self.path} exists and is no campaign: choose another "
                "`output.folder`, or `-o`."
            )
        if overwrite and mark.exists():
            shutil.rmtree(self.path / _ROWS, ignore_errors=True)
            shutil.rmtree(self.path / _RESULTS, ignore_errors=True)
            mark.unlink()
        if mark.exists():
            self._require_same(_read(mark.read_bytes()))
        (self.path / _ROWS).mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps(self.identity, indent=1))
        return self.rows()

    def _require_same(self, other: Any) -> None:
        if not isinstance(other, dict) or len(other) != len(self.identity):
            raise FileExistsError(
                f"{self.path / _MARK} is damaged: choose another `output.folder` "
                "(`-o`), or start anew with `--overwrite`."
            )
        pairs = zip(self.identity.items(), other.values(), strict=True)
        changed = [name for (name, mine), theirs in pairs if mine != theirs]
        if changed:
            raise FileExistsError(
                f"{self.path} has skies that were made with another "
                f"{' and '.join(changed)}: choose another `output.folder` (`-o`), or "
                "start anew with `--overwrite`."
            )

    def result(self, seed: int) -> Path:
        """Where the result of a sky is kept."""
        return self.path / _RESULTS / f"{seed:06d}.zarr"

    def add(self, row: SkyRow, writer: int) -> None:
        """Keep a row; each writer has a file of its own.

        Communication: none.
        """
        with (self.path / _ROWS / f"{writer:05d}.jsonl").open("a") as file:
            # A line before that was cut short is ended first.
            file.write(f"\n{json.dumps(asdict(row))}\n")

    def rows(self) -> list[SkyRow]:
        """All rows there are, by seed. A line that was cut short is none."""
        names, found = {f.name for f in fields(SkyRow)}, {}
        for path in sorted((self.path / _ROWS).glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                read = _read(line)
                if isinstance(read, dict) and set(read) == names:
                    found[read["seed"]] = SkyRow(**read)
        return [found[seed] for seed in sorted(found)]


@dataclass(frozen=True)
class Skies:
    """The rows of many skies.

    Attributes:
        rows: By seed.
        truth: True value of every kind of parameter; None where it varies on the sky.
    """

    rows: list[SkyRow]
    truth: Mapping[str, float | None]

    @property
    def good(self) -> list[SkyRow]:
        """Those whose fit converged: the statistics are theirs."""
        return [row for row in self.rows if row.converged]

    def of(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Values and errors of a kind, `(sky, patch)`, of the patches with data."""
        values = np.array([row.values[kind] for row in self.good])
        errors = np.array([row.errors[kind] for row in self.good])
        known = np.isfinite(values).all(0)
        return values[:, known], errors[:, known]

    def pulls(self) -> dict[str, np.ndarray]:
        """(fitted - truth) / sigma by kind, of all skies and patches; and z of chi2.

        Kinds whose truth varies over the sky, or is not known, have none.
        """
        found = {}
        for kind in self.good[0].values if self.good else ():
            true = self.truth.get(kind)
            if true is not None:
                values, errors = self.of(kind)
                found[kind] = ((values - true) / errors).ravel()
        z = np.array([row.z for row in self.good])
        if np.isfinite(z).any():
            found["chi2"] = z[np.isfinite(z)]
        return found

    def write(self, path: Path) -> None:
        """Write the table as a CSV file, one line for each sky."""
        heads = ["seed", "converged", "distance", "passes", "chi2", "dof", "seconds"]
        kinds = list(self.rows[0].values)
        columns = [(k, i) for k in kinds for i in range(len(self.rows[0].values[k]))]
        many = {k: len(self.rows[0].values[k]) > 1 for k in kinds}
        names = [f"{k}[{i}]" if many[k] else k for k, i in columns]
        part = path.with_suffix(".part")
        with part.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow([*heads, *names, *(f"sigma {name}" for name in names)])
            for row in self.rows:
                own = [row.values[k][i] for k, i in columns]
                errors = [row.errors[k][i] for k, i in columns]
                table.writerow([*(getattr(row, h) for h in heads), *own, *errors])
        part.replace(path)

    def text(self) -> str:
        """The statistics of all skies, as lines."""
        heads = ("parameter", "truth", "mean", "scatter", "sigma", "pull", "spread")
        rows = [heads, *map(self._line, self.good[0].values if self.good else ())]
        return "\n".join([*aligned(rows), "", *self._facts()]) + "\n"

    def _line(self, kind: str) -> tuple[str, ...]:
        """Of one kind: patches are counted as so many skies."""
        values, errors = self.of(kind)
        true = self.truth.get(kind)
        if not values.size:
            return kind, "", "", "", "", "", ""
        scatter = np.sqrt(values.var(0, ddof=1).mean()) if len(values) > 1 else np.nan
        mean, error = values.mean(), scatter / np.sqrt(values.size)
        digits = _digits(error if np.isfinite(error) else errors.mean())
        said = "varies" if true is None and kind in self.truth else ""
        pull = _moments(((values - true) / errors).ravel()) if true is not None else ()
        return (
            kind,
            f"{true:g}" if true is not None else said,
            f"{mean:.{digits}f} +- {error:.{digits}f}",
            f"{scatter:.3g}",
            f"{np.sqrt(np.mean(errors**2)):.3g}",
            *(pull or ("", "")),
        )

    def _facts(self) -> list[str]:
        good, number = self.good, len(self.rows)
        lines = [f"{number} skies, {len(good)} converged"]
        if len(good) < number:
            seeds = [str(row.seed) for row in self.rows if not row.converged]
            more = ", ..." if len(seeds) > _NAMED else ""
            lines.append(f"NOT CONVERGED: seeds {', '.join(seeds[:_NAMED])}{more}")
        z = self.pulls().get("chi2")
        if z is not None:
            mean, spread = _moments(z)
            lines.append(f"chi2 - dof in standard deviations: {mean}, spread {spread}")
        if number:
            seconds = np.median([row.seconds for row in self.rows])
            lines.append(f"seconds: {seconds:.2g} a sky, the median")
        lines += _counted(row.warnings for row in self.rows)
        return lines


def _read(text: bytes) -> Any:
    """What JSON says; None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _moments(x: np.ndarray) -> tuple[str, str]:
    """Mean and standard deviation, with their errors, in words."""
    n = len(x)
    if n < 2:
        return f"{x.mean():+.2f}", ""
    spread = x.std(ddof=1)
    digits = _digits(spread / np.sqrt(n))
    return (
        f"{x.mean():+.{digits}f} +- {spread / np.sqrt(n):.{digits}f}",
        f"{spread:.{digits}f} +- {spread / np.sqrt(2 * n):.{digits}f}",
    )


def _digits(error: float) -> int:
    """Digits after the point that show two of the error."""
    good = np.isfinite(error) and error > 0
    return max(0, 1 - int(np.floor(np.log10(error)))) if good else 6


def _counted(warnings: Iterable[list[str]]) -> list[str]:
    """Warnings that differ in their numbers, each once, and in how many skies."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for own in warnings:
        for kind, words in {_NUMBER.sub("#", words): words for words in own}.items():
            first.setdefault(kind, words)
            counts[kind] += 1
    return [f"warning, in {counts[k]} skies: {words}" for k, words in first.items()]
