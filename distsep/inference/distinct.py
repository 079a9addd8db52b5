"""Whether the components can be told apart: the condition of A in every pool.

Two components of one emission law have amplitudes of any size and opposite signs. The
likelihood does not see it, so that nothing else would say so.
"""

import numpy as np

from distsep.inference.model import orthonormal
from distsep.inference.objective import Objective

# Of A with columns of unit length: its condition, which the normal equations square,
# and how much less than one the product of two columns of one direction is.
_WORST = 1e7
_SAME = 1e-12


def alike(objective: Objective, x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Find the pools where A has columns that cannot be told apart.

    Args:
        objective: The objective.
        x: Parameters.

    Returns:
        True for each such pool, and the components that are alike in the first.

    Communication: none.
    """
    A = objective.model.tables(x, True).A
    # Rows of R^-1 that are large belong to columns that the others make up.
    Rinv, A = orthonormal(A)[1], np.asarray(A)
    size = np.linalg.norm(A, axis=1)
    with np.errstate(invalid="ignore"):
        rows = np.abs(size[:, :, None] * np.asarray(Rinv)).max(2, initial=0.0)
    # Equal columns leave no number; a law that is not finite is another matter.
    finite = np.isfinite(size).all(1)
    bad = finite & ~(rows.max(1, initial=0.0) < _WORST)
    if not bad.any():
        return bad, ()
    pool, names = np.argmax(bad), np.array(objective.model.column_names, object)
    # Of two that are the same what is left is rounding, which any column may make up.
    unit = A[pool] / np.where(size[pool] > 0, size[pool], 1.0)
    same = (np.abs(unit.T @ unit - np.eye(len(names))) > 1 - _SAME).any(0)
    if same.any():
        return bad, tuple(names[same])
    first = np.nan_to_num(rows[pool], nan=np.inf)
    return bad, tuple(names[first >= min(_WORST, first.max())])


def require_distinct(objective: Objective, x: np.ndarray) -> None:
    """Refuse a start where two components have one emission law.

    Raises:
        ValueError: naming them.
    """
    bad, names = alike(objective, x)
    if bad.any():
        at = zip(objective.parameters.names[:6], x[:6], strict=False)
        raise ValueError(
            f"`separate(components=...)`: {' and '.join(names)} have the same emission "
            "law in these bands at the start"
            + "".join(f", {name}={value:.6g}" for name, value in at)
            + ": their amplitudes cannot be told apart. Leave one out, or start them "
            "apart."
        )
