"""Result: what a separation found, with its errors and its doubts.

Data only. Written and read by `data/store.py`, drawn by `report.py`.
"""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distsep.data.blocks import Grid

# A chi2 so many standard deviations off is remarked upon.
FAR = 5.0


@dataclass(frozen=True, repr=False)
class Result:
    """Parameters, amplitudes and their errors.

    Attributes:
        names: Every free parameter, the order of the matrices.
        parameters: Best fit by kind: `(npatch,)` or a number; NaN in a patch that has
            no data.
        sigma: Standard errors in the same form, from `covariance`.
        start: Where each kind started.
        covariance: H^-1 F H^-1 over `names`, or None beyond 5000 parameters. H^-1 where
            the former vanishes, of parameters hardly constrained: a warning names them.
        hessian_inverse: H^-1, likewise.
        fisher_inverse: F^-1, likewise.
        amplitudes: `(comp, stokes, pix)` [uK_CMB at nu0, see `units`] of this rank's
            pixels in the caller's order; NaN where not observed.
        amplitude_covariance: `(stokes, pix, comp, comp)` of `covariance_names`, the
            part that beta's uncertainty adds included; None if not asked for.
        residuals: `(freq, stokes, pix)` d - A s - F alpha [uK_CMB], if asked for.
        residual_power: `(freq, stokes)` mean square of the residuals [uK_CMB^2].
        global_terms: Coefficient and error of each global term.
        chi2: `(stokes, pix)` r^T N^-1 r of each sample.
        dof: Degrees of freedom of the whole data set: numbers of data less all that was
            estimated; of a parameter with a prior, the part that the data decide.
        chi2_total: Sum of chi2 over all ranks.
        neg_log_like: -ln L at the best fit, without its constant; priors apart.
        converged: Whether every block is within the tolerance.
        steps: Passes over the data of the whole fit.
        message: One sentence on how the fit ended.
        warnings: What the user should hear of.
        component_names: Order of the component axis.
        units: Unit of the amplitudes of each component, those by region too.
        nu0: Reference frequency [GHz] of each component, if it has one.
        bands, stokes, nside, coordsys, polcconv: Of the observation.
        cell_ids: NEST numbers of the pixels of this rank, ascending; of maps in memory
            those that were used, of a store all.
        patches: By kind, if there is more than one: patch of each of these pixels, in
            this order, whatever that of the caller; see `parameter_map`.
        distance: Largest distance from the optimum of any block [sigma].
        seconds: Time of each phase on this rank.
        ranks, devices: How it was cut.
        reduced: Rows of the reduced data and samples they stand for, or None.
        provenance: Configuration, versions.
        grid: Block grid of the data set.
        first_pixel: Number of this rank's first pixel in it.
        caller_index: Place of each observed pixel in the caller's order, or None.
    """

    names: tuple[str, ...]
    parameters: dict[str, np.ndarray | np.floating]
    sigma: dict[str, np.ndarray | np.floating]
    start: dict[str, np.ndarray | np.floating]
    covariance: np.ndarray | None
    hessian_inverse: np.ndarray | None
    fisher_inverse: np.ndarray | None
    amplitudes: np.ndarray | None
    amplitude_covariance: np.ndarray | None
    chi2: np.ndarray | None
    dof: int
    chi2_total: float
    neg_log_like: float
    converged: bool
    steps: int
    message: str
    component_names: tuple[str, ...]
    units: dict[str, str]
    bands: tuple[str, ...]
    stokes: str
    nside: int
    coordsys: str
    polcconv: str
    cell_ids: np.ndarray | None
    nu0: dict[str, float | None] = field(default_factory=dict)
    distance: float = 0.0
    global_terms: dict[str, tuple] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    patches: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    ranks: int = 1
    devices: int = 1
    reduced: tuple[int, int] | None = None
    provenance: dict = field(default_factory=dict)
    residuals: np.ndarray | None = None
    residual_power: np.ndarray | None = None
    covariance_names: tuple[str, ...] = ()
    grid: Grid | None = None
    first_pixel: int = 0
    caller_index: np.ndarray | None = None
    applier: Callable | None = field(default=None, repr=False, compare=False)
    sampler: Callable | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        state = "converged" if self.converged else "NOT CONVERGED"
        fit = f", chi2/dof = {self.chi2_total / self.dof:.4f}" if self.dof > 0 else ""
        return (
            f"Result({' + '.join(self.component_names)}: {len(self.names)} parameters, "
            f"{state}{fit})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """What is copied to other processes: `apply` and `sample` stay here."""
        return {**self.__dict__, "applier": None, "sampler": None}

    def replace(self, **changes: Any) -> "Result":
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def parameter_map(self, name: str) -> np.ndarray:
        """Return a parameter in every pixel, in the order of `amplitudes`.

        Args:
            name: One of `parameters`, "Dust.beta_d".

        Returns:
            `(stokes, pix)`, or `(1, pix)` where all Stokes parameters have the same;
            NaN where no sample was used.

        Raises:
            ValueError: no such parameter; a result whose maps were streamed.

        Communication: none.
        """
        if name not in self.parameters:
            raise ValueError(
                f"`parameter_map({name!r})`: expected one of "
                f"{', '.join(self.parameters) or 'none, for all are fixed'}."
            )
        if self.chi2 is None or self.cell_ids is None:
            raise ValueError(
                "`parameter_map`: the maps are too large to stay in memory: `read` the "
                "store that was written."
            )
        values = np.atleast_1d(self.parameters[name])
        ids = self.patches.get(name, np.zeros((1, len(self.cell_ids)), int))
        used = np.asarray(np.isfinite(self.chi2).any(0))
        if self.caller_index is not None:
            used = used[self.caller_index]
        own = np.where((ids >= 0) & used, values[np.maximum(ids, 0)], np.nan)
        if self.caller_index is None:
            return own
        out = np.full((len(own), self.chi2.shape[-1]), np.nan)
        out[:, self.caller_index] = own
        return out

    def apply(self, observation: Any, output: Any = None) -> "Result":
        """Put the fitted weights W = (A^T N^-1 A)^-1 A^T N^-1 on other maps.

        For splits, noise or foreground simulations of the same pixels and bands: the
        amplitudes are W d at the fitted parameters, linear in d. Global terms are not
        taken off. W on noise-free foregrounds, less their true amplitudes, is the bias
        of the result.

        Args:
            observation: The maps; their own noise is not looked at.
            output: Store to write, as for `separate`.

        Returns:
            This result with the amplitudes of those maps, pixels in the order they have
            here, whatever that of the maps.

        Raises:
            ValueError: if the result was read from a store or pickled, or other pixels.

        Communication: collective, as `separate`.
        """
        return self._applier("Result.apply")(self, observation, output)

    @property
    def weights(self) -> np.ndarray:
        """W = (A^T N^-1 A)^-1 A^T N^-1 of every sample at the fitted parameters.

        Amplitudes of maps d [uK_CMB] without global terms are W d,
        `np.einsum("cfsp,fsp->csp", weights, d)`: what `apply` gives, without keeping W.

        Returns:
            `(comp, freq, stokes, pix)` [unit of the amplitude per uK_CMB], pixels in
            the order of `amplitudes`; 0 for a band that did not observe a sample, NaN
            where none did.

        Raises:
            ValueError: as `apply`; with `angle`; a result whose maps were streamed.

        Communication: collective, as `separate`: one pass for each band.
        """
        apply, _ = self._with_maps("Result.weights")
        maps = [apply(self, band).amplitudes for band in range(len(self.bands))]
        return np.stack(maps, axis=1)

    def _applier(self, what: str) -> Callable:
        """What applies the weights; refuse a result without."""
        if self.applier is None:
            raise ValueError(
                f"`{what}`: this result was read or copied and has no weights: call it "
                "on what `separate` returned."
            )
        return self.applier

    def _with_maps(self, what: str) -> tuple[Callable, np.ndarray]:
        """What applies the weights, and the amplitudes; refuse a result without."""
        apply = self._applier(what)
        if self.amplitudes is None:
            raise ValueError(
                f"`{what}`: the maps are too large to stay in memory: call "
                "`apply(maps, output=...)` and go on from there."
            )
        return apply, self.amplitudes

    def bias(self, foregrounds: Any, truth: np.ndarray) -> tuple:
        r"""Residuals that foregrounds leave in the amplitudes: systematic, statistical.

        $W(\hat\beta)\, d - s$ for noise-free maps d of amplitudes s (0 for the CMB of
        pure foregrounds): the parameters, or the laws, are not those of d. And the
        root of $(\partial W d / \partial\beta)\, C\, (\partial W d /
        \partial\beta)^T$: how far the errors of the parameters move the amplitudes.

        Args:
            foregrounds: Noise-free maps, an observation of the fitted pixels.
            truth: Their amplitudes, `(comp, stokes, pix)` like `amplitudes`.

        Returns:
            Systematic residual and standard deviation of the statistical one, each
            `(comp, stokes, pix)` in the units of `amplitudes`.

        Raises:
            ValueError: as `apply`; amplitudes of another shape, or not finite; a result
                whose maps were streamed.

        Communication: collective, as `separate`.

        References:
            Stompor et al. (2016), PRD 94, 083526.
        """
        apply, found = self._with_maps("Result.bias")
        truth = np.asarray(truth)
        good = truth.dtype.kind in "iuf" and truth.shape == found.shape
        if not good or not np.isfinite(truth[np.isfinite(found)]).all():
            raise ValueError(
                "`Result.bias(truth=...)`: expected the amplitudes of the foregrounds, "
                f"finite numbers (comp, stokes, pix) = {found.shape}, 0 for the CMB; "
                f"got {truth.dtype}, shape {truth.shape}."
            )
        applied = apply(self, foregrounds, spread=True)
        for words in applied.warnings[len(self.warnings) :]:
            warnings.warn(words, stacklevel=2)
        spread = np.einsum("kpcc->ckp", applied.amplitude_covariance)
        return applied.amplitudes - truth, np.sqrt(np.clip(spread, 0, None))

    def sample(self, draws: int = 1000, chains: int = 4, seed: int = 0) -> Any:
        """Sample the profile likelihood times the priors with NUTS.

        It costs nothing in pixels: the reduced data are sampled. Its width is that of
        H^-1, too small at low signal to noise, where `sigma` is better.

        Args:
            draws: Samples of each chain, after it was tuned.
            chains: Number of chains.
            seed: Of the random numbers.

        Returns:
            `inference.sampling.Samples`: names, values (chain, draw, param), r_hat,
            ess; `report.corner_plot` draws them.

        Raises:
            ValueError: if the result was read from a store or pickled, or every pixel
                has its own noise shape.
            ImportError: without blackjax.

        Communication: collective, as `separate`, if the fit did not reduce the data.
        """
        if self.sampler is None:
            raise ValueError(
                "`Result.sample`: this result was read or copied and has no data: call "
                "it on what `separate` returned."
            )
        return self.sampler(draws=draws, chains=chains, seed=seed)
