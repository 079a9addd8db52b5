"""The statistics of many simulated skies: are the errors right, is there a bias?"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distsep.data.place import aside
from distsep.rows import SkyRow
from distsep.table import aligned

_NAMED = 10  # seeds that are listed
_NUMBER = re.compile(r"[-+]?\d[\d.e+-]*")


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
            if true is None:
                continue
            own = _pulls(*self.of(kind), true)
            if len(own := own[np.isfinite(own)]):
                found[kind] = own
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
        with aside(path) as new, new.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow([*heads, *names, *(f"sigma {name}" for name in names)])
            for row in self.rows:
                own = [row.values[k][i] for k, i in columns]
                errors = [row.errors[k][i] for k, i in columns]
                table.writerow([*(getattr(row, h) for h in heads), *own, *errors])

    def text(self) -> str:
        """The statistics of all skies, as lines."""
        heads = ("parameter", "truth", "mean", "scatter", "sigma", "pull", "spread")
        rows = [heads, *map(self._line, self.good[0].values if self.good else ())]
        return "\n".join([*aligned(rows), "", *self._facts()]) + "\n"

    def _line(self, kind: str) -> tuple[str, ...]:
        """Of one kind, all patches together; errors are from sky to sky."""
        values, errors = self.of(kind)
        true = self.truth.get(kind)
        if not np.isfinite(errors).any():
            return kind, "", "", "", "", "", ""
        scatter = np.sqrt(values.var(0, ddof=1).mean()) if len(values) > 1 else np.nan
        error = _error(values) if len(values) > 1 else np.nan
        digits = _digits(error if np.isfinite(error) else np.nanmean(errors))
        mean = f"{values.mean():.{digits}f}"
        said = "varies" if true is None and kind in self.truth else ""
        pull = _moments(_pulls(values, errors, true)) if true is not None else ()
        return (
            kind,
            f"{true:g}" if true is not None else said,
            f"{mean} +- {error:.{digits}f}" if np.isfinite(error) else mean,
            f"{scatter:.3g}" if np.isfinite(scatter) else "",
            f"{np.sqrt(np.nanmean(errors**2)):.3g}",
            *(pull or ("", "")),
        )

    def _facts(self) -> list[str]:
        good, number = self.good, len(self.rows)
        skies = "1 sky" if number == 1 else f"{number} skies"
        lines = [f"{skies}, {len(good)} converged"]
        if len(good) < number:
            seeds = [str(row.seed) for row in self.rows if not row.converged]
            more = ", ..." if len(seeds) > _NAMED else ""
            lines += [
                f"NOT CONVERGED, and left out: seeds {', '.join(seeds[:_NAMED])}{more}",
                "  see their warnings; raise fit.max_steps of the run, or take another "
                "fit.solver",
            ]
        lines += [
            f"{kind} is no parameter of the sky: no pull"
            for kind in (good[0].values if good else ())
            if kind not in self.truth
        ]
        z = self.pulls().get("chi2")
        if z is not None:
            mean, spread = _moments(z[:, None])
            words = f"chi2 - dof in standard deviations: {mean}"
            lines.append(f"{words}, spread {spread}" if spread else words)
        if number:
            seconds = np.median([row.seconds for row in self.rows])
            lines.append(f"seconds: {seconds:.2g} a sky, the median")
        lines += _counted(row.warnings for row in self.rows)
        return lines


def _pulls(values: np.ndarray, errors: np.ndarray, true: float) -> np.ndarray:
    """(values - truth) / errors, `(sky, patch)`; NaN where there is no error."""
    return (values - true) / np.where(errors > 0, errors, np.nan)


def _error(x: np.ndarray) -> float:
    """Error of the mean of `(sky, patch)`: patches of a sky share what is off in it."""
    return float(x.mean(1).std(ddof=1) / np.sqrt(len(x)))


def _moments(x: np.ndarray) -> tuple[str, str]:
    """Mean and standard deviation of `(sky, patch)`, with their errors, in words."""
    x = x[:, np.isfinite(x).all(0)]
    n = len(x) if x.size else 0
    if n < 2:
        return f"{x.mean():+.2f}" if n else "", ""
    mean, spread = x.mean(), x.std(ddof=1)
    error, of_spread = _error(x), _error((x - mean) ** 2) / (2 * max(spread, 1e-300))
    digits = _digits(error)
    return (
        f"{mean:+.{digits}f} +- {error:.{digits}f}",
        f"{spread:.{digits}f} +- {of_spread:.{digits}f}",
    )


def _digits(error: float) -> int:
    """Digits after the point that show two of the error, up to nine."""
    good = np.isfinite(error) and error > 0
    return min(9, max(0, 1 - int(np.floor(np.log10(error))))) if good else 6


def _counted(warnings: Iterable[list[str]]) -> list[str]:
    """Warnings that differ in their numbers or names, each once, and how many skies."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for own in warnings:
        kinds = {_NUMBER.sub("#", words.split(": ", 1)[-1]): words for words in own}
        for kind, words in kinds.items():
            first.setdefault(kind, words)
            counts[kind] += 1
    return [f"warning, in {counts[k]} of them: {words}" for k, words in first.items()]
