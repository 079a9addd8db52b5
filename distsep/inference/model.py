"""The tables of the pools at given parameters: A, its derivatives, the global terms.

Computed in a jit of its own on one device, so that the sharded pass takes them as
inputs and keeps its bits whatever the number of devices.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from distsep.inference.likelihood import Tables


class Model:
    """From the vector of parameters to the tables of every pool.

    Args:
        mixing: MixingMatrix of all components.
        index: `(pool, kind + global)` parameter of each kind and global term.
        noise_class: `(pool,)` noise class.
        white: `(class, row)` or `(class, row, row)`, or None: see `NoiseClasses`.
        band_rows: For each global term on a band, the row it acts on.
        regional: Columns of A with one amplitude per region instead of per sample.
    """

    def __init__(self, mixing, index, noise_class, white, band_rows=(), regional=()):
        self.mixing = mixing
        self.index = jnp.asarray(index)
        self.nkind = len(mixing.names)
        self._class = jnp.asarray(noise_class)
        self._white = None if white is None else jnp.asarray(white)
        self._band_rows = tuple(band_rows)
        self._regional = tuple(regional)

    @partial(jax.jit, static_argnums=(0, 2))
    def tables(self, x: jax.Array, second: bool = False) -> Tables:
        """Tables at the parameters x; with second derivatives if asked for.

        Communication: none.
        """
        values = x[self.index[:, : self.nkind]]
        A, dA, d2A = self.mixing.evaluate(values)
        A, dA = self._whiten(A), self._whiten(dA)
        d2A = self._whiten(d2A) if second else None
        ncolumn = A.shape[-1]
        free = np.array([c for c in range(ncolumn) if c not in self._regional], int)
        order = np.concatenate([free, np.array(self._regional, int)])
        regional = A[..., np.array(self._regional, int)]
        npool, nrow = A.shape[:2]
        bands = jnp.zeros((npool, len(self._band_rows), nrow))
        bands = bands.at[
            :, jnp.arange(len(self._band_rows)), jnp.array(self._band_rows, int)
        ].set(1.0)
        bands = jnp.swapaxes(self._whiten(jnp.swapaxes(bands, 1, 2)), 1, 2)
        A = A[..., free]
        Q, R = jnp.linalg.qr(A)
        eye = jnp.broadcast_to(jnp.eye(len(free)), R.shape)
        Rinv = jax.scipy.linalg.solve_triangular(R, eye, lower=False)
        return Tables(
            A=A,
            Q=Q,
            Rinv=Rinv,
            dA=dA[..., order],
            d2A=None if d2A is None else d2A[..., order],
            regional=regional,
            phi=jnp.concatenate([bands, jnp.swapaxes(regional, 1, 2)], 1),
            alpha=x[self.index[:, self.nkind :]],
        )

    def _whiten(self, x):
        """Apply the whitening of its noise class to the rows of every pool."""
        if self._white is None:
            return x
        white = self._white[self._class]
        if white.ndim == 2:
            shape = (white.shape[0],) + (1,) * (x.ndim - 3) + (white.shape[1], 1)
            return white.reshape(shape) * x
        return jnp.einsum("prs,p...sc->p...rc", white, x)
