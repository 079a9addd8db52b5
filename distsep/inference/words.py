"""What a fit says of itself: one sentence on how it ended, and its warnings."""

import numpy as np

from distsep.inference.fit import Fit
from distsep.inference.objective import Objective
from distsep.inference.solve import describe_null
from distsep.inference.uncertainty import Uncertainty, disagreement

_DISAGREE = 0.1


def describe(
    objective: Objective, found: Fit, errors: Uncertainty, tolerance: float, few: int
) -> tuple[str, list[str]]:
    """Say how a fit ended, and what the user should hear of.

    Args:
        objective: What was minimised.
        found: Where it ended.
        errors: Its uncertainties.
        tolerance: Distance wanted [sigma].
        few: Samples that have fewer bands than there are components.

    Communication: none.
    """
    local = found.local
    passes = f"{found.passes[0]} + {found.passes[1]} passes"
    farthest = f"{local.distance.max(initial=0.0):.2g} sigma"
    bad = int((~found.converged).sum())
    message = f"within {farthest} of the optimum, {passes}"
    if bad:
        message = (
            f"{bad} of {objective.nblocks} independent blocks not converged (largest "
            f"distance {farthest}, wanted {tolerance:g}), {passes}"
        )
    warnings = [
        f"{_list(objective.parameters.names, mask)} {what}"
        for what, mask in (
            ("stopped at a bound, or without any data", local.held),
            ("no true optimum there: indefinite Hessian", errors.indefinite),
        )
        if mask.any()
    ]
    if few:
        warnings.append(
            f"{few} samples have fewer bands than there are components: masked."
        )
    degenerate = _degenerate(objective, found)
    if degenerate:
        warnings.append(degenerate)
    off = disagreement(errors)
    if off > _DISAGREE:
        warnings.append(
            f"Fisher's and the Hessian's errors differ by up to {100 * off:.0f}%: the "
            "signal to noise is low; `sigma` is from H^-1 F H^-1."
        )
    return message, warnings


def _degenerate(objective: Objective, found: Fit) -> str | None:
    if not objective.gauge.shape[1]:
        return None
    linear = np.flatnonzero(objective.parameters.linear)
    tables = objective.model.tables(found.x)
    null = objective.gauge[linear]
    mine = objective.index[0, objective.model.nkind :]
    at = np.searchsorted(linear, mine)
    return describe_null(
        null[at] / np.linalg.norm(null, axis=0),
        [objective.parameters.names[i] for i in mine],
        np.asarray(tables.phi[0]),
        np.asarray(tables.A[0]),
        objective.model.column_names,
    )


def _list(names, mask: np.ndarray) -> str:
    which = [n for n, m in zip(names, mask, strict=True) if m]
    more = f" and {len(which) - 5} more" if len(which) > 5 else ""
    return f"{', '.join(which[:5])}{more}:"
