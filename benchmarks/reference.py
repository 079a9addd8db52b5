r"""Plain numpy: the likelihood by its normal equations, as anyone would write it first.

Both the answer that every benchmark is checked against and a competitor of its own.
Imports nothing of distsep.

$$ -\ln L = \tfrac12 \sum r^T N^{-1} r, \quad r = d - A \hat s, \quad
   (A^T N^{-1} A)\, \hat s = A^T N^{-1} d $$
"""

import numpy as np

H_OVER_K = 6.62607015e-34 * 1e9 / 1.380649e-23  # K / GHz
T_CMB = 2.7255
STEP = 1e-30  # of the complex step: no difference is taken
PIECE = 4096  # pixels: what stays in cache
ACTS_ON = (1, 1, 2)  # column that each parameter changes


def emission(nu, beta_d, temp, beta_pl, nu0):
    """CMB, modified black body, power law `(..., freq, 3)` in K_CMB, 1 at nu0."""
    beta_d, temp, beta_pl = (np.asarray(x)[..., None] for x in (beta_d, temp, beta_pl))

    def to_K_CMB(nu):  # of a brightness in K_RJ
        x = H_OVER_K * nu / T_CMB
        return np.expm1(x) ** 2 / (x**2 * np.exp(x))

    def law(f, at):
        return f(nu) * to_K_CMB(nu) / (f(at) * to_K_CMB(at))

    def dust(v):
        return v ** (beta_d + 1) / np.expm1(H_OVER_K * v / temp)

    shape = np.broadcast_shapes(beta_d.shape[:-1], beta_pl.shape[:-1])
    one = np.ones((*shape, len(nu)))
    laws = law(dust, nu0[0]), law(lambda v: v**beta_pl, nu0[1])
    return np.stack([one, *(one * x for x in laws)], -1)


def emission_and_derivatives(nu, values, nu0):
    """A `(..., freq, 3)`, and the column each parameter changes: `(3, ..., freq)`."""
    dA = []
    for k, column in enumerate(ACTS_ON):
        moved = [v + 1j * STEP * (i == k) for i, v in enumerate(values)]
        dA.append(emission(nu, *moved, nu0)[..., column].imag / STEP)
    return emission(nu, *values, nu0), np.array(dA)


def value_gradient(x, nu, nu0, d, invN, patch=None):
    """-ln L and its gradient.

    Args:
        x: Values of the three parameters, one array over patches each.
        nu: Bands [GHz].
        nu0: Reference frequencies of dust and synchrotron [GHz].
        d: Maps `(freq, stokes, pix)`.
        invN: Inverse variances, of the same shape or with one pixel.
        patch: `(3, pix)` patch of every pixel, or None.

    Returns:
        The value, and a gradient for each parameter in the shape of `x`.
    """
    one_for_all = patch is None
    if one_for_all:
        A, dA = emission_and_derivatives(nu, [v[0] for v in x], nu0)
    else:
        sets, which = np.unique(patch, axis=1, return_inverse=True)
        values = [v[i] for v, i in zip(x, sets, strict=True)]
        tables = emission_and_derivatives(nu, values, nu0)
    total, gradient = 0.0, [np.zeros(len(v)) for v in x]
    for k in range(d.shape[1]):
        for first in range(0, d.shape[2], PIECE):
            part = slice(first, first + PIECE)
            w = invN[:, k] if invN.shape[2] == 1 else invN[:, k, part]
            if one_for_all:
                half, slope = _one_matrix(A, dA, d[:, k, part], w)
                total += half
                for g, s in zip(gradient, slope, strict=True):
                    g += s
                continue
            i = which.ravel()[part]
            half, slopes = _own_matrices(
                tables[0][i], tables[1][:, i], d[:, k, part], w
            )
            total += half
            for g, s, p in zip(gradient, slopes, patch[:, part], strict=True):
                g += np.bincount(p, s, len(g))
    return total, gradient


def _one_matrix(A, dA, d, w):
    """One A for all pixels: the sums over bands are matrix products."""
    nf, nc = A.shape
    pairs = (A[:, :, None] * A[:, None, :]).reshape(nf, nc * nc)
    AtNA = (np.broadcast_to(w, d.shape).T @ pairs).reshape(-1, nc, nc)
    AtNd = (w * d).T @ A
    s = np.linalg.solve(AtNA, AtNd[..., None])[..., 0]
    r = d - A @ s.T
    Nr = w * r
    G = Nr @ s
    slope = [-(dA[k] @ G[:, c]) for k, c in enumerate(ACTS_ON)]
    return 0.5 * np.vdot(Nr, r), slope


def _own_matrices(A, dA, d, w):
    """A of each pixel `(pix, freq, 3)`."""
    wA = np.broadcast_to(w, d.shape).T[:, :, None] * A
    At = np.swapaxes(A, 1, 2)
    s = np.linalg.solve(At @ wA, np.swapaxes(wA, 1, 2) @ d.T[:, :, None])
    r = d.T - (A @ s)[..., 0]
    Nr = w.T * r
    slope = [-(dA[k] * Nr).sum(1) * s[:, c, 0] for k, c in enumerate(ACTS_ON)]
    return 0.5 * np.vdot(Nr, r), slope


def of_sky(sky, x, nu0):
    """`value_gradient` of a `skies.Sky`."""
    return value_gradient(x, sky.nu, nu0, sky.d, 1 / sky.variance, sky.patch)


def distance(gradient, covariance) -> float:
    """Distance from the optimum in sigma: the root of g^T C g."""
    g = np.concatenate(gradient)
    return float(np.sqrt(max(g @ covariance @ g, 0.0)))
