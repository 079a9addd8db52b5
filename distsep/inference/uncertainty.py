r"""Covariance of the parameters at the optimum.

$C = H^{-1} F(\hat s) H^{-1}$: the score of the profiled likelihood has the variance F,
Fisher's matrix at the estimated amplitudes, and H is the exact Hessian; at low signal
to noise neither H^-1 nor F^-1 alone has the right width. A prior adds its precision
to both. Where C is far smaller than H^-1 the data say next to nothing at the optimum, F
has vanished, and so would C: H^-1 stands in its place, and a warning says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.csgraph import connected_components

from distsep.data import pages
from distsep.inference.curvature import Factor, places, sandwich_diagonal
from distsep.inference.newton import Local
from distsep.inference.objective import Objective
from distsep.inference.quadratic import hold
from distsep.inference.schur import Schur, split

# Above this many parameters full matrices are not formed (5000^2 x 8 B = 200 MB).
LARGEST_MATRIX = 5000
# Coupled parameters whose covariances are found one by one: two solves for each.
LARGEST_COUPLED = 20_000
_DENSE = 64  # coupled parameters, up to which a block is inverted as a whole
_COLUMNS = 512  # that are solved for at once
# C of less than this share of the variance of H^-1 is none: there F has vanished.
_LEAST = 0.25


@dataclass(frozen=True)
class Uncertainty:
    """Errors of the parameters.

    Attributes:
        sigma: Root of the diagonal of `covariance`; NaN for held parameters.
        sigma_hessian, sigma_fisher: Of H^-1, of F^-1.
        covariance, hessian_inverse, fisher_inverse: Full matrices, or None.
        indefinite: True for parameters of blocks whose Hessian is not positive.
        vanished: True for parameters whose Fisher matrix has vanished; `covariance` of
            their blocks is H^-1.
        of_pools: `(pool, n)` parameters -> `(pool, n, n)` entries of the covariance.
        left_out: Whether these lack correlations: of more than `LARGEST_COUPLED`
            parameters that are all coupled.
    """

    sigma: np.ndarray
    sigma_hessian: np.ndarray
    sigma_fisher: np.ndarray
    covariance: np.ndarray | None
    hessian_inverse: np.ndarray | None
    fisher_inverse: np.ndarray | None
    indefinite: np.ndarray
    vanished: np.ndarray
    of_pools: Callable[[np.ndarray], np.ndarray]
    left_out: bool


def uncertainty(objective: Objective, local: Local) -> Uncertainty:
    """Covariance of the parameters; Fisher's where the Hessian is not positive.

    Args:
        objective: The objective.
        local: Its quadratic model at the optimum.

    Communication: none.
    """
    n, held = objective.parameters.number, local.held
    use = ~local.indefinite
    H = hold(objective.matrix(local.point, use), held)
    F = hold(objective.matrix(local.point, False), held)
    # The gauge is no information: what it adds along the null directions goes again.
    gauge = objective.gauge / np.maximum((objective.gauge**2).sum(0), 1e-300)
    free = (gauge**2).sum(1)
    H, F, *diagonals = _diagonals(H, F, objective.label, objective.wide)
    inverse, sandwich, fisher = (d - free for d in diagonals)
    # What the gauge adds is in both: without it rounding alone would decide.
    vanished = ~held & (diagonals[1] < _LEAST * diagonals[0])
    variance = F
    if vanished.any():
        # H^-1 V H^-1 with V = H is H^-1: in these blocks, which nothing couples.
        blocks = np.isin(objective.label, objective.label[vanished])
        variance = (sparse.diags_array(1.0 * ~blocks) @ F).tocsc()
        variance = (variance + sparse.diags_array(1.0 * blocks) @ H).tocsc()
        sandwich = np.where(blocks, inverse, sandwich)
    full = n <= LARGEST_MATRIX

    def of_pools(index):
        if C is not None:
            return C[index[:, :, None], index[:, None, :]]
        found = _selected(H, variance, objective.label, sandwich + free, index)
        found -= gauge[index] @ gauge[index].swapaxes(1, 2)
        live = ~held[index]
        return found * (live[:, :, None] & live[:, None, :])

    def root(v):
        return np.where(held | ~(v > 0), np.nan, np.sqrt(np.abs(v)))

    Hinv = Finv = C = None
    if full and n:
        Hinv, Finv, C = _by_block(H, F, variance)
        if held.any() or gauge.shape[1]:
            live, known = np.outer(~held, ~held), gauge @ gauge.T
            Hinv, Finv, C = (np.where(live, m - known, 0.0) for m in (Hinv, Finv, C))
    largest = int(np.bincount(objective.label).max(initial=0))
    return Uncertainty(
        root(sandwich),
        root(inverse),
        root(fisher),
        C,
        Hinv,
        Finv,
        local.indefinite[objective.label] if n else np.zeros(0, bool),
        vanished,
        of_pools,
        C is None and largest > LARGEST_COUPLED,
    )


def _diagonals(H, F, label, wide) -> tuple:
    """H and F, made positive if they are not, and diagonals of H^-1, H^-1 F H^-1, F^-1.

    Blocks whose factor would fill in are inverted by a dense Schur complement.
    """
    rest, pattern = np.ones(len(label), bool), (abs(H) + abs(F)).tocsr()
    parts: list[tuple[np.ndarray, Callable]] = []
    for block in np.flatnonzero(wide):
        rows = np.flatnonzero(label == block)
        first = split(pattern[rows][:, rows])
        if first is not None:
            rest[rows] = False
            parts.append((rows, partial(Schur, first=first)))
    if rest.any() or not parts:
        parts.append((np.flatnonzero(rest), partial(Factor, label=label[rest])))

    def positive(M):
        return all(invert(M[rows][:, rows]).positive for rows, invert in parts)

    if not (positive(H) and positive(F)):
        floor = sparse.diags_array(1e-12 * F.diagonal())
        H, F = (H + floor).tocsc(), (F + floor).tocsc()
    out = np.zeros((3, len(label)))
    for rows, invert in parts:
        hessian, fisher = (M[rows][:, rows] for M in (H, F))
        out[:2, rows] = sandwich_diagonal(hessian, fisher, invert)
        out[2, rows] = invert(fisher).inverse_diagonal()
    return H, F, *out


def _by_block(H, F, V) -> list[np.ndarray]:
    """H^-1, F^-1 and H^-1 V H^-1, full, each independent block on its own."""
    H, F, V = H.copy(), F.copy(), V.copy()
    for matrix in (H, F, V):  # a zero that is stored joins no blocks
        matrix.eliminate_zeros()
    label = connected_components(abs(H) + abs(F), directed=False)[1]
    place, size = places(label), np.bincount(label)
    out = [pages.empty(H.shape, float) for _ in range(3)]
    for whole in out:
        whole.fill(0.0)
    for m in np.unique(size):
        number, rows, mine = _of_size(label, place, m)
        h, f, v = (_blocks(x, number, place, rows, mine) for x in (H, F, V))
        Hinv, Finv = np.linalg.inv(h), np.linalg.inv(f)
        at = rows[:, :, None], rows[:, None, :]
        for whole, part in zip(out, (Hinv, Finv, Hinv @ v @ Hinv), strict=True):
            whole[at] = 0.5 * (part + part.swapaxes(1, 2))
    return out


def _of_size(label, place, m) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The independent blocks of m parameters.

    Returns:
        Number of the block of each parameter among them, `(block, m)` parameters, and
        True for those that are in one.
    """
    size = np.bincount(label)
    chosen, mine = np.flatnonzero(size == m), size[label] == m
    number = np.searchsorted(chosen, label)
    rows = np.empty((len(chosen), m), int)
    rows[number[mine], place[mine]] = np.flatnonzero(mine)
    return number, rows, mine


def _blocks(matrix, number, place, rows, mine) -> np.ndarray:
    """Cut blocks out of a sparse matrix: `(block, m, m)`."""
    entries = matrix.tocoo()
    i, j = entries.row, entries.col
    keep = mine[i]
    i, j, values = i[keep], j[keep], entries.data[keep]
    out = np.zeros((*rows.shape, rows.shape[1]))
    out[number[i], place[i], place[j]] = values
    return out


def uncorrelated(u: Uncertainty) -> list[str]:
    """Say that covariances of amplitudes lack something."""
    if not u.left_out:
        return []
    return [
        "amplitude covariances: correlations of parameters are left out, for more than "
        f"{LARGEST_COUPLED} are all coupled: these errors may be several times too "
        "large, or too small. Use fewer patches, or patches that nest."
    ]


def _selected(H, F, label, diagonal, index) -> np.ndarray:
    """Entries of H^-1 F H^-1 for the parameters of each pool; the rest is not formed.

    Args:
        H: Hessian, positive.
        F: Variance of the score.
        label: Independent block of each parameter; a pool lies in one.
        diagonal: Of H^-1 F H^-1: all there is for more than `LARGEST_COUPLED`.
        index: `(pool, n)`.
    """
    out = np.zeros((*index.shape, index.shape[1]))
    if not index.size:
        return out
    size, of_pool = np.bincount(label), label[index[:, 0]]
    place = places(label)
    for m in np.unique(size[np.unique(of_pool)]):
        pools = np.flatnonzero(size[of_pool] == m)
        if m <= _DENSE:
            number, rows, mine = _of_size(label, place, m)
            h, f = (_blocks(M, number, place, rows, mine) for M in (H, F))
            inverse = np.linalg.inv(h)
            found, i = inverse @ f @ inverse, place[index[pools]]
            at = number[index[pools]][:, :1, None]
            out[pools] = found[at, i[:, :, None], i[:, None, :]]
            continue
        for block in np.unique(of_pool[pools]):
            mine = pools[of_pool[pools] == block]
            if m > LARGEST_COUPLED:
                out[mine] = diagonal[index[mine]][:, :, None] * np.eye(index.shape[1])
                continue
            rows = np.flatnonzero(label == block)
            h, f = (M[rows][:, rows].tocsc() for M in (H, F))
            out[mine] = _by_columns(h, f, place[index[mine]])
    return out


def _by_columns(h, f, index) -> np.ndarray:
    """The same of one large block, column by column: `(pool, n, n)`."""
    first = split(h)
    invert = Factor(h) if first is None else Schur(h, first)
    out, n = np.zeros((*index.shape, index.shape[1])), h.shape[0]
    for start in range(0, n, _COLUMNS):
        unit = np.zeros((n, min(_COLUMNS, n - start)))
        unit[start + np.arange(unit.shape[1]), np.arange(unit.shape[1])] = 1.0
        found = invert.solve(f @ invert.solve(unit))
        for k in range(index.shape[1]):
            column = index[:, k] - start
            pools = np.flatnonzero((column >= 0) & (column < unit.shape[1]))
            out[pools, :, k] = found[index[pools], column[pools][:, None]]
    return out


def estimated(objective: Objective, u: Uncertainty) -> int:
    """Number of parameters that the data decide, which chi2 is smaller by.

    With priors of precision P it is tr (F + P)^-1 F: none of a parameter that its prior
    holds, one of a parameter whose prior says nothing.

    Communication: none.
    """
    own = objective.parameters.prior_precision * u.sigma_fisher**2
    return round(len(own) - objective.gauge.shape[1] - float(np.nansum(own)))


def disagreement(u: Uncertainty) -> float:
    """Largest relative difference of Fisher's and the Hessian's standard errors."""
    if not len(u.sigma):
        return 0.0
    ratio = np.abs(u.sigma_fisher / u.sigma_hessian - 1)
    return float(np.nanmax(ratio, initial=0.0))
