"""The list of parameters: which are free, where on the sky, from where, how far.

A *kind* is a parameter of the model ("Dust.beta_d"); it has one value per patch. The
parameters of a fit are all values of all kinds, in one vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from distsep.model.mistakes import InputError, mapping_mistakes

_LIKE = {"start": 20.0, "bounds": (10.0, 40.0), "priors": (20.0, 1.0)}
_NARROWEST = 1e-100  # std of a prior: its square must not underflow


@dataclass(frozen=True)
class Parameters:
    """All free parameters of a fit, in one order.

    Attributes:
        kinds: Names of the kinds.
        npatch: Patches of each kind (with data or not).
        patch: For each parameter its patch, within its kind.
        kind: For each parameter its kind.
        start, lower, upper: Values, by parameter.
        prior_mean, prior_precision: Gaussian priors; precision 0 = none.
        linear: True for coefficients of global terms.
    """

    kinds: tuple[str, ...]
    npatch: tuple[int, ...]
    kind: np.ndarray
    patch: np.ndarray
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    prior_mean: np.ndarray
    prior_precision: np.ndarray
    linear: np.ndarray

    @property
    def number(self) -> int:
        """Number of free parameters."""
        return len(self.kind)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each parameter: of its kind, with the patch where there are more."""
        return tuple(
            self.kinds[k] + (f"[{p}]" if self.npatch[k] > 1 else "")
            for k, p in zip(self.kind, self.patch, strict=True)
        )

    def clip(self, x: np.ndarray) -> np.ndarray:
        """Cut values at their bounds."""
        return np.clip(x, self.lower, self.upper)

    def split(self, x: np.ndarray, fill=np.nan) -> dict[str, np.ndarray | np.floating]:
        """Vector of parameters -> `{kind: (npatch,) or scalar array}`."""
        out = {}
        for k, name in enumerate(self.kinds):
            values = np.full(self.npatch[k], fill, float)
            mine = self.kind == k
            values[self.patch[mine]] = x[mine]
            out[name] = values if self.npatch[k] > 1 else values[0]
        return out

    def index(self, pool_patch: np.ndarray) -> np.ndarray:
        """Parameter of every kind in every pool, `(pool, kind)`."""
        out = np.empty(pool_patch.shape, np.int64)
        for k in range(len(self.kinds)):
            lookup = np.full(self.npatch[k], -1, np.int64)
            mine = np.flatnonzero(self.kind == k)
            lookup[self.patch[mine]] = mine
            out[:, k] = lookup[pool_patch[:, k]]
        return out


class Values(NamedTuple):
    """Start, bounds and prior of one kind of parameter, one of each per patch.

    Attributes:
        name: Of the kind.
        numbers: `(5, npatch)`: start, lower, upper, mean, std; NaN = no value there.
        varies: Whether the caller gave any of them patch by patch.
        told: Whether the caller gave the start; else it is the model's.
    """

    name: str
    numbers: np.ndarray
    varies: bool
    told: bool

    def mistakes(self, patches: np.ndarray) -> list[str]:
        """Say what is wrong with the numbers in some patches; of many, in the first."""
        x, a, b, m, e = self.numbers[:, patches]
        tests = (
            (~np.isfinite(x), "`start` of {name} should be finite; got {x}"),
            (~(a < b), "`bounds` of {name}: lower {a} must be under upper {b}"),
            (
                (a < b) & ((x < a) | (x > b)),
                "`start` of {name}, {x}{default}, is outside its bounds [{a}, {b}]",
            ),
            (
                ~(e > _NARROWEST) | ~np.isfinite(m),
                "`priors` of {name} need (mean, std) with a finite mean and std > 0 "
                f"(above {_NARROWEST:g}), got ({{m}}, {{e}}); to hold a parameter use "
                "`fixed`",
            ),
        )
        return [self._words(text, patches, bad) for bad, text in tests if bad.any()]

    def _words(self, text: str, patches: np.ndarray, bad: np.ndarray) -> str:
        at, others = patches[int(np.argmax(bad))], int(bad.sum()) - 1
        name = repr(self.name)
        if self.varies:
            more = f" and {others} more" if others else ""
            name += f" in patch {at}{more}"
        values = dict(zip("xabme", self.numbers[:, at].tolist(), strict=True))
        default = "" if self.told else " where none is given"
        return text.format(name=name, default=default, **values)


def _per_patch(name, argument, values, npatch, wrong):
    """Numbers from a number or an array; None, and words, if it is not."""
    try:
        v = np.asarray(values)
    except ValueError:  # ragged
        v = np.asarray(None)
    some = npatch is None and v.ndim == 1
    if v.dtype.kind in "iuf" and (v.shape in ((), (npatch,)) or some):
        return v.astype(float)
    got = f"shape {v.shape}" if v.dtype.kind in "iuf" else f"{values!r:.60}"
    wrong.append(
        f"`{argument}` of {name!r} must be one number or {npatch or 'some'}, one per "
        f"patch; got {got}"
    )
    return None


def _two(name, argument, value, what, wrong):
    """The two values of bounds or a prior; None, and words, if they are not two."""
    if isinstance(value, list | tuple | np.ndarray) and len(value) == 2:
        return value
    wrong.append(f"`{argument}` of {name!r} should be {what}; got {value!r:.60}")
    return None


def _read(name, value, limits, prior, npatch, told, wrong) -> Values | None:
    """Start, bounds and prior; None, and words, if they are not numbers."""
    limits = _two(name, "bounds", limits, "(lower, upper)", wrong)
    prior = _two(name, "priors", prior, "(mean, std)", wrong)
    given = [("start", value)]
    given += [("bounds", v) for v in (limits if limits is not None else ())]
    given += [("priors", v) for v in (prior if prior is not None else ())]
    read = [_per_patch(name, argument, v, npatch, wrong) for argument, v in given]
    found = [v for v in read if v is not None]
    sizes = {v.shape for v in found if v.ndim}
    if len(found) < 5 or len(sizes) > 1:
        return None
    size = npatch or (sizes.pop()[0] if sizes else 1)
    numbers = np.stack([np.broadcast_to(v, (size,)) for v in found])
    return Values(name, numbers, any(v.ndim for v in found), told)


def name_mistakes(argument: str, given, kinds) -> list[str]:
    """Say of each name that is no free parameter which one is nearest."""
    wrong = []
    for name in given:
        if name not in kinds:
            near = get_close_matches(str(name), kinds, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            wrong.append(
                f"`{argument}` names {name!r}, which is not free: free are "
                f"{', '.join(kinds) or 'none'}{hint}"
            )
    return wrong


def read_values(
    npatch: Mapping[str, int | None],
    *,
    start: Any,
    bounds: Any,
    priors: Any,
    defaults: Mapping[str, float],
    default_bounds: Mapping[str, Any],
    linear: Sequence[str] = (),
) -> tuple[list[Values], list[str]]:
    """Read what the caller gave of every kind, and say what is wrong with it.

    Args:
        npatch: Patches of each kind; None where they are not known.
        start: The user's starts by kind: a number, or one per patch, NaN where a patch
            has no data.
        bounds: The user's `(lower, upper)`.
        priors: The user's `(mean, std)`.
        defaults: Starts of the model.
        default_bounds: Bounds of the model.
        linear: Names of the kinds that are coefficients of global terms.

    Returns:
        The values of the kinds that could be read, and the mistakes.
    """
    wrong, found = [], []
    for argument, given in (("start", start), ("bounds", bounds), ("priors", priors)):
        wrong += mapping_mistakes(
            argument, given, f"{{'Dust.temp': {_LIKE[argument]}}}"
        )
    start, bounds, priors = (
        given if isinstance(given, Mapping) else {} for given in (start, bounds, priors)
    )
    for name, number in npatch.items():
        none = 0.0 if name in linear else None
        value = start.get(name, defaults.get(name, none))
        if value is None:
            wrong.append(f"{name!r} has no start value: give `start={{{name!r}: ...}}`")
            value = 0.0
        limits = bounds.get(name, default_bounds.get(name, (-np.inf, np.inf)))
        prior = priors.get(name, (0.0, np.inf))
        values = _read(name, value, limits, prior, number, name in start, wrong)
        if values is None:
            continue
        found.append(values)
        known = ~np.isnan(values.numbers).any(0) | (not values.varies)
        wrong += values.mistakes(np.flatnonzero(known))
    return found, wrong


def make_parameters(kinds, npatch, pool_patch, *, linear=(), **given) -> Parameters:
    """List the parameters that have data, with start, bounds and priors.

    Args:
        kinds: Names of the spectral kinds, then of the global terms.
        npatch: Patches of each.
        pool_patch: `(pool, kind)`: patches no pool uses get no parameter.
        linear: Names of the kinds that are coefficients of global terms.
        given: `start`, `bounds`, `priors`, and those of the model: see `read_values`.

    Raises:
        InputError: everything that is wrong: names of no parameter, a start outside its
            bounds, a prior without width, a patch with data and without a value.
    """
    numbers = {name: int(n) for name, n in zip(kinds, npatch, strict=True)}
    values, wrong = read_values(numbers, linear=linear, **given)
    for argument in ("start", "bounds", "priors"):
        wrong += name_mistakes(argument, given[argument], kinds)
    used = [np.unique(pool_patch[:, k]) for k in range(len(numbers))]
    if not wrong:
        for v, patches in zip(values, used, strict=True):
            wrong += v.mistakes(patches)
    if wrong:
        raise InputError("separate(...)", *wrong)
    columns = [v.numbers[:, p] for v, p in zip(values, used, strict=True)]
    start, lower, upper, mean, std = np.concatenate(columns or [np.zeros((5, 0))], 1)
    kind = np.repeat(np.arange(len(used)), [len(p) for p in used])
    is_linear = np.isin(kind, [k for k, name in enumerate(kinds) if name in linear])
    return Parameters(
        kinds=tuple(kinds),
        npatch=tuple(numbers.values()),
        kind=kind,
        patch=np.concatenate([*used, []]).astype(np.int64),
        start=start,
        lower=lower,
        upper=upper,
        prior_mean=mean,
        prior_precision=std**-2.0,
        linear=is_linear,
    )
