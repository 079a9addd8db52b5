"""The whole flow of a separation, on one page.

components -> A(beta) -> samples, sharded over ranks and devices -> sums -> fit ->
errors -> amplitudes. Ranks and devices are joined to the mathematics here and nowhere
else: the rooms below take sums and devices as functions.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distsep.data.layout import Pools
from distsep.data.observation import Observation
from distsep.data.patch_specs import resolve_patches
from distsep.data.result import Result
from distsep.data.source import ArraySource, StoreSource, placed
from distsep.inference.amplitudes import amplitude_maps
from distsep.inference.fit import fit
from distsep.inference.model import Model
from distsep.inference.objective import Objective
from distsep.inference.passes import Devices, PoolSums, Survey
from distsep.inference.plan import Plan
from distsep.inference.reduce import ReducedData, block_root, merge_roots, worthwhile
from distsep.inference.uncertainty import uncertainty
from distsep.inference.words import describe
from distsep.keep import Keeper
from distsep.model.mixing import MixingMatrix
from distsep.model.parameters import check_names, make_parameters
from distsep.parallel import comm as ranks
from distsep.parallel import mesh as meshes


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
    solver: str = "adam",
    tolerance: float = 1e-3,
    max_steps: int = 1000,
    reduce: bool | None = None,
    observed: np.ndarray | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    comm: Any = None,
    devices: int | None = None,
    tell: Callable = lambda *_: None,
) -> Result:
    """Separate frequency maps into components.

    Args:
        components: Emission laws, `distsep.CMB()`, `distsep.Dust(nu0=353.0)`, ...
        observation: Maps in memory (with `comm`, those of this rank), or what
            `distsep.open_observation` returns: then every rank reads its own chunks.
        patches: By parameter name, where it has one value: see `resolve_patches`.
        start: Where to start; number or one per patch.
        fixed: Parameters held at a number.
        priors: `(mean, std)` of Gaussian priors.
        bounds: `(lower, upper)`.
        shared: Parameters that are one: see `MixingMatrix`.
        calibration, band_shift, angle: Names of bands that have such a parameter.
        solver: `"adam"`, `"lbfgs"` or `"newton"`.
        tolerance: Distance from the optimum [sigma] at which a fit has converged.
        max_steps: Largest number of passes over the data.
        reduce: Fit the exact reduction of the data; None: where it is smaller.
        observed: True for each NEST pixel of the sphere to use, for a store.
        output: Directory of the result store; maps are then written, chunk by chunk.
        overwrite: Replace an existing result.
        comm: Ranks (`distsep.parallel.comm.world()`); None: this process alone.
        devices: Local devices to use; all by default.
        tell: Called with (phase, passes, distance in sigma or None) as the fit goes.

    Returns:
        The result, of this rank's pixels. Its maps are None where the data are
        streamed: read them from `output`.

    Raises:
        ValueError: whatever is wrong with the input, before anything is computed.

    Communication: collective: all ranks must call it.

    References:
        Stompor et al. (2009), MNRAS 392, 216; Stompor et al. (2016), PRD 94, 083526.
    """
    clock = _Clock()
    comm = comm or ranks.serial()
    local = local_devices(devices)
    source = _source(observation, observed, comm)
    header = source.header

    mixing = MixingMatrix(
        components,
        header.instrument,
        stokes=header.stokes,
        fixed=fixed,
        shared=shared,
        calibration=calibration,
        band_shift=band_shift,
        angle=angle,
    )
    kinds, patches = mixing.names, patches or {}
    check_names("patches", patches, kinds)
    where = [resolve_patches(patches.get(k), k, source, comm) for k in kinds]
    npatch = [n for n, _ in where]
    nstokes, joint = len(header.stokes), mixing.joint
    ncolumn = len(mixing.component_names) * (nstokes if joint else 1)
    plan = Plan(
        source,
        npatch=npatch,
        ncolumn=ncolumn,
        joint=joint,
        rank=comm.rank,
        patch_ids=lambda obs: [_one_patch if f is None else f(obs) for _, f in where],
        templates=lambda obs: np.zeros((0, 1 if joint else nstokes, obs.npix)),
        allgather=comm.allgather,
    )
    if plan.pools.number == 0:
        raise ValueError(
            f"`separate(...)`: no pixel has the {ncolumn} bands that {ncolumn} "
            "components need. Use fewer components, or more bands."
        )
    parameters = make_parameters(
        kinds,
        npatch,
        plan.pools.patch,
        start=start or {},
        bounds=bounds or {},
        priors=priors or {},
        defaults=mixing.defaults,
        default_bounds=mixing.bounds,
    )
    model = Model(
        mixing,
        parameters.index(plan.pools.patch),
        plan.pools.noise_class,
        plan.classes.white,
    )
    keeper = Keeper(
        source, mixing, where, output=output, overwrite=overwrite, comm=comm
    )
    survey = Survey(
        plan.parts,
        resident=source.resident,
        joint=joint,
        whitening=plan.whitening,
        devices=local,
    )
    clock("preparing")

    sums = PoolSums(survey, plan.pieces, comm.sum)
    reduced = _reduction(reduce, plan.pools, plan.classes.white, mixing, header)
    if reduced:
        roots = sums(block_root, None, merge_roots)
        sums = ReducedData(roots, model.nrow, single=local.single)
        clock("reduction")
    objective = Objective(model, parameters, sums)
    found = fit(
        objective, solver=solver, tolerance=tolerance, max_steps=max_steps, tell=tell
    )
    clock("fit")
    errors = uncertainty(objective, found.local)
    clock("errors")

    comm.require_same("beta", found.x)
    block_chi2 = []
    tables = model.tables(comm.bcast(found.x))
    for maps in amplitude_maps(survey, tables, nstokes, joint, plan.classes.scale):
        keeper.take(maps)
        block_chi2.append(maps.block_chi2)
    chi2 = plan.block_sum(np.concatenate(block_chi2), comm.sum)
    clock("amplitudes")

    counts = np.asarray(comm.sum(np.array([plan.bands, plan.samples, plan.few], float)))
    message, warnings = describe(objective, found, errors, tolerance, int(counts[2]))
    result = Result(
        names=parameters.names,
        parameters=parameters.split(found.x),
        sigma=parameters.split(errors.sigma),
        start=parameters.split(parameters.start),
        covariance=errors.covariance,
        hessian_inverse=errors.hessian_inverse,
        fisher_inverse=errors.fisher_inverse,
        dof=int(counts[0] - ncolumn * counts[1] - parameters.number),
        chi2_total=chi2,
        neg_log_like=chi2 / 2,
        converged=bool(found.converged.all()),
        distance=float(found.local.distance.max(initial=0.0)),
        steps=sum(found.passes),
        message=message,
        warnings=(*header.warnings, *warnings),
        reduced=(sums.rows, int(counts[1])) if reduced else None,
        seconds=clock.seconds,
        ranks=comm.size,
        devices=local.number,
        **keeper.maps(),
    )
    keeper.finish(result)
    clock("writing")
    return result


_one_patch = np.zeros((1, 1), np.int64)


def _source(observation, observed, comm) -> ArraySource | StoreSource:
    """Maps in memory, or the chunks of a store that this rank owns."""
    if isinstance(observation, Observation):
        if observed is not None:
            raise ValueError(
                "`separate(observed=...)` is for stores: give it to `Observation`."
            )
        npix = comm.allgather(observation.npix)
        return ArraySource(placed(observation, comm.rank, npix))
    first, last = observation.grid.rank_chunks(comm.rank, comm.size)
    return StoreSource(observation, first, last, observed)


def _reduction(asked: bool | None, pools: Pools, white, mixing, header) -> bool:
    """Whether to fit the reduced data: asked for, or smaller by half."""
    nrow = len(header.instrument.nu) * (len(header.stokes) if mixing.joint else 1)
    if white is None:
        if asked:
            raise ValueError(
                "`separate(reduce=True)`: every pixel has its own noise shape over the "
                "bands, so nothing can be pooled. Leave `reduce` out."
            )
        return False
    return worthwhile(pools.count, nrow) if asked is None else asked


def local_devices(number: int | None = None) -> Devices:
    """Devices of this rank, as the functions the passes ask for."""
    mesh = meshes.device_mesh(number)
    return Devices(
        mesh.size,
        lambda f: meshes.over_blocks(mesh, f),
        lambda tree: meshes.spread(mesh, tree),
        lambda tree: meshes.replicate(mesh, tree),
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
