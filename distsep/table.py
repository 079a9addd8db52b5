"""A result in words and numbers, as a person reads it. No drawing, no file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from distsep.data.result import FAR, Result

Truth = Mapping[str, float | None]
_IN_A_LINE = 6


@dataclass(frozen=True)
class Row:
    """One kind of parameter.

    Attributes:
        name: "Dust.beta_d".
        start, fitted, sigma: In words, rounded to what sigma allows; of patches, the
            median, and the range of `fitted`.
        truth: True value, "varies", or "".
        pull: (fitted - truth) / sigma; of patches, the rms; "" without one true value.
        patches: Patches that have data; 1 for a single value.
    """

    name: str
    start: str
    fitted: str
    sigma: str
    truth: str
    pull: str
    patches: int


@dataclass(frozen=True)
class Goodness:
    """How well the model fits.

    Attributes:
        chi2: Sum over all samples.
        dof: Degrees of freedom.
        z: (chi2 - dof) / sqrt(2 dof).
        p: Probability of a larger chi2.
    """

    chi2: float
    dof: int
    z: float
    p: float

    def __str__(self) -> str:
        p = f"p = {self.p:.2g}" if self.p > 1e-99 else "p < 1e-99"
        words = (
            f"chi2/dof = {self.chi2 / self.dof:.5f} (chi2 = {self.chi2:.1f}, "
            f"dof = {self.dof}; z = {self.z:+.1f}, {p})"
        )
        if abs(self.z) > FAR:
            words += "\n  " + (
                "too large: the model is too simple, or the noise larger than stated"
                if self.z > 0
                else "too small: the noise is smaller than stated"
            )
        return words


def goodness(result: Result) -> Goodness | None:
    """Return chi2 and what it means, or None where it means nothing."""
    chi2, dof = result.chi2_total, result.dof
    if dof <= 0 or not np.isfinite(chi2):
        return None
    z = (chi2 - dof) / np.sqrt(2 * dof)
    return Goodness(chi2, dof, float(z), float(special.chdtrc(dof, chi2)))


def parameter_rows(result: Result, truth: Truth | None = None) -> list[Row]:
    """Return one row per kind of parameter.

    Args:
        result: What was fitted.
        truth: True values by kind; None for those that vary over the sky, which are
            given no pull. By default those of a campaign's sky.
    """
    truth = result.provenance.get("truth", {}) if truth is None else truth
    return [_row(result, kind, truth) for kind in result.parameters]


def text_table(result: Result, truth: Truth | None = None) -> str:
    """Return the whole summary as lines of text."""
    heads = ("parameter", "start", "fitted", "sigma", "truth", "pull", "patches")
    rows = [
        (r.name, r.start, r.fitted, r.sigma, r.truth, r.pull, str(r.patches))
        for r in parameter_rows(result, truth)
    ]
    for name, (value, error) in result.global_terms.items():
        values, errors = (np.atleast_1d(np.asarray(x, float)) for x in (value, error))
        known = np.isfinite(values)
        fitted, sigma = _in_words(values[known], errors[known])
        regions = str(known.sum()) if len(values) > 1 else ""
        rows.append((name, "", fitted, sigma, "", "", regions))
    kept = [n for n in range(len(heads)) if n == 0 or any(row[n] for row in rows)]
    if all(row[6] in ("1", "") for row in rows):
        kept = [n for n in kept if n != 6]
    if not rows:
        words = ["no free parameter: nothing was fitted", "", *_facts(result)]
        return "\n".join(words) + "\n"
    table = aligned([[row[n] for n in kept] for row in (heads, *rows)])
    return "\n".join([*table, "", *_facts(result)]) + "\n"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return words in columns as lines, the first of them the heads, underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            word.ljust(width) if n == 0 else word.rjust(width)
            for n, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return lines


def _facts(result: Result) -> list[str]:
    """Return what there is to say beside the parameters."""
    fit = goodness(result)
    why = "it is not finite" if result.dof > 0 else f"dof = {result.dof}"
    lines = [str(fit) if fit else f"chi2 is not quoted: {why}"]
    lines += [_spoken(result), f"steps: {result.steps}"]
    if result.reduced is not None:
        few, many = result.reduced
        lines.append(f"fitted to {few} rows that stand for {many} samples, exactly")
    if result.residual_power is not None:
        rms = np.sqrt(result.residual_power)
        each = zip(result.bands, rms, strict=True)
        words = [f"{band} {', '.join(f'{x:.3g}' for x in row)}" for band, row in each]
        head = f"residual rms [uK_CMB], {result.stokes}: "
        for n in range(0, len(words), _IN_A_LINE):
            lines.append(head + "; ".join(words[n : n + _IN_A_LINE]))
            head = "  "
    if result.seconds:
        phases = ", ".join(f"{name} {t:.2f}" for name, t in result.seconds.items())
        total = sum(result.seconds.values())
        lines.append(f"seconds: {phases}; together {total:.2f}")
    lines.append(f"ranks x devices: {result.ranks} x {result.devices}")
    lines += [f"warning: {warning}" for warning in result.warnings]
    return lines


def _spoken(result: Result) -> str:
    """Return how the fit ended; that it did not converge is not overlooked."""
    state = "converged" if result.converged else "not converged"
    words = result.message.removeprefix(state).lstrip(": ")
    return f"{state if result.converged else state.upper()}: {words}"


def _row(result: Result, kind: str, truth: Truth) -> Row:
    """Return the row of one kind."""
    fitted = np.atleast_1d(np.asarray(result.parameters[kind], float))
    sigma = np.atleast_1d(np.asarray(result.sigma[kind], float))
    start = np.atleast_1d(np.asarray(result.start[kind], float))
    known = np.isfinite(fitted)
    n = int(known.sum())
    true = truth.get(kind)
    pulls = (
        (fitted - true) / sigma if true is not None else np.full(len(fitted), np.nan)
    )
    pulls = pulls[np.isfinite(pulls)]
    pull = ""
    if len(pulls):
        pull = f"{pulls[0]:+.2f}" if len(fitted) == 1 else f"rms {_rms(pulls):.2f}"
    value_text, error_text = _in_words(fitted[known], sigma[known])
    said = "" if kind not in truth else "varies" if true is None else f"{true:g}"
    started = start[known] if len(start) == len(known) else start
    return Row(kind, f"{_median(started):g}", value_text, error_text, said, pull, n)


def _in_words(values: np.ndarray, errors: np.ndarray) -> tuple[str, str]:
    """Return values and their errors: of many, the median and the range."""
    error = _median(errors)
    value_text, error_text = _rounded(_median(values), error)
    if len(values) > 1:
        low, high = (_rounded(f(values), error)[0] for f in (np.min, np.max))
        value_text = f"{value_text} [{low}, {high}]"
    return value_text, error_text


def _rounded(value: float, sigma: float) -> tuple[str, str]:
    """Return a value and its error with two digits of the error."""
    if not (np.isfinite(sigma) and sigma > 0):
        return f"{value:.6g}", "-" if np.isnan(sigma) else f"{sigma:g}"
    digits = max(0, 1 - int(np.floor(np.log10(sigma))))
    return f"{value:.{digits}f}", f"{sigma:.{digits}f}"


def _median(values: np.ndarray) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
