"""The problem of a separation, put together before anything is fitted.

The model (A(beta), global terms, parameters) and the samples (pools, layout), joined.
Everything that can be wrong with the input is found here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distsep.data.patch_specs import resolve_patches, resolve_regions
from distsep.data.source import PairSource
from distsep.data.templates import PixelMaps
from distsep.inference.model import Model
from distsep.inference.passes import Devices, Survey
from distsep.inference.plan import Plan
from distsep.inference.reduce import worthwhile
from distsep.keep import Kept
from distsep.model.mixing import MixingMatrix
from distsep.model.parameters import Parameters, check_names, make_parameters
from distsep.model.terms import LinearTerms, expand
from distsep.model.units import conversion


class Problem(NamedTuple):
    """A model and the samples it is fitted to.

    Attributes:
        mixing: A(beta).
        terms: Global terms.
        parameters: All free parameters.
        where: By kind its number of patches and their function.
        plan: Pools and layout of the samples.
        model: Tables of the pools.
        ncolumn: Amplitudes that are free in every sample.
    """

    mixing: MixingMatrix
    terms: LinearTerms
    parameters: Parameters
    where: dict[str, tuple]
    plan: Plan
    model: Model
    ncolumn: int

    @property
    def nstokes(self) -> int:
        """Number of Stokes parameters."""
        return len(self.mixing.stokes)

    @property
    def entries(self) -> int:
        """Entries of a sample: rows of the data, and templates."""
        return self.model.nrow + len(self.terms.keys)

    def survey(
        self, devices: Devices, source: Any = None, *, often: bool = False
    ) -> Survey:
        """Put the samples on the devices: of this problem's maps, or of others."""
        plan = self.plan if source is None else self.plan.on(source)
        return Survey(
            plan.parts,
            resident=plan.source.resident,
            often=often,
            joint=plan.joint,
            whitening=plan.whitening,
            devices=devices,
            template=self.terms.template,
        )

    @property
    def reducible(self) -> bool:
        """Whether the noise of the samples has common shapes."""
        return self.plan.classes.white is not None

    def reduces(self, asked: bool | None) -> bool:
        """Whether to fit the reduced data: asked for, or smaller by half.

        Raises:
            ValueError: asked for where every pixel has its own noise shape.
        """
        if asked not in (None, True, False):
            raise ValueError(
                f"`separate(reduce=...)` must be True, False or None, got {asked!r}."
            )
        if self.reducible:
            if asked is None:
                return worthwhile(self.plan.pools.count, self.entries)
            return asked
        if asked:
            raise ValueError(
                "`separate(reduce=True)`: every pixel has its own noise shape over the "
                "bands, so nothing can be pooled. Leave `reduce` out."
            )
        return False

    def pixel_source(self, observation: Any) -> PairSource:
        """Other maps of the pixels of this problem, with its noise."""
        return PairSource(self.plan.source, observation)

    def kept(self, unit: str, covariance: Sequence[str], residuals: bool) -> Kept:
        """Say what is kept of the maps, in which unit.

        Raises:
            ValueError: a unit the amplitudes cannot be in; an unknown component.
        """
        mixing, places = (
            self.mixing,
            self.terms.free(self.mixing.component_names, self.plan.joint, self.nstokes),
        )
        units, nu0, scale = {}, {}, []
        for i in places:
            component, own = mixing.components[i], mixing.amplitude_units[i]
            units[component.name], factor = _amplitude_unit(component, own, unit)
            nu0[component.name] = component.nu0
            scale.append(factor)
        unknown = [c for c in covariance if c not in units]
        if unknown:
            raise ValueError(
                f"`separate(amplitude_covariance={list(covariance)})`: expected names "
                f"among {', '.join(units)}; got {', '.join(unknown)}."
            )
        patch_of = {
            k: f
            for k, (_, f) in self.where.items()
            if f is not None and k in mixing.names
        }
        return Kept(units, nu0, np.array(scale), patch_of, tuple(covariance), residuals)


def set_up(
    components: Sequence,
    source: Any,
    *,
    comm: Any,
    patches: Mapping,
    start: Mapping,
    fixed: Mapping | None,
    priors: Mapping,
    bounds: Mapping,
    shared: Mapping | None,
    bands: Mapping,
    global_terms: Sequence,
) -> Problem:
    """Join a model and the maps of a rank.

    Args:
        components: Emission laws.
        source: Parts of the maps of this rank.
        comm: Ranks.
        patches: As for `separate`, and so the next ones.
        start: Where to start.
        fixed: Parameters held.
        priors: `(mean, std)`.
        bounds: `(lower, upper)`.
        shared: Parameters that are one.
        bands: `calibration`, `band_shift` and `angle`: names of bands.
        global_terms: Monopoles, templates, ...

    Raises:
        ValueError: whatever is wrong with them.

    Communication: that of `Plan` and of `resolve_patches`.
    """
    header = source.header
    mixing = MixingMatrix(
        components,
        header.instrument,
        stokes=header.stokes,
        fixed=fixed,
        shared=shared,
        **bands,
    )
    nstokes, joint = len(header.stokes), mixing.joint
    names, kinds = mixing.component_names, mixing.names
    terms = expand(
        global_terms, header.instrument, header.stokes, names, joint, PixelMaps(header)
    )
    check_names("patches", patches, kinds)
    where = {k: resolve_patches(patches.get(k), k, source, comm) for k in kinds}
    where |= {
        k.name: resolve_regions(k.regions, k.name, k.stokes, source, comm)
        for k in terms.kinds
    }
    functions = [f for _, f in where.values()]
    ncolumn = len(names) * (nstokes if joint else 1) - len(terms.regional)
    ngroup = 1 if joint else nstokes
    plan = Plan(
        source,
        npatch=[n for n, _ in where.values()],
        ncolumn=ncolumn,
        joint=joint,
        rank=comm.rank,
        patches=functions,
        templates=lambda obs: terms.templates(obs, ngroup),
        allgather=comm.allgather,
    )
    if not ncolumn:
        raise ValueError(
            "`separate(global_terms=...)`: every component is regional: at least one "
            "must have an amplitude in every pixel."
        )
    if plan.pools.number == 0:
        raise ValueError(
            f"`separate(...)`: no pixel has the {ncolumn} bands that {ncolumn} "
            "amplitudes need. Use fewer components, or more bands."
        )
    given = {k.name: k.prior for k in terms.kinds if k.prior is not None}
    parameters = make_parameters(
        tuple(where),
        [n for n, _ in where.values()],
        plan.pools.patch,
        start=start,
        bounds=bounds,
        priors={**priors, **given},
        defaults=mixing.defaults,
        default_bounds=mixing.bounds,
        linear=tuple(k.name for k in terms.kinds),
    )
    model = Model(
        mixing,
        parameters.index(plan.pools.patch),
        plan.pools.noise_class,
        plan.classes.white,
        terms.band_rows,
        terms.regional,
    )
    _check_instrument(bands, parameters, len(header.instrument.bands))
    unknown = int((parameters.prior_precision == 0).sum())
    known = int(plan.pools.count.sum()) * model.nrow
    if unknown > known:
        raise ValueError(
            f"`separate(...)`: {unknown} parameters and global terms without a prior "
            f"for {known} numbers of data: use fewer patches, regions or templates, or "
            "give `priors`."
        )
    return Problem(mixing, terms, parameters, where, plan, model, ncolumn)


def misfit(chi2: float, dof: int) -> list[str]:
    """Say that a model does not describe the data, whatever its errors are."""
    if dof <= 0 or not chi2 > 2 * dof:
        return []
    return [
        f"chi2/dof = {chi2 / dof:.3g}: the model does not describe the data, or the "
        "noise is larger than stated; the errors do not hold."
    ]


def _check_instrument(bands: Mapping, parameters: Parameters, nband: int) -> None:
    """Refuse a gain or an angle common to all bands: the amplitudes absorb it."""
    for kind in ("calibration", "angle"):
        mine = [k.startswith(f"{kind}.") for k in parameters.kinds]
        known = parameters.prior_precision[np.array(mine, bool)[parameters.kind]]
        if len(set(bands[kind] or ())) == nband and not known.any():
            raise ValueError(
                f"`separate({kind}=...)`: all {nband} bands are free, and what they "
                "have in common is degenerate with the amplitudes. Leave one band out "
                "as the reference, or give `priors`."
            )


def _amplitude_unit(component: Any, own: str, wanted: str) -> tuple[str, float]:
    """Unit of the amplitudes of a component, and the factor from its own."""
    if own == wanted or not own.endswith(("_CMB", "_RJ", "Jy/sr")):
        return own, 1.0
    if component.nu0 is None:
        if own.endswith("_CMB") and wanted.endswith("_CMB"):
            return wanted, float(conversion(own, wanted, np.array([100.0]))[0])
        return own, 1.0
    return wanted, float(conversion(own, wanted, np.array([component.nu0]))[0])
