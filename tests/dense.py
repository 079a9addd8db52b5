"""The separation as its definition: dense matrices, one sample at a time, numpy only.

A sample is one pixel and Stokes parameter. `mix(x)` gives the mixing matrices of all
samples, (sample, freq, comp), from one vector of parameters, real or complex.
"""

import numpy as np

H_OVER_K = 6.62607015e-34 * 1e9 / 1.380649e-23  # K / GHz
T_CMB = 2.7255
STEP = 1e-25  # of the complex step: no difference is taken, so none is too small


def emission(nu, beta_d, temp, beta_pl, nu_d=150.0, nu_s=20.0):
    """CMB, modified black body, power law: (freq, 3) in K_CMB, 1 at nu_d and nu_s."""

    def to_K_CMB(nu):  # of a brightness in K_RJ
        x = H_OVER_K * nu / T_CMB
        return np.expm1(x) ** 2 / (x**2 * np.exp(x))

    def law(f, nu0):
        return f(nu) * to_K_CMB(nu) / (f(nu0) * to_K_CMB(nu0))

    dust = law(lambda v: v ** (beta_d + 1) / np.expm1(H_OVER_K * v / temp), nu_d)
    return np.stack([np.ones(len(nu)), dust, law(lambda v: v**beta_pl, nu_s)], 1)


def solve(A, d, invN):
    """Amplitudes, their covariance and chi2 of every sample."""
    s, covariance, chi2 = [], [], []
    for A_p, d_p, invN_p in zip(A, d, invN, strict=True):
        AtNA = A_p.T @ invN_p @ A_p
        s.append(np.linalg.solve(AtNA, A_p.T @ invN_p @ d_p))
        covariance.append(np.linalg.solve(AtNA, np.eye(len(AtNA))))
        r = d_p - A_p @ s[-1]
        chi2.append(r @ invN_p @ r)
    return np.array(s), np.array(covariance), np.array(chi2)


def value(mix, x, d, invN):
    """-ln L at the best amplitudes, without its constant."""
    return 0.5 * solve(mix(x), d, invN)[2].sum()


def _steps(x):
    return [x + 1j * STEP * unit for unit in np.eye(len(x))]


def gradient(mix, x, d, invN):
    """Of `value`, with a complex step: exact to rounding, no formula used."""
    return np.array([value(mix, y, d, invN).imag for y in _steps(x)]) / STEP


def hessian(mix, x, d, invN, scale):
    """Of `value`: fourth-order differences of its gradient, over steps of `scale`."""
    rows = []
    for unit in np.eye(len(x)) * scale:
        far = gradient(mix, x + 2 * unit, d, invN) - gradient(
            mix, x - 2 * unit, d, invN
        )
        near = gradient(mix, x + unit, d, invN) - gradient(mix, x - unit, d, invN)
        rows.append((8 * near - far) / (12 * unit.sum()))
    rows = np.array(rows)
    return 0.5 * (rows + rows.T)


def fisher(mix, x, d, invN):
    """y^T Q y, y = dA/dx s at the best amplitudes, Q what these leave of invN."""
    A = mix(x)
    s = solve(A, d, invN)[0]
    dA = [mix(y).imag / STEP for y in _steps(x)]
    F = np.zeros((len(x), len(x)))
    for p, (A_p, invN_p) in enumerate(zip(A, invN, strict=True)):
        y = np.array([dA_k[p] @ s[p] for dA_k in dA])
        NA = invN_p @ A_p
        F += y @ (invN_p - NA @ np.linalg.solve(A_p.T @ NA, NA.T)) @ y.T
    return F
