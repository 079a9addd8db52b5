"""How much a sparse factor of the parameters' matrix will fill in.

Patches that are regions of the sky meet few others: the factor is hardly larger than
the matrix. Patches whose pixels are scattered over the sky (groups of like pixels) all
meet: the factor of w of them is full, w^3 operations and w^2 numbers.
"""

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.csgraph import dijkstra

# Wider than this (see `widths`), conjugate gradients take over. Seconds that the steps
# of a `newton` fit took on 2 cores, compilation included, passes over the data not:
#
#   patches of the three kinds     pools  width  factor            CG
#   10,000/500/500 regions        16,679    122  0.1               1.1
#   50,000/2,000/2,000 regions    76,013    239  0.8               4.6
#   50,000 of each, regions      161,084  1,302  9                 22
#   10,000/500/500 scattered      49,152    988  2.2               1.2
#   10,000/2,000/2,000 scattered  49,152  3,583  64 (+380 MB)      0.7
#   50,000/5,000/5,000 scattered 196,608  7,754  > 150 per factor  2.7
#
# Regions are factored at every size that was tried. Errors (`uncertainty`) of wide
# blocks are those of a dense Schur complement (see schur.py): 23 s for
# 10,000/2,000/2,000 scattered patches, more than 490 s with the factor.
WIDEST = 1500
# A kind of fewer patches costs so many rows at most.
_FEW = 64


def widths(index: np.ndarray, label: np.ndarray, least: int) -> np.ndarray:
    """Estimate the largest full part in the factor of each independent block.

    The kind of most patches goes first: its patches are apart, so their elimination is
    cheap. The rest is cut along levels of equal distance from one end, and the largest
    is what becomes full: few rows where the patches are regions, nearly all where they
    are scattered. Kinds of few patches are not counted.

    Args:
        index: `(pool, n)` parameter of each kind and global term in each pool.
        label: Independent block of each parameter.
        least: Blocks of so many parameters or fewer are not looked at: 0.

    Returns:
        By block, in parameters.
    """
    size = np.bincount(label)
    out = np.zeros(len(size), int)
    for block in np.flatnonzero(size > least):
        mine = label[index[:, 0]] == block
        out[block] = _width(index[mine], len(label))
    return out


def _width(index: np.ndarray, number: int) -> int:
    number_of = np.array([len(np.unique(column)) for column in index.T])
    most = int(np.argmax(number_of))
    others = [k for k in np.flatnonzero(number_of >= _FEW) if k != most]
    if not others:
        return 0
    # A pool links its patches: through that of the first kind all reach one another.
    rows = np.tile(index[:, most], len(others))
    columns = index[:, others].T.ravel()
    links = sparse.coo_matrix(
        (np.ones(len(rows)), (rows, columns)), shape=(number, number)
    ).tocsr()
    counted = np.zeros(number, bool)
    counted[columns] = True
    start = index[0, most]
    for _ in range(2):  # the second time from the end that the first one found
        steps = dijkstra(links, directed=False, unweighted=True, indices=start)
        start = np.argmax(np.where(np.isfinite(steps), steps, -1.0))
    level = np.bincount(steps[counted & np.isfinite(steps)].astype(int) // 2)
    return int(level.max())
