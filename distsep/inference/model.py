"""The tables of the pools at given parameters: A, its derivatives, the global terms.

Computed in a jit of its own on one device, so that the sharded pass takes them as
inputs and keeps its bits whatever the number of devices.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distsep.inference.likelihood import Tables
from distsep.model.mixing import MixingMatrix


class Shape(NamedTuple):
    """What the compiled tables depend on, beside the numbers.

    Attributes:
        mixing: MixingMatrix of all components.
        band_rows: For each global term on bands, the rows it acts on.
        regional: Columns of A with one amplitude per region instead of per sample.
        second: Whether second derivatives are wanted.
    """

    mixing: MixingMatrix
    band_rows: tuple[tuple[int, ...], ...]
    regional: tuple[int, ...]
    second: bool


class Model:
    """From the vector of parameters to the tables of every pool.

    Args:
        mixing: MixingMatrix of all components.
        index: `(pool, kind + global)` parameter of each kind and global term.
        noise_class: `(pool,)` noise class.
        white: `(class, row)` or `(class, row, row)`, or None: see `NoiseClasses`.
        band_rows: For each global term on bands, the rows it acts on.
        regional: Columns of A with one amplitude per region instead of per sample.

    Attributes:
        index: As given.
        nkind: Number of spectral kinds.
        nrow: Rows of A.
        white: Whitening of each pool, or None.
        column_names: Components whose amplitudes are free in every sample.
    """

    def __init__(self, mixing, index, noise_class, white, band_rows=(), regional=()):
        self._mixing, self._band_rows = mixing, tuple(band_rows)
        self._regional = tuple(regional)
        self.index = jnp.asarray(index)
        self.nkind = len(mixing.names)
        nu, stokes = mixing.instrument.nu, mixing.stokes
        self.nrow = len(nu) * (len(stokes) if mixing.joint else 1)
        names = mixing.component_names
        if mixing.joint:
            names = [f"{c} {k}" for c in names for k in stokes]
        self.column_names = [n for i, n in enumerate(names) if i not in self._regional]
        self.white = (
            None if white is None else jnp.asarray(white[np.asarray(noise_class)])
        )

    def tables(self, x, second: bool = False) -> Tables:
        """Tables at the parameters x; with second derivatives if asked for.

        Communication: none.
        """
        return tables(self.shape(second), x, self.index, self.white)

    def rows(self, x) -> tuple[np.ndarray, np.ndarray]:
        """A `(pool, row, comp)` and F alpha `(pool, row, term)`, not whitened."""
        T = tables(self.shape(False), x, self.index, None)
        return np.asarray(T.A), np.asarray(
            jnp.swapaxes(T.phi * T.alpha[..., None], 1, 2)
        )

    def shape(self, second: bool) -> Shape:
        """What the compiled tables depend on."""
        return Shape(self._mixing, self._band_rows, self._regional, second)


@partial(jax.jit, static_argnums=0)
def tables(shape: Shape, x, index, white) -> Tables:
    """Tables of every pool: a pure function of arrays, beside its shape.

    Args:
        shape: What is compiled in.
        x: All parameters.
        index: `(pool, kind + global)`.
        white: Whitening of each pool, or None.
    """
    nkind = len(shape.mixing.names)
    A, *derivatives = shape.mixing.evaluate(x[index[:, :nkind]])
    A = _whiten(white, A)
    npool, nrow, ncolumn = A.shape
    last = list(shape.regional)
    first = [c for c in range(ncolumn) if c not in last]
    dA, d2A = (
        d.rows(partial(_whiten, white)).reordered(first + last) for d in derivatives
    )
    A = A[..., np.array(first + last)] if last else A
    free, regional = A[..., : len(first)], A[..., len(first) :]
    acts = np.zeros((nrow, len(shape.band_rows)))
    for k, rows in enumerate(shape.band_rows):
        acts[list(rows), k] = 1.0
    bands = _whiten(white, jnp.broadcast_to(acts, (npool, *acts.shape)))
    Q, Rinv = (None, None) if white is None else orthonormal(free)
    return Tables(
        A=free,
        Q=Q,
        Rinv=Rinv,
        dA=dA,
        d2A=d2A if shape.second else None,
        regional=regional,
        phi=jnp.swapaxes(jnp.concatenate([bands, regional], axis=2), 1, 2),
        alpha=x[index[:, nkind:]],
    )


@jax.jit
def orthonormal(A):
    """A = Q R for every pool: Q and R^-1, of `(pool, row, comp)`.

    Gram-Schmidt, each column twice, which is as good as Householder's: a few products
    over all pools at once, where a factorisation per pool would be thousands of calls.
    """
    columns, inverse = [], []
    for j in range(A.shape[-1]):
        a, R = A[..., j], [jnp.zeros(A.shape[0])] * j
        for _ in range(2):
            for i, q in enumerate(columns):
                r = jnp.sum(q * a, -1)
                a = a - r[:, None] * q
                R[i] = R[i] + r
        size = jnp.sqrt(jnp.sum(a * a, -1))
        columns.append(a / size[:, None])
        # Column j of R^-1: -R^-1[:, :j] R[:j, j] / R[j, j], and 1 / R[j, j].
        above = sum((R[i][:, None] * inverse[i] for i in range(j)), 0.0)
        unit = jnp.zeros((A.shape[0], A.shape[-1])).at[:, j].set(1.0)
        inverse.append((unit - above) / size[:, None])
    if not columns:
        return A, jnp.zeros((A.shape[0], 0, 0))
    return jnp.stack(columns, -1), jnp.stack(inverse, -1)


def _whiten(white, x):
    """Apply the whitening of each pool to `(pool, row, ...)`."""
    if white is None:
        return x
    if white.ndim == 2:
        return white[..., None] * x
    return jnp.einsum("prs,psc->prc", white, x)
