"""The problem of a separation, put together before anything is fitted.

The model (A(beta), global terms, parameters) and the samples (pools, layout), joined.
What can be wrong with the input and shows only in the maps is found here; the rest is
found in `request.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distsep.data.result import FAR
from distsep.data.source import OnesSource, PairSource
from distsep.inference.model import Model
from distsep.inference.passes import Devices, Survey
from distsep.inference.plan import Plan
from distsep.inference.reduce import worthwhile
from distsep.keep import Kept
from distsep.model.mixing import MixingMatrix
from distsep.model.parameters import Parameters, make_parameters
from distsep.model.terms import LinearTerms
from distsep.model.units import MAP_UNITS, conversion
from distsep.request import Request, read_request

# From so many degrees of freedom on chi2 is half of them only where the noise is wrong.
_MANY = 100
# Relative error of a law, by the nodes of the bandpasses, that is remarked upon.
_BANDPASS_OFF = 1e-5


class Problem(NamedTuple):
    """A model and the samples it is fitted to.

    Attributes:
        mixing: A(beta).
        terms: Global terms.
        parameters: All free parameters.
        where: By kind its number of patches and their function.
        plan: Pools and layout of the samples.
        model: Tables of the pools.
        own: Tables of the pools of this rank's samples.
        ncolumn: Amplitudes that are free in every sample.
        unstarted: Parameters that start at 1 because nothing else was said.
    """

    mixing: MixingMatrix
    terms: LinearTerms
    parameters: Parameters
    where: dict[str, tuple]
    plan: Plan
    model: Model
    own: Model
    ncolumn: int
    unstarted: tuple[str, ...]

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
            plan.part,
            plan.source.number,
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

    def warnings(self, parameters: Mapping[str, Any]) -> list[str]:
        """What the user should hear of the model, at the parameters that were found."""
        return [
            *start_warnings(self.unstarted),
            *bandpass_warnings(self.mixing, parameters),
            *beam_warnings(self.plan.source.header),
        ]

    def pixel_source(self, maps: Any) -> PairSource | OnesSource:
        """Other maps of the pixels of this problem, with its noise.

        Args:
            maps: An observation; or the number of the band whose map is 1, the others
                being 0.
        """
        if not isinstance(maps, int):
            return PairSource(self.plan.source, maps)
        if self.plan.joint:
            raise ValueError(
                "`Result.weights`: with `angle` an amplitude takes Q and U together, "
                "and has no weights for each. Use `apply(observation)`."
            )
        return OnesSource(self.plan.source, maps)

    def kept(self, unit: str, covariance: Sequence[str], residuals: bool) -> Kept:
        """Say what is kept of the maps, in which unit."""
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
        patch_of = {
            k: f
            for k, (_, f) in self.where.items()
            if f is not None and k in mixing.names
        }
        own_units = zip(mixing.component_names, mixing.amplitude_units, strict=True)
        regional = {name: own for name, own in own_units if name not in units}
        return Kept(
            units,
            nu0,
            np.array(scale),
            patch_of,
            tuple(covariance),
            residuals,
            regional,
        )


def set_up(components: Any, source: Any, *, comm: Any, **asked: Any) -> Problem:
    """Join a model and the maps of a rank.

    Args:
        components: Emission laws.
        source: Parts of the maps of this rank.
        comm: Ranks.
        asked: What else is asked for, see `Request`.

    Raises:
        ValueError: whatever is wrong with them.

    Communication: that of `read_request` and of `Plan`.
    """
    request = Request(components, **asked)
    mixing, terms, where = read_request(request, source, comm)
    nstokes, joint = len(mixing.stokes), mixing.joint
    ncolumn = len(mixing.components) * (nstokes if joint else 1) - len(terms.regional)
    ngroup = 1 if joint else nstokes
    plan = Plan(
        source,
        npatch=[n for n, _ in where.values()],
        A=_at_start(mixing, request.start, terms.regional),
        joint=joint,
        rank=comm.rank,
        patches=[f for _, f in where.values()],
        templates=lambda obs: terms.templates(obs, ngroup),
        allgather=comm.allgather,
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
        start=request.start or {},
        bounds=request.bounds or {},
        priors={**(request.priors or {}), **given},
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
    unknown = int((parameters.prior_precision == 0).sum())
    known = int(plan.pools.count.sum()) * model.nrow
    if unknown > known:
        raise ValueError(
            f"`separate(...)`: {unknown} parameters and global terms without a prior "
            f"for {known} numbers of data: use fewer patches, regions or templates, or "
            "give `priors`."
        )
    own = model.of(plan.own) if len(plan.own) < plan.pools.number else model
    none = tuple(n for n in mixing.unstarted if n not in (request.start or {}))
    return Problem(mixing, terms, parameters, where, plan, model, own, ncolumn, none)


def _at_start(mixing: MixingMatrix, start: Any, regional: Sequence[int]) -> np.ndarray:
    """A where a fit starts, of the amplitudes that are free in every sample."""
    values = dict(mixing.defaults)
    for name in values:
        given = np.asarray((start or {}).get(name, np.nan), float)
        known = given[np.isfinite(given)]
        if known.size:
            values[name] = known.flat[0]
    return np.delete(np.asarray(mixing(values)), list(regional), axis=-1)


def misfit(chi2: float, dof: int, estimated: int) -> list[str]:
    """Say that a model does not describe the data, whatever its errors are.

    Args:
        chi2: Of all samples.
        dof: Numbers of data less all that was estimated.
        estimated: Parameters and global terms.
    """
    if dof < 0 or (dof == 0 and estimated):
        return [
            f"dof = {dof}: with as many unknowns as numbers of data, or more, the fit "
            "says nothing of the model, and parameters may be anything."
        ]
    if not np.isfinite(chi2):
        return [
            f"chi2 = {chi2}: the amplitudes of some samples are no numbers, for their "
            "noise hardly tells the components apart. Leave these samples out."
        ]
    if dof == 0:
        return []
    words, z = f"chi2/dof = {chi2 / dof:.4g}", (chi2 - dof) / np.sqrt(2 * dof)
    if dof >= _MANY and chi2 < 0.5 * dof:
        return [
            f"{words}: the noise is smaller than stated, or the maps are not in the "
            "unit that was given; the errors do not hold."
        ]
    if z > FAR:
        return [
            f"{words} (z = {z:+.0f}): the model does not describe the data, or the "
            "noise is larger than stated; the errors do not hold."
        ]
    return []


def start_warnings(unstarted: Sequence[str]) -> list[str]:
    """Say which parameters started where nobody has said that they should."""
    if not unstarted:
        return []
    return [
        f"{', '.join(unstarted)} started at 1, for want of a start: far from the "
        "truth a fit may end in another optimum, with components exchanged. Give "
        "`start={...}` or `Component(defaults={...})`."
    ]


def beam_warnings(header: Any) -> list[str]:
    """Say that bands of different beams are fitted pixel by pixel."""
    smoothed, fwhm = header.resolution is not None, header.instrument.fwhm
    known = [] if fwhm is None else fwhm[~np.isnan(fwhm)]
    if smoothed or header.provenance.get("simulated") or len(set(known)) < 2:
        return []
    small, large = min(known), max(known)
    return [
        f"the bands have beams of {small:g} to {large:g} arcmin, and no common "
        f"resolution is declared: below {large:g} arcmin components leak into one "
        "another. Smooth the maps to one beam, and say so: `resolution`."
    ]


def bandpass_warnings(mixing: MixingMatrix, parameters: Mapping[str, Any]) -> list[str]:
    """Say that the law that was found is too narrow for the nodes of the bandpasses."""
    found = [float(np.nanmedian(parameters[name])) for name in mixing.names]
    off = mixing.bandpass_error(found)
    if off < _BANDPASS_OFF:
        return []
    return [
        f"an emission law at the fitted parameters is {off:.1g} off in a band: it is "
        "narrower there than at its defaults. Give `Component(defaults=...)` near the "
        "fitted values."
    ]


def _amplitude_unit(component: Any, own: str, wanted: str) -> tuple[str, float]:
    """Unit of the amplitudes of a component, and the factor from its own.

    Its own is a millionth of that of the law, see `micro`.
    """
    unit, nu = component.amplitude_unit, component.nu0
    if own == wanted or unit not in MAP_UNITS:
        return own, 1.0
    if nu is None:
        if not (unit.endswith("_CMB") and wanted.endswith("_CMB")):
            return own, 1.0
        nu = 100.0  # the same at any frequency
    return wanted, 1e-6 * float(conversion(unit, wanted, np.array([nu]))[0])
