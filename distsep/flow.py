"""The whole flow of a separation, on one page.

components -> A(beta) -> samples, sharded over ranks and devices -> sums -> fit ->
errors -> amplitudes. Ranks and devices are joined to the mathematics here and nowhere
else: the rooms below take sums and devices as functions.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distsep.data.blocks import Grid
from distsep.data.observation import Observation
from distsep.data.result import Result
from distsep.data.samples import rows
from distsep.inference.amplitudes import amplitude_maps
from distsep.inference.fit import Fit, fit
from distsep.inference.model import Model
from distsep.inference.objective import Objective
from distsep.inference.packing import Whitening
from distsep.inference.passes import Devices, Part, PoolSums, Survey
from distsep.inference.prepare import make_samples, resolve_patches
from distsep.inference.uncertainty import disagreement, uncertainty
from distsep.model.mixing import MixingMatrix
from distsep.model.parameters import make_parameters
from distsep.parallel import comm as ranks
from distsep.parallel import mesh as meshes


def separate(
    components: Sequence,
    observation: Observation,
    *,
    patches: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
    fixed: Mapping[str, float] | None = None,
    priors: Mapping[str, tuple] | None = None,
    bounds: Mapping[str, tuple] | None = None,
    shared: Mapping[str, Any] | None = None,
    solver: str = "adam",
    tolerance: float = 1e-3,
    max_steps: int = 1000,
    comm: Any = None,
    devices: int | None = None,
    tell: Callable = lambda *_: None,
) -> Result:
    """Separate frequency maps into components.

    Args:
        components: Emission laws, `distsep.CMB()`, `distsep.Dust(nu0=353.0)`, ...
        observation: Maps; with `comm`, those of this rank.
        patches: By parameter name, where it has one value: see `resolve_patches`.
        start: Where to start; number or one per patch.
        fixed: Parameters held at a number.
        priors: `(mean, std)` of Gaussian priors.
        bounds: `(lower, upper)`.
        shared: Parameters that are one: see `MixingMatrix`.
        solver: `"adam"`, `"lbfgs"` or `"newton"`.
        tolerance: Distance from the optimum [sigma] at which a fit has converged.
        max_steps: Largest number of passes over the data.
        comm: Ranks (`distsep.parallel.comm.world()`); None: this process alone.
        devices: Local devices to use; all by default.
        tell: Called with (phase, passes, distance in sigma or None) as the fit goes.

    Returns:
        The result, of this rank's pixels.

    Raises:
        ValueError: whatever is wrong with the input, before anything is computed.

    Communication: collective: all ranks must call it.

    References:
        Stompor et al. (2009), MNRAS 392, 216; Stompor et al. (2016), PRD 94, 083526.
    """
    clock = _Clock()
    comm = comm or ranks.serial()
    local = local_devices(devices)
    obs = _placed(observation, comm)

    mixing = MixingMatrix(
        components, obs.instrument, stokes=obs.stokes, fixed=fixed, shared=shared
    )
    kinds = mixing.names
    where = {k: resolve_patches((patches or {}).get(k), k, obs, comm) for k in kinds}
    _known(patches or {}, kinds)
    nstokes = 1 if mixing.joint else len(obs.stokes)
    none = np.zeros((nstokes, 1), int)
    patch_ids = [none if ids is None else ids for ids, _ in where.values()]
    ncolumn = len(mixing.component_names) * (len(obs.stokes) if mixing.joint else 1)
    samples = make_samples(obs, patch_ids, ncolumn, mixing.joint, comm.allgather)
    if samples.pools.number == 0:
        raise ValueError(
            f"`separate(...)`: no pixel has the {ncolumn} bands that {ncolumn} "
            "components need. Use fewer components, or more bands."
        )
    parameters = make_parameters(
        kinds,
        [n for _, n in where.values()],
        samples.pools.patch,
        start=start or {},
        bounds=bounds or {},
        priors=priors or {},
        defaults=mixing.defaults,
        default_bounds=mixing.bounds,
    )
    model = Model(
        mixing,
        parameters.index(samples.pools.patch),
        samples.pools.noise_class,
        samples.classes.white,
    )
    templates = np.zeros((0, nstokes, obs.npix))
    part = Part(obs, templates, samples.layout, samples.tile_class)
    survey = Survey(
        lambda: iter([part]),
        resident=True,
        joint=mixing.joint,
        devices=local,
        whitening=Whitening(samples.classes.white, samples.classes.scale),
    )
    clock("preparing")

    objective = Objective(
        model, parameters, PoolSums(survey, samples.pieces, comm.rank, comm.sum)
    )
    found = fit(
        objective, solver=solver, tolerance=tolerance, max_steps=max_steps, tell=tell
    )
    clock("fit")
    errors = uncertainty(objective, found.local)
    clock("errors")

    beta = comm.bcast(found.x)
    comm.require_same("beta", found.x)
    s, chi2 = amplitude_maps(
        survey, model.tables(beta), [part], len(obs.stokes), mixing.joint,
        samples.classes.scale,
    )
    clock("amplitudes")

    total = np.asarray(
        comm.sum(np.array([samples.seen, samples.used.sum(), samples.few], float))
    )
    dof = int(total[0] - ncolumn * total[1] - parameters.number)
    value = float(found.local.point.pool_value.sum())
    message, warnings = _words(objective, found, errors, tolerance, int(total[2]))
    return Result(
        names=parameters.names,
        parameters=parameters.split(found.x),
        sigma=parameters.split(errors.sigma),
        start=parameters.split(
            np.clip(parameters.start, parameters.lower, parameters.upper)
        ),
        covariance=errors.covariance,
        hessian_inverse=errors.hessian_inverse,
        fisher_inverse=errors.fisher_inverse,
        amplitudes=obs.restore(s),
        amplitude_covariance=None,
        chi2=obs.restore(chi2),
        dof=dof,
        chi2_total=2 * value,
        neg_log_like=value,
        converged=bool(found.converged.all()),
        steps=sum(found.passes),
        message=message,
        warnings=(*obs.warnings, *warnings),
        component_names=mixing.component_names,
        units={c.name: "uK_CMB" for c in components},
        bands=obs.instrument.bands,
        stokes=obs.stokes,
        nside=obs.nside,
        coordsys=obs.coordsys,
        polcconv=obs.polcconv,
        cell_ids=obs.cell_ids,
        distance=float(found.local.distance.max(initial=0.0)),
        patches={k: ids for k, (ids, _) in where.items() if ids is not None},
        seconds=clock.seconds,
        ranks=comm.size,
        devices=local.number,
        provenance=dict(obs.provenance),
    )


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


def _placed(obs: Observation, comm) -> Observation:
    """Give the maps of several ranks their place in one data set."""
    if comm.size == 1 or obs.grid.npix != obs.npix:
        return obs
    npix = comm.allgather(obs.npix)
    grid = Grid.of(sum(npix))
    return obs.replace(grid=grid, start=sum(npix[: comm.rank]))


def _known(given: Mapping, kinds: Sequence[str]) -> None:
    for name in given:
        if name not in kinds:
            raise ValueError(
                f"`separate(patches={{{name!r}: ...}})` names no free parameter; free "
                f"are {', '.join(kinds) or 'none'}."
            )


def _words(objective, found: Fit, errors, tolerance, few) -> tuple[str, list[str]]:
    """Say how the fit ended, and what the user should hear of."""
    local, names = found.local, np.array(objective.parameters.names, object)
    warnings = []
    bad = ~found.converged
    farthest = local.distance.max(initial=0.0)
    passes = f"{found.passes[0]} + {found.passes[1]} passes"
    if not bad.any():
        message = f"converged: within {farthest:.2g} sigma of the optimum, {passes}"
    else:
        message = (
            f"not converged: {int(bad.sum())} of {objective.nblocks} independent blocks "
            f"(largest distance {farthest:.2g} sigma, wanted {tolerance:g}), {passes}"
        )
    for what, mask in (
        ("at a bound", local.held),
        ("with an indefinite Hessian (no true optimum there)", errors.indefinite),
    ):
        if mask.any():
            few_names = ", ".join(names[mask][:5]) + (" ..." if mask.sum() > 5 else "")
            warnings.append(f"{int(mask.sum())} parameters {what}: {few_names}")
    if few:
        warnings.append(
            f"{few} samples have fewer bands than there are components: masked."
        )
    off = disagreement(errors)
    if off > 0.1:
        warnings.append(
            f"Fisher's and the Hessian's errors differ by up to {100 * off:.0f}%: the "
            "signal to noise is low; `sigma` is from H^-1 F H^-1."
        )
    return message, warnings


class _Clock:
    """Seconds of each phase."""

    def __init__(self):
        self.seconds, self._last = {}, time.perf_counter()

    def __call__(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = now - self._last
        self._last = now
