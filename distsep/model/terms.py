"""Global terms: coefficients shared by the whole sky, or one per region.

Each is written down as `Linear` kinds: a coefficient times a template on some rows of
the data. They are linear in d, and the amplitudes of the components are eliminated
before they are solved for. Calibration, band shift and angle are not here: they are
parameters of A.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distsep.model.mistakes import InputError, collect, is_number, listed

_CALL = "separate(global_terms=...)"

Prior = tuple[float, float]


@dataclass(frozen=True)
class Linear:
    """One kind of coefficient.

    Attributes:
        name: Of the coefficient.
        rows: Rows of the data it acts on; empty for a regional component.
        column: Column of A it takes the place of, or None.
        template: Function of (unit vectors (3, pix), observation) -> `(group, pix)`,
            what the coefficient multiplies; equal keys are computed once.
        key: Identity of the template.
        prior: (mean, std) or None.
        regions: Patch specification of a regional component, or None.
        stokes: Stokes groups that have regions of their own.
    """

    name: str
    rows: tuple[int, ...]
    template: Callable
    key: Any
    column: int | None = None
    prior: Prior | None = None
    regions: Any = None
    stokes: int = 1


@dataclass(frozen=True)
class Monopole:
    """A constant [uK_CMB] per band and Stokes parameter.

    Args:
        bands: Names or numbers of bands; None: all.
        stokes: Letters; None: all of the observation.
        prior: (mean, std) [uK_CMB] of each coefficient.
        name: First part of the coefficients' names.
    """

    bands: Sequence[Any] | None = None
    stokes: str | None = None
    prior: Prior | None = None
    name: str = "monopole"

    def parts(self, _source) -> dict[str, Callable]:
        """Templates by name: here one, 1 everywhere."""
        return {"": lambda obs: np.ones(len(obs.cell_ids))}


@dataclass(frozen=True)
class Dipole:
    """A dipole [uK_CMB] per band and Stokes parameter: coefficients of x, y, z.

    Args: as `Monopole`.
    """

    bands: Sequence[Any] | None = None
    stokes: str | None = None
    prior: Prior | None = None
    name: str = "dipole"

    def parts(self, source) -> dict[str, Callable]:
        """Templates by name: the unit vectors of the pixels."""
        return {
            axis: lambda obs, i=i: source.unit_vectors(obs)[:, i]
            for i, axis in enumerate("xyz")
        }


@dataclass(frozen=True, eq=False)
class Template:
    """A map times a coefficient per band, or one common to the bands.

    Args:
        map: `(pix,)` or `(stokes, pix)`, on the caller's pixels or the whole sphere.
            With a Stokes axis (leakage of I into Q and U, say) one coefficient is
            common to the Stokes parameters, and U is in the convention of the maps.
        bands: Names or numbers of bands; None: all.
        stokes: Letters of a map without Stokes axis; None: all.
        common: One coefficient for all bands, in uK_CMB per unit of the map.
        prior: (mean, std) of each coefficient.
        name: First part of the coefficients' names.
        ordering: `"RING"` or `"NEST"` of a map of the whole sphere; None: the order of
            the caller's maps, if these cover the sphere too, and otherwise RING.
    """

    map: Any
    bands: Sequence[Any] | None = None
    stokes: str | None = None
    common: bool = False
    prior: Prior | None = None
    name: str = "template"
    ordering: str | None = None

    def parts(self, source) -> dict[str, Callable]:
        """Templates by name: here one."""
        m = source.plain(self.map)
        return {"": lambda obs: source.map(m, obs, self.ordering, self.name)}


@dataclass(frozen=True)
class Regional:
    """A component with one amplitude per region and Stokes parameter, not per pixel.

    Args:
        component: Name of the component.
        regions: Where: an nside, whose cells are numbered in NEST order, an integer
            map, `{"kmeans": n}`, ...; None: one.
        prior: (mean, std) of each amplitude.

    Its amplitudes, and their prior, are in a millionth of the unit of the law (uK_RJ of
    a law in K_RJ), whatever the unit of the maps of the others: `Result.units`.
    """

    component: str
    regions: Any = None
    prior: Prior | None = None


@dataclass(frozen=True)
class LinearTerms:
    """The global terms of a run, written out.

    Attributes:
        kinds: Band terms first, regional components last.
        keys: Distinct templates, in the order of their rows.
        joint: Whether Stokes parameters are fitted jointly.
    """

    kinds: tuple[Linear, ...] = ()
    keys: tuple[Any, ...] = ()

    @property
    def template(self) -> tuple[int, ...]:
        """For each kind the row of the templates."""
        return tuple(self.keys.index(k.key) for k in self.kinds)

    @property
    def band_rows(self) -> tuple[tuple[int, ...], ...]:
        """For each band term the rows it acts on."""
        return tuple(k.rows for k in self.kinds if k.column is None)

    @property
    def regional(self) -> tuple[int, ...]:
        """Columns of A of the regional components."""
        return tuple(k.column for k in self.kinds if k.column is not None)

    def free(self, names, joint: bool, nstokes: int) -> list[int]:
        """Places of the components that keep an amplitude in every pixel."""
        width = nstokes if joint else 1
        taken = {c // width for c in self.regional}
        return [i for i in range(len(names)) if i not in taken]

    def templates(self, obs, ngroup: int) -> np.ndarray:
        """Templates on the pixels of an observation, `(template, group, pix)`."""
        npix = len(obs.cell_ids)
        out = np.zeros((len(self.keys), ngroup, npix))
        functions = {k.key: k.template for k in self.kinds}
        for i, key in enumerate(self.keys):
            out[i] = np.broadcast_to(functions[key](obs), (ngroup, npix))
        return out


def expand(
    terms, instrument, stokes: str, component_names, joint: bool, source
) -> LinearTerms:
    """Write the user's global terms out as linear kinds.

    Args:
        terms: `Monopole`, `Dipole`, `Template`, `Regional`.
        instrument: Bands.
        stokes: Stokes parameters of the observation.
        component_names: Columns of A.
        joint: Whether rows are (freq, stokes).
        source: Gives `unit_vectors(obs)`, `plain(m)` and `map(m, obs, ordering, name)`.

    Raises:
        InputError: unknown band, Stokes letter or component; two terms of one name.
    """
    if not isinstance(terms, list | tuple):
        wrong = [
            f"`global_terms`: expected a list, [Monopole(), ...]; got {terms!r:.80}"
        ]
        raise InputError(_CALL, *wrong)
    bands, regional, wrong = [], [], []
    for n, term in enumerate(terms):
        mistakes = _term_mistakes(n, term)
        wrong += mistakes
        if mistakes:
            continue
        if isinstance(term, Regional):
            regional += (
                collect(wrong, _regional, term, stokes, component_names, joint) or []
            )
        else:
            bands += (
                collect(wrong, _band_terms, n, term, instrument, stokes, joint, source)
                or []
            )
    kinds = (*bands, *regional)
    names = [k.name for k in kinds]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        wrong.append(
            f"`global_terms`: {', '.join(twice[:3])} appears twice: give each term its "
            "own `name=`"
        )
    if wrong:
        raise InputError(_CALL, *wrong)
    keys = tuple(dict.fromkeys(k.key for k in kinds))
    return LinearTerms(kinds, keys)


def _term_mistakes(n: int, term: Any) -> list[str]:
    """Say what is no global term, or has a prior that is none."""
    if not isinstance(term, Monopole | Dipole | Template | Regional):
        return [
            f"`global_terms[{n}]` should be a Monopole(...), Dipole(...), "
            f"Template(...) or Regional(...); got {term!r:.80}"
        ]
    wrong, prior, where = [], term.prior, f"`{type(term).__name__}(...)`"
    if isinstance(name := getattr(term, "name", None), str) and "/" in name:
        wrong.append(f"{where}: `name` should be a word without slashes; got {name!r}")
    if prior is not None and not _is_prior(prior):
        wrong.append(
            f"{where}: `prior` should be (mean, std), finite and std > 0; got {prior!r}"
        )
    if not listed(getattr(term, "bands", None)):
        wrong.append(f"{where}: `bands` names none: leave it out for all, or the term")
    stokes = getattr(term, "stokes", None)
    if stokes is not None and (not isinstance(stokes, str) or not stokes):
        wrong.append(f"{where}: `stokes` should be letters, 'QU'; got {stokes!r}")
    if isinstance(term, Template):
        wrong += _template_mistakes(term)
    return wrong


def _is_prior(prior: Any) -> bool:
    if not isinstance(prior, list | tuple) or len(prior) != 2:
        return False
    return all(is_number(x) for x in prior) and prior[1] > 0


def _template_mistakes(term: Template) -> list[str]:
    where, wrong = f"`Template(name={term.name!r})`", []
    if not isinstance(term.common, bool | np.bool_):
        wrong.append(f"{where}: `common` should be True or False; got {term.common!r}")
    try:
        m = np.asarray(term.map)
    except ValueError:  # ragged
        m = np.asarray(None)
    if m.dtype.kind not in "biuf" or m.ndim not in (1, 2) or not m.size:
        got = f"shape {m.shape}" if m.dtype.kind in "biuf" else f"{term.map!r:.60}"
        what = "numbers, (pix,) or (stokes, pix)"
        wrong.append(f"{where}: `map` should be {what}; got {got}")
    elif m.ndim == 2 and term.stokes:
        wrong.append(
            f"{where}: its map has an axis of Stokes parameters, and `stokes` chooses "
            "those of a map that has none: leave it out, or give one map, (pix,)"
        )
    return wrong


def _band_terms(n, term, instrument, stokes, joint, source) -> list[Linear]:
    where = f"`{type(term).__name__}(name={term.name!r})`"
    names = list(instrument.bands)
    chosen = (
        range(len(names))
        if term.bands is None
        else [_band(b, names, where) for b in listed(term.bands)]
    )
    if twice := [names[b] for b in chosen if list(chosen).count(b) > 1]:
        raise InputError(_CALL, f"{where}: `bands` names {twice[0]} twice")
    letters = term.stokes or stokes
    if not set(letters) <= set(stokes):
        raise InputError(_CALL, f"{where}: stokes {letters!r} are not among {stokes!r}")
    together = isinstance(term, Template) and np.ndim(term.map) == 2
    if together and len(term.map) != len(stokes):
        raise InputError(
            _CALL,
            f"{where}: expected a map per Stokes parameter ({stokes}), got "
            f"{len(term.map)}.",
        )
    out = []
    groups = [""] if together else list(letters)
    runs = [tuple(chosen)] if getattr(term, "common", False) else [(b,) for b in chosen]
    for part, function in term.parts(source).items():
        for run in runs:
            for letter in groups:
                place = stokes.find(letter) if letter else -1
                label = "" if len(run) > 1 else f".{names[min(run)]}"
                label += f".{part}" if part else ""
                label += f".{letter}" if len(groups) > 1 else ""
                if joint and together:
                    raise InputError(
                        _CALL,
                        f"{where}: a template with a Stokes axis and polarisation "
                        "angles in one fit is not supported: give one per Stokes.",
                    )
                if joint:
                    rows = tuple(b * len(stokes) + place for b in run)
                    key, template = (n, part), function
                else:
                    rows = tuple(run)
                    key = (n, part, letter)
                    template = _on_group(function, place, len(stokes))
                out.append(
                    Linear(f"{term.name}{label}", rows, template, key, prior=term.prior)
                )
    return out


def _on_group(function, place, nstokes):
    """A template that is zero for the other Stokes parameters."""
    if place < 0:
        return function

    def template(obs):
        out = np.zeros((nstokes, len(obs.cell_ids)))
        out[place] = function(obs)
        return out

    return template


def _regional(term, stokes, component_names, joint) -> list[Linear]:
    if term.component not in component_names:
        raise InputError(
            _CALL,
            f"`Regional(component={term.component!r})`: expected one of "
            f"{', '.join(component_names)}.",
        )
    c = component_names.index(term.component)

    def ones(obs):
        return np.ones(len(obs.cell_ids))

    if not joint:
        return [
            Linear(
                term.component,
                (),
                ones,
                "one",
                c,
                term.prior,
                term.regions,
                len(stokes),
            )
        ]
    return [
        Linear(
            f"{term.component}.{s}",
            (),
            ones,
            "one",
            c * len(stokes) + i,
            term.prior,
            term.regions,
        )
        for i, s in enumerate(stokes)
    ]


def _band(b, names, where) -> int:
    if isinstance(b, int | np.integer) and 0 <= b < len(names):
        return int(b)
    if str(b) in names:
        return names.index(str(b))
    raise InputError(_CALL, f"{where}: no band {b!r}; bands are {', '.join(names)}")
