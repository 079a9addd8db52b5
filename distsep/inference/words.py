"""What a fit says of itself: one sentence on how it ended, and its warnings."""

import numpy as np

from distsep.inference import solve
from distsep.inference.distinct import alike
from distsep.inference.fit import Fit
from distsep.inference.objective import Objective
from distsep.inference.uncertainty import Uncertainty, disagreement

_DISAGREE = 0.1
# Up to this error of a spectral index the intervals were seen to hold.
LARGEST_INDEX_ERROR = 0.3
_LARGEST_TEMPERATURE_ERROR = 0.1
_CONTRADICTED = 5.0


def describe(
    objective: Objective, found: Fit, errors: Uncertainty, tolerance: float, few: int
) -> tuple[str, list[str]]:
    """Say how a fit ended, and what the user should hear of.

    Args:
        objective: What was minimised.
        found: Where it ended.
        errors: Its uncertainties.
        tolerance: Distance wanted [sigma].
        few: Samples that lack bands which tell their components apart.

    Communication: none.
    """
    local = found.local
    passes = f"{found.passes[0]} + {found.passes[1]} passes"
    farthest = f"{local.distance.max(initial=0.0):.2g} sigma"
    warnings = [
        f"{_list(objective.parameters.names, mask)} {what}"
        for what, mask in (
            ("stopped at a bound, or without any data", local.held),
            ("no true optimum there: indefinite Hessian", errors.indefinite),
        )
        if mask.any()
    ]
    same, components = alike(objective, found.x)
    if same.any():
        warnings.append(
            f"{' and '.join(components)} cannot be told apart where the fit ended: "
            "their amplitudes mean nothing there."
        )
    bad = int((~found.converged).sum())
    message = f"within {farthest} of the optimum, {passes}"
    if bad:
        why = f"largest distance {farthest}, wanted {tolerance:g}"
        if (local.distance <= tolerance).all():
            why = "; ".join(warnings)
        message = (
            f"{bad} of {objective.nblocks} independent blocks not converged ({why}), "
            f"{passes}"
        )
    if few:
        warnings.append(
            f"{few} samples lack bands that tell their components apart, or the "
            "weights of theirs do not: masked."
        )
    degenerate = _degenerate(objective, found)
    if degenerate:
        warnings.append(degenerate)
    warnings += _unreliable(objective, found, errors) + _contradicted(
        objective, found, errors
    )
    off = disagreement(errors)
    # Of what has not converged nothing is known yet.
    vanished = errors.vanished & found.converged[objective.label]
    if vanished.any():
        warnings.append(
            f"{_list(objective.parameters.names, vanished)} hardly constrained "
            "by these data, by a likelihood far from Gaussian: the errors are from "
            "H^-1, for H^-1 F H^-1 vanishes, and no interval is known to hold. Give a "
            "prior, use larger patches, or look at `Result.sample`."
        )
    elif off > _DISAGREE:
        warnings.append(
            f"Fisher's and the Hessian's errors differ by up to {100 * off:.0f}%: low "
            "signal to noise, or (see chi2/dof) a model that does not describe the "
            "data; `sigma` is from H^-1 F H^-1."
        )
    return message, warnings


def _unreliable(objective: Objective, found: Fit, errors: Uncertainty) -> list[str]:
    """Say which parameters are too uncertain for their intervals to hold."""
    p, sigma = objective.parameters, np.nan_to_num(errors.sigma)
    sigma = np.fmax(sigma, np.nan_to_num(errors.sigma_hessian))
    index = np.array([".beta" in n for n in p.names], bool)
    warm = np.array([".temp" in n for n in p.names], bool)
    free = ~found.local.held & ~p.linear & (sigma > 0)
    near = (found.x - p.lower < sigma) | (p.upper - found.x < sigma)
    why = "where the 68% and 95% intervals are not known to hold: give a prior, or use "
    said = (
        (index & (sigma > LARGEST_INDEX_ERROR), f"over {LARGEST_INDEX_ERROR:g}"),
        (
            warm & (sigma > _LARGEST_TEMPERATURE_ERROR * np.abs(found.x)),
            f"over {100 * _LARGEST_TEMPERATURE_ERROR:g}% of the temperature",
        ),
        (free & near, "that reaches a bound"),
    )
    return [
        f"{_list(p.names, mask)} an error {how}, {why}larger patches."
        for mask, how in said
        if mask.any()
    ]


def _contradicted(objective: Objective, found: Fit, errors: Uncertainty) -> list[str]:
    """Say which priors the data contradict.

    x - mean is s^2 times the score of the data at the mean, s^2 of the Hessian. Where
    both agree the score has the variance F + H^2 std^2 of the data, and s^4 F is what
    the sandwich has beyond the prior's share: of a good Hessian, std^2 - s^2 in all.
    """
    p = objective.parameters
    known = np.flatnonzero((p.prior_precision > 0) & ~found.local.held)
    variance = 1 / p.prior_precision[known]
    s2 = np.nan_to_num(errors.sigma_hessian[known]) ** 2
    of_score = np.nan_to_num(errors.sigma[known]) ** 2 - s2**2 / variance
    apart = of_score + variance * (1 - s2 / variance) ** 2
    informed = apart > 1e-9 * variance
    z = np.abs(found.x - p.prior_mean)[known] / np.sqrt(np.where(informed, apart, 1.0))
    z = np.where(informed, z, 0.0)
    worst = np.argsort(-z)[:5]
    said = [f"{p.names[known[i]]} by {z[i]:.0f}" for i in worst if z[i] > _CONTRADICTED]
    if not said:
        return []
    return [f"the data contradict the prior of {', '.join(said)} sigma."]


def _degenerate(objective: Objective, found: Fit) -> str | None:
    linear = np.flatnonzero(objective.parameters.linear)
    if len(linear) > solve.LARGEST_DENSE:
        return (
            f"{len(linear)} global coefficients: more than {solve.LARGEST_DENSE}, so "
            "directions that the data do not determine were not looked for."
        )
    if not objective.gauge.shape[1]:
        return None
    tables = objective.model.tables(found.x)
    null = objective.gauge[linear] / np.linalg.norm(objective.gauge, axis=0)
    # Described where it is largest: a region may be degenerate and the others not.
    at = np.searchsorted(linear, objective.index[:, objective.model.nkind :])
    pool = int(np.argmax((null[at] ** 2).sum((1, 2))))
    return solve.describe_null(
        null[at[pool]],
        [objective.parameters.names[i] for i in linear[at[pool]]],
        np.asarray(tables.phi[pool]),
        np.asarray(tables.A[pool]),
        objective.model.column_names,
    )


def _list(names, mask: np.ndarray) -> str:
    which = [n for n, m in zip(names, mask, strict=True) if m]
    more = f" and {len(which) - 5} more" if len(which) > 5 else ""
    return f"{', '.join(which[:5])}{more}:"
