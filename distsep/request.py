"""What is asked of a separation, read and checked before any map is looked at.

Everything that can be wrong with the arguments is found here, and told in one error on
all ranks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from distsep.data.patch_specs import (
    Patches,
    Spec,
    agree,
    grouped,
    make_patches,
    read_patches,
)
from distsep.data.templates import PixelMaps, plain_map
from distsep.model.free import Free, band_names, free_parameters
from distsep.model.mistakes import InputError, collect, mapping_mistakes
from distsep.model.mixing import MixingMatrix
from distsep.model.parameters import name_mistakes, read_values
from distsep.model.terms import LinearTerms, Template, expand
from distsep.model.units import MAP_UNITS

BAND_KINDS = ("calibration", "band_shift", "angle")


@dataclass(frozen=True)
class Request:
    """The arguments of `separate` that say what the model is.

    Attributes:
        components: Emission laws.
        patches, start, fixed, priors, bounds, shared: By name, or None.
        bands: `calibration`, `band_shift` and `angle`: names of bands.
        global_terms: Monopoles, templates, ...
        amplitude_unit: Of the amplitudes.
        amplitude_covariance: Names of components.
        mistakes: What is wrong with other arguments.
    """

    components: Any
    patches: Any = None
    start: Any = None
    fixed: Any = None
    priors: Any = None
    bounds: Any = None
    shared: Any = None
    bands: Mapping[str, Any] = field(default_factory=dict)
    global_terms: Any = ()
    amplitude_unit: str = "uK_CMB"
    amplitude_covariance: Sequence[str] = ()
    mistakes: Sequence[str] = ()


class Asked(NamedTuple):
    """A request that makes sense.

    Attributes:
        mixing: A(beta).
        terms: Global terms.
        where: By kind of parameter its patches.
    """

    mixing: MixingMatrix
    terms: LinearTerms
    where: dict[str, Patches]


def read_request(request: Request, source: Any, comm: Any) -> Asked:
    """Read a request for the maps of a rank.

    Args:
        request: What is asked for.
        source: Parts of the maps of this rank.
        comm: Ranks.

    Raises:
        InputError: on all ranks, what any of them found wrong.

    Communication: two allgathers of words and numbers; that of `make_patches`.
    """
    header, wrong = source.header, list(request.mistakes)
    bands = {kind: band_names(request.bands.get(kind)) for kind in BAND_KINDS}
    mixing = collect(
        wrong,
        MixingMatrix,
        request.components,
        header.instrument,
        stokes=header.stokes,
        fixed=request.fixed,
        shared=request.shared,
        **bands,
    )
    free = mixing or collect(
        wrong,
        free_parameters,
        request.components,
        header.instrument,
        request.fixed,
        request.shared,
        bands,
    )
    terms = free and _terms(request, free, header, bool(bands["angle"]), wrong)
    specs = _specs(request, free, terms, header, wrong)
    if bands["angle"]:
        wrong += [
            f"{spec.where} are not the same for all Stokes parameters, which `angle` "
            "mixes: give the same to all, or leave `angle` out"
            for spec in specs.values()
            if spec.by_stokes
        ]
    specs = agree(specs, source, comm, wrong)
    if free is not None:
        wrong += _value_mistakes(
            request, free, terms, bands, specs, header.instrument.bands
        )
        wrong += _output_mistakes(request, free, terms)
    zero = _zero_templates(request.global_terms) if terms else set()
    wrong = _of_all(comm, wrong, zero)
    if wrong or mixing is None or terms is None:
        raise InputError("separate(...)", *wrong)
    where = {k: make_patches(specs[k], source, comm) for k in mixing.names}
    for kind in terms.kinds:
        patches = make_patches(specs[kind.name], source, comm)
        where[kind.name] = grouped(patches, range(kind.stokes))
    return Asked(mixing, terms, where)


def _of_all(comm: Any, wrong: list[str], zero: set[str]) -> list[str]:
    """Mistakes of all ranks, which then stop together; of some only, with the rank.

    Args:
        comm: Ranks.
        wrong: Mistakes that this rank found.
        zero: Templates that are zero on this rank: a mistake if they are on all.

    Communication: one allgather.
    """
    every, zeros = zip(*comm.allgather((wrong, zero)), strict=True)
    return [
        line if all(line in others for others in every) else f"rank {rank}: {line}"
        for rank, lines in enumerate(every)
        for line in lines
    ] + [
        f"`Template(name={name!r})` is zero everywhere: its coefficient cannot be "
        "found. Leave it out"
        for name in sorted(set.intersection(*zeros))
    ]


def _zero_templates(terms: Sequence[Any]) -> set[str]:
    """Names of the templates that are zero in the pixels of this rank."""
    return {
        t.name
        for t in terms
        if isinstance(t, Template) and not np.nan_to_num(plain_map(t.map)).any()
    }


def _terms(
    request: Request, free: Free | MixingMatrix, header: Any, joint: bool, wrong: list
) -> LinearTerms | None:
    """Global terms; None, and words, if they are none."""
    names = [c.name for c in free.components]
    arguments = header.instrument, header.stokes, names, joint, PixelMaps(header)
    terms = collect(wrong, expand, request.global_terms, *arguments)
    both = {k.name for k in terms.kinds} & set(free.names) if terms else ()
    wrong += [
        f"`global_terms`: {name!r} is a parameter of the instrument as well: give the "
        "term another `name=`"
        for name in sorted(both)
    ]
    columns = len(names) * (len(header.stokes) if joint else 1)
    if terms is not None and names and len(terms.regional) == columns:
        wrong.append(
            "`global_terms`: every component is regional: at least one must have an "
            "amplitude in every pixel"
        )
    return terms


def _specs(
    request: Request,
    free: Free | MixingMatrix | None,
    terms: LinearTerms | None,
    header: Any,
    wrong: list[str],
) -> dict[str, Spec]:
    """Patches of every kind, without those that are wrong."""
    wrong += mapping_mistakes("patches", request.patches, "{'Dust.beta_d': 8}")
    given = request.patches if isinstance(request.patches, Mapping) else {}
    kinds = given if free is None else free.names
    wrong += name_mistakes("patches", given, kinds)
    asked = [(k, f"`patches` of {k!r}", given.get(k)) for k in kinds]
    for kind in terms.kinds if terms else ():
        asked.append((kind.name, f"`regions` of {kind.name!r}", kind.regions))
    specs = {k: collect(wrong, read_patches, s, where, header) for k, where, s in asked}
    return {name: spec for name, spec in specs.items() if spec is not None}


def _value_mistakes(
    request: Request,
    free: Free | MixingMatrix,
    terms: LinearTerms | None,
    bands: Mapping[str, tuple[str, ...]],
    specs: Mapping[str, Spec],
    every_band: Sequence[str],
) -> list[str]:
    """Say what is wrong with starts, bounds and priors."""
    linear = [k.name for k in terms.kinds] if terms else []
    many = {k.name: k.stokes for k in terms.kinds} if terms else {}
    kinds = [*free.names, *linear]
    npatch = {k: specs[k].total * many.get(k, 1) if k in specs else None for k in kinds}
    given = {a: getattr(request, a) for a in ("start", "bounds", "priors")}
    components, wrong = {c.name for c in free.components}, []
    # What is no mapping is said by `read_values`.
    named = {a: v if isinstance(v, Mapping) else {} for a, v in given.items()}
    for argument, values in named.items():
        for name in values:
            # The names of global terms that are wrong themselves are not known.
            if terms is not None or str(name).split(".")[0] in components:
                wrong += name_mistakes(argument, [name], kinds)
    wrong += [
        f"`bounds` of {name!r}: a coefficient of a global term is solved for, and not "
        "held: give it a `prior`"
        for name in linear
        if name in named["bounds"]
    ]
    wrong += [
        f"`priors` of {kind.name!r}, whose term has a `prior` of its own: give one"
        for kind in (terms.kinds if terms else ())
        if kind.prior is not None and kind.name in named["priors"]
    ]
    model = {"defaults": free.defaults, "default_bounds": free.bounds}
    wrong += read_values(npatch, **given, **model, linear=linear)[1]
    for kind in ("calibration", "angle"):
        # What all bands have in common is absorbed by the amplitudes.
        known = any(f"{kind}.{band}" in named["priors"] for band in bands[kind])
        n = len(set(bands[kind]) & set(every_band))
        if n == len(every_band) and not known:
            wrong.append(
                f"`{kind}`: all {n} bands are free, and what they have in common is "
                "degenerate with the amplitudes. Leave one band out as the reference, "
                "or give `priors`"
            )
    return wrong


def _output_mistakes(
    request: Request, free: Free | MixingMatrix, terms: LinearTerms | None
) -> list[str]:
    """Say what is wrong with what is to be kept."""
    wrong = []
    if request.amplitude_unit not in MAP_UNITS:
        wrong.append(
            f"`amplitude_unit` should be one of {', '.join(MAP_UNITS)}; got "
            f"{request.amplitude_unit!r}"
        )
    regional = (
        {k.name.split(".")[0] for k in terms.kinds if k.column is not None}
        if terms
        else set()
    )
    names = [c.name for c in free.components if c.name not in regional]
    chosen = request.amplitude_covariance
    several = isinstance(chosen, Iterable) and not isinstance(chosen, str)
    if not several or not all(c in names for c in chosen):
        wrong.append(
            f"`amplitude_covariance` should be names among {', '.join(names)}; got "
            f"{chosen!r:.80}"
        )
    return wrong
