"""The whole flow of a separation, on one page.

components -> A(beta) -> samples, sharded over ranks and devices -> sums -> fit ->
errors -> amplitudes. Ranks and devices are joined to the mathematics here and nowhere
else: the rooms below take sums and devices as functions.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distsep.agreement import require_one_call
from distsep.data.result import Result
from distsep.inference.amplitudes import SecondPass
from distsep.inference.fit import fit, setting_mistakes
from distsep.inference.noise_bias import Corrected, noise_mistakes, noise_samples
from distsep.inference.objective import Objective
from distsep.inference.passes import Devices, PoolSums
from distsep.inference.reduce import ReducedData, block_root, merge_roots
from distsep.inference.sampling import Samples, sample
from distsep.inference.uncertainty import (
    Uncertainty,
    estimated,
    uncertainty,
    uncorrelated,
)
from distsep.inference.words import describe
from distsep.keep import Keeper, keeping_mistakes
from distsep.maps import source_of
from distsep.parallel import comm as ranks
from distsep.parallel import mesh as meshes
from distsep.parallel import one_blas_thread
from distsep.problem import Problem, misfit, set_up

# What each rank may give as it has it.
_OF_A_RANK = ("observation", "observed", "comm", "devices", "tell")


@one_blas_thread
def separate(
    components: Sequence,
    observation: Any,
    *,
    patches: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    priors: Mapping[str, tuple] | None = None,
    bounds: Mapping[str, tuple] | None = None,
    shared: Mapping[str, Any] | None = None,
    calibration: Sequence[str] | None = None,
    band_shift: Sequence[str] | None = None,
    angle: Sequence[str] | None = None,
    global_terms: Sequence = (),
    solver: str = "adam",
    tolerance: float = 1e-3,
    max_steps: int = 1000,
    reduce: bool | None = None,
    noise_true: Any = None,
    observed: Any = None,
    amplitude_unit: str = "uK_CMB",
    amplitude_covariance: Sequence[str] | None = (),
    residuals: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    comm: Any = None,
    devices: int | None = None,
    tell: Callable | None = None,
) -> Result:
    """Separate frequency maps into components.

    Args:
        components: Emission laws, `distsep.CMB()`, `distsep.Dust(nu0=353.0)`, ...
        observation: Maps in memory (with `comm`, those of this rank, as of
            `observation.share(comm)`), or what `distsep.open_observation` returns: then
            every rank reads its own chunks.
        patches: By parameter name, where it has one value: an nside, whose cells are
            numbered in NEST order; ids of the pixels; see `read_patches`.
        start: Where to start: a number, from which one value for the whole sky is
            found for patches to start at; or one per patch, NaN where it has no data.
        fixed: Parameters held at a number.
        priors: `(mean, std)` of Gaussian priors.
        bounds: `(lower, upper)`.
        shared: Parameters that are one: see `MixingMatrix`.
        calibration: Names of bands with a gain as parameter.
        band_shift: Names of bands whose bandpass may be shifted [GHz].
        angle: Names of bands with a polarisation angle [rad].
        global_terms: `distsep.Monopole(...)`, `Dipole`, `Template`, `Regional`.
        solver: `"adam"`, `"lbfgs"` or `"newton"`.
        tolerance: Distance from the optimum [sigma] at which a fit has converged.
        max_steps: Largest number of passes over the data, without those that see
            where a solver ended.
        reduce: Fit the exact reduction of the data; None: where it is smaller.
        noise_true: Where the noise has another frequency shape than the one assumed:
            its variance over that, `(freq,)` or `(freq, stokes)`. The noise bias of the
            likelihood is then taken off; errors and chi2 stay those of the assumed.
        observed: True for each pixel to use: of maps in memory in their own order, of a
            stored observation for the sphere in RING order, as all maps of a sphere
            are unless `{"map": ..., "ordering": "NEST"}` says otherwise.
        amplitude_unit: Of the amplitudes at nu0 (a monochromatic reference).
        amplitude_covariance: Components whose amplitude covariance is kept.
        residuals: Keep residual maps of every band.
        output: Directory of the result store; maps are then written, chunk by chunk.
        overwrite: Replace an existing result.
        comm: Ranks (`distsep.parallel.comm.world()`); None: this process alone.
        devices: Local devices to use; all by default.
        tell: Called with (phase, passes, distance in sigma or None) as the fit goes.

    Returns:
        The result, of this rank's pixels. Its maps are None where the data are
        streamed: read them from `output`.

    Raises:
        ValueError: lists all that is wrong with the input, before anything is
            computed; ranks that were called with different arguments.
        TypeError: `observation` or `comm` is none.

    Communication: collective: all ranks must call it.

    References:
        Stompor et al. (2009), MNRAS 392, 216; Stompor et al. (2016), PRD 94, 083526.
    """
    asked = {k: v for k, v in locals().items() if k not in _OF_A_RANK}
    clock = _Clock()
    comm = _ranks(comm)
    require_one_call(comm, "separate", asked)
    wrong = setting_mistakes(solver, tolerance, max_steps, reduce)
    wrong += keeping_mistakes(residuals, output, overwrite, tell)
    amplitude_covariance = () if amplitude_covariance is None else amplitude_covariance
    local = local_devices(devices)
    source = source_of(observation, observed, comm)
    header = source.header
    wrong += noise_mistakes(noise_true, len(header.instrument.nu), len(header.stokes))
    problem = set_up(
        components,
        source,
        comm=comm,
        patches=patches,
        start=start,
        fixed=fixed,
        priors=priors,
        bounds=bounds,
        shared=shared,
        bands={"calibration": calibration, "band_shift": band_shift, "angle": angle},
        global_terms=global_terms,
        amplitude_unit=amplitude_unit,
        amplitude_covariance=amplitude_covariance,
        mistakes=wrong,
    )
    plan, own, parameters = problem.plan, problem.own, problem.parameters
    kept = problem.kept(amplitude_unit, tuple(amplitude_covariance), residuals)
    reduces = problem.reduces(reduce)
    keeper = Keeper(source, kept, output=output, overwrite=overwrite, comm=comm)
    survey = problem.survey(local, often=not reduces)
    clock("preparing")

    sums = PoolSums(survey, problem.own, plan.pieces, comm.sum)
    if reduces:
        sums = _reduce(problem, sums, local)
        clock("reduction")
    passes = sums
    if noise_true is not None:
        passes = _unbiased(problem, sums, noise_true, local, comm)
    objective = Objective(problem.model, parameters, passes)
    found = fit(
        objective,
        solver=solver,
        tolerance=tolerance,
        max_steps=max_steps,
        tell=tell or (lambda *_: None),
    )
    clock("fit")
    errors = uncertainty(objective, found.local)
    objective.release()  # the result keeps what was found, not the maps
    clock("errors")

    comm.require_same("beta", found.x)
    second = SecondPass(
        survey,
        own.tables(comm.bcast(found.x)),
        plan,
        problem.nstokes,
        errors.of_pools(np.asarray(own.index)) if amplitude_covariance else None,
        own.rows(found.x) if residuals else None,
    )
    keeper.open()
    chi2 = _second_pass(second, keeper, plan, comm)
    clock("amplitudes")

    counts = comm.sum(np.array([*plan.count, plan.few], float))
    message, warnings = describe(objective, found, errors, tolerance, int(counts[2]))
    warnings += problem.warnings(parameters.split(found.x))
    warnings += uncorrelated(errors) if amplitude_covariance else []
    decided = estimated(objective, errors)
    dof = int(counts[0] - problem.ncolumn * counts[1]) - decided
    result = Result(
        **_by_name(problem, found.x, errors.sigma),
        covariance=errors.covariance,
        hessian_inverse=errors.hessian_inverse,
        fisher_inverse=errors.fisher_inverse,
        dof=dof,
        chi2_total=chi2,
        neg_log_like=chi2 / 2,
        converged=bool(found.converged.all()),
        distance=float(found.local.distance.max(initial=0.0)),
        steps=sum(found.passes),
        message=message,
        warnings=(*header.warnings, *warnings, *misfit(chi2, dof, decided)),
        residual_power=keeper.residual_power(partial(plan.block_sum, total=comm.sum)),
        reduced=(sums.rows, int(counts[1])) if isinstance(sums, ReducedData) else None,
        seconds=clock.seconds,
        ranks=comm.size,
        devices=local.number,
        applier=partial(_apply, problem, found.x, errors, amplitude_unit, local, comm),
        sampler=partial(
            _sample,
            problem,
            sums if isinstance(sums, ReducedData) else None,
            objective.gauge,
            found.local,
            local,
            comm,
            corrected=noise_true is not None,
        ),
        **keeper.maps(),
    )
    keeper.finish(result)
    clock("writing")
    return result


def _second_pass(second: SecondPass, keeper: Keeper, plan: Any, comm: Any) -> float:
    """Keep or write every part of the maps; return chi2 of all ranks."""
    block_chi2 = []
    for maps in second:
        keeper.take(maps)
        block_chi2.append(maps.block_chi2)
    return float(plan.block_sum(np.concatenate(block_chi2), comm.sum))


def _by_name(problem: Problem, x: np.ndarray, sigma: np.ndarray) -> dict[str, Any]:
    """Parameters, their errors and starts, by kind; global terms apart."""
    p = problem.parameters
    values, errors, start = p.split(x), p.split(sigma), p.split(p.start)
    kinds = problem.mixing.names
    return {
        "names": p.names,
        "parameters": {k: values[k] for k in kinds},
        "sigma": {k: errors[k] for k in kinds},
        "start": {k: start[k] for k in kinds},
        "global_terms": {
            k.name: (values[k.name], errors[k.name]) for k in problem.terms.kinds
        },
    }


def _reduce(problem: Problem, sums: PoolSums, devices: Devices) -> ReducedData:
    """The exact reduction of the samples. Communication: one allreduce of roots."""
    roots = sums(block_root, None, merge_roots)
    template = problem.terms.template
    return ReducedData(roots, problem.model, template, devices.single)


def _unbiased(
    problem: Problem, sums, noise_true, devices: Devices, comm: Any
) -> Corrected:
    """The sums less their noise bias. Communication: one allreduce of counts."""
    noise = noise_samples(
        noise_true,
        problem.plan,
        problem.model,
        nstokes=problem.nstokes,
        template=problem.terms.template,
        ntemplate=len(problem.terms.keys),
        total=comm.sum,
        single=devices.single,
    )
    return Corrected(sums, noise, problem.model.index.shape[1])


def _sample(
    problem: Problem,
    reduced,
    gauge,
    at,
    devices: Devices,
    comm: Any,
    *,
    corrected: bool,
    **options,
) -> Samples:
    """Sample around the optimum: see `Result.sample`."""
    if corrected:
        raise ValueError(
            "`Result.sample`: the likelihood corrected with `noise_true` is no "
            "likelihood to sample. Give the right noise to the observation."
        )
    if reduced is None:
        if not problem.reducible:
            raise ValueError(
                "`Result.sample`: every pixel has its own noise shape over the bands, "
                "so the data cannot be reduced, and each step would be a pass over "
                "all of them. Use `sigma`, or a common noise shape."
            )
        survey, pieces = problem.survey(devices), problem.plan.pieces
        sums = PoolSums(survey, problem.own, pieces, comm.sum)
        reduced = _reduce(problem, sums, devices)
    objective = Objective(problem.model, problem.parameters, reduced)
    objective.gauge = gauge
    return sample(objective, at, **options)


def _apply(
    problem: Problem,
    x,
    errors: Uncertainty,
    unit: str,
    devices: Devices,
    comm: Any,
    result: Result,
    observation,
    output=None,
    *,
    spread: bool = False,
) -> Result:
    """The fitted weights on other maps of the same samples: see `Result.apply`.

    With `spread`, and the covariance that the parameters' errors give the amplitudes.
    """
    source = problem.pixel_source(observation)
    only_weights = np.where(problem.parameters.linear, 0.0, x)
    chosen = result.component_names if spread else ()
    kept = problem.kept(unit, chosen, False)
    keeper = Keeper(source, kept, output=output, overwrite=False, comm=comm)
    survey = problem.survey(devices, source)
    own, tables = problem.own, problem.own.tables(only_weights)
    covariance = None
    if spread:
        covariance = errors.of_pools(np.asarray(own.index))
        # The weights know nothing of the global terms.
        covariance[:, own.nkind :] = 0.0
        covariance[:, :, own.nkind :] = 0.0
    second = SecondPass(
        survey, tables, problem.plan, problem.nstokes, covariance, noise=False
    )
    keeper.open()
    chi2 = _second_pass(second, keeper, problem.plan, comm)
    applied = result.replace(
        **{**keeper.maps(), "chi2_total": chi2, "neg_log_like": chi2 / 2},
        residual_power=None,
        reduced=None,
        warnings=(*result.warnings, *(uncorrelated(errors) if spread else ())),
        message="the weights of another fit: nothing was fitted to these maps",
    )
    keeper.finish(applied)
    return applied


def _ranks(comm: Any) -> Any:
    """The ranks of a run; this process alone for None."""
    if not (comm is None or isinstance(comm, ranks.Comm)):
        raise TypeError(
            "`separate(comm=...)`: expected `distsep.parallel.world()`, or None for "
            f"this process alone, got {type(comm).__name__}."
        )
    return ranks.serial() if comm is None else comm


def local_devices(number: int | None = None) -> Devices:
    """Devices of this rank, as the functions the passes ask for."""
    mesh = meshes.device_mesh(number)
    return Devices(
        mesh.size,
        meshes.together(mesh),
        partial(meshes.over_blocks, mesh),
        partial(meshes.over_shares, mesh),
        partial(meshes.spread, mesh),
        partial(meshes.spread_maps, mesh),
        partial(meshes.replicate, mesh),
        meshes.single,
    )


class _Clock:
    """Seconds of each phase."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = now - self._last
        self._last = now
