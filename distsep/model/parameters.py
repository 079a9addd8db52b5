"""The list of parameters: which are free, where on the sky, from where, how far.

A *kind* is a parameter of the model ("Dust.beta_d"); it has one value per patch. The
parameters of a fit are all values of all kinds, in one vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from distsep.model.mistakes import mapping_mistakes

_NO_START = float("nan")  # told apart from a NaN of the caller by identity
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


def _per_patch(name, argument, values, npatch, wrong):
    """One value per patch from a number or an array; None, and words, if it is not."""
    try:
        v = np.asarray(values)
    except ValueError:  # ragged
        v = np.asarray(None)
    if v.dtype.kind in "iuf" and v.shape in ((), (npatch,)):
        return np.broadcast_to(v.astype(float), (npatch,))
    got = f"shape {v.shape}" if v.dtype.kind in "iuf" else f"{values!r:.60}"
    wrong.append(
        f"`{argument}` of {name!r} must be one number or {npatch}, one per patch; got "
        f"{got}"
    )
    return None


def _two(name, argument, value, what, wrong):
    """The two values of bounds or a prior; None, and words, if they are not two."""
    if isinstance(value, list | tuple | np.ndarray) and len(value) == 2:
        return value
    wrong.append(f"`{argument}` of {name!r} should be {what}; got {value!r:.60}")
    return None


def _mapping(argument, given, example, wrong) -> Mapping:
    """What is given by name; nothing, and words, if it is not."""
    wrong += mapping_mistakes(argument, given, example)
    return given if isinstance(given, Mapping) else {}


def name_mistakes(argument: str, given, kinds) -> list[str]:
    """Say of each name that is no free parameter which one is nearest."""
    wrong = []
    for name in given:
        if name not in kinds:
            near = get_close_matches(name, kinds, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            wrong.append(
                f"`{argument}` names {name!r}, which is not free: free are "
                f"{', '.join(kinds) or 'none'}{hint}"
            )
    return wrong


def check_names(argument: str, given, kinds) -> None:
    """Raise ValueError if `given` names what is no free parameter."""
    wrong = mapping_mistakes(argument, given, "{'Dust.beta_d': ...}")
    wrong = wrong or name_mistakes(argument, given, kinds)
    if wrong:
        raise ValueError(f"`separate(...)`: {'; '.join(wrong)}.")


def _read(name, value, limits, prior, npatch, wrong) -> list[np.ndarray]:
    """Start, bounds, mean and std, one per patch; empty, and words, if they are not."""
    limits = _two(name, "bounds", limits, "(lower, upper)", wrong)
    prior = _two(name, "priors", prior, "(mean, std)", wrong)
    given = [("start", value)]
    given += [("bounds", v) for v in (limits if limits is not None else ())]
    given += [("priors", v) for v in (prior if prior is not None else ())]
    read = [_per_patch(name, argument, v, npatch, wrong) for argument, v in given]
    found = [v for v in read if v is not None]
    return found if len(found) == 5 else []


def _value_mistakes(name, read, value, limits, prior) -> list[str]:
    """Say what is wrong with the numbers of one kind."""
    x, a, b, m, e = read
    wrong = []
    if value is _NO_START:
        wrong.append(f"{name!r} has no start value: give `start={{{name!r}: ...}}`")
    elif not np.isfinite(x).all():
        wrong.append(f"`start` of {name!r} should be finite; got {value}")
    if not (a < b).all():
        low, high = limits
        wrong.append(f"`bounds` of {name!r}: lower {low} must be under upper {high}")
    elif ((x < a) | (x > b)).any():
        low, high = limits
        wrong.append(
            f"`start` of {name!r}, {value}, is outside its bounds [{low}, {high}]"
        )
    if not (e > _NARROWEST).all() or not np.isfinite(m).all():
        wrong.append(
            f"`priors` of {name!r} need (mean, std) with a finite mean and std > 0 "
            f"(above {_NARROWEST:g}), got ({prior[0]}, {prior[1]}); to hold a "
            "parameter use `fixed`"
        )
    return wrong


def make_parameters(
    kinds,
    npatch,
    pool_patch,
    *,
    start,
    bounds,
    priors,
    defaults,
    default_bounds,
    linear=(),
) -> Parameters:
    """List the parameters that have data, with start, bounds and priors.

    Args:
        kinds: Names of the spectral kinds, then of the global terms.
        npatch: Patches of each.
        pool_patch: `(pool, kind)`: patches no pool uses get no parameter.
        start: The user's starts by kind: a number, or one per patch.
        bounds: The user's `(lower, upper)`.
        priors: The user's `(mean, std)`.
        defaults: Starts of the model.
        default_bounds: Bounds of the model.
        linear: Names of the kinds that are coefficients of global terms.

    Raises:
        ValueError: everything that is wrong, in one message: names of no parameter,
            a start outside its bounds, a prior without width.
    """
    wrong: list[str] = []
    start = _mapping("start", start, "{'Dust.temp': 20.0}", wrong)
    bounds = _mapping("bounds", bounds, "{'Dust.temp': (10.0, 40.0)}", wrong)
    priors = _mapping("priors", priors, "{'Dust.temp': (20.0, 1.0)}", wrong)
    for argument, given in (("start", start), ("bounds", bounds), ("priors", priors)):
        wrong += name_mistakes(argument, given, kinds)
    columns = {k: [] for k in ("kind", "patch", "start", "low", "high", "mean", "prec")}
    for k, name in enumerate(kinds):
        used = np.unique(pool_patch[:, k])
        limits = bounds.get(name, default_bounds.get(name, (-np.inf, np.inf)))
        prior = priors.get(name, (0.0, np.inf))
        value = start.get(
            name, defaults.get(name, 0.0 if name in linear else _NO_START)
        )
        read = _read(name, value, limits, prior, npatch[k], wrong)
        if not read:
            continue
        x, a, b, m, e = (v[used] for v in read)
        wrong += _value_mistakes(name, (x, a, b, m, e), value, limits, prior)
        columns["kind"].append(np.full(len(used), k))
        columns["patch"].append(used)
        for key, v in zip(("start", "low", "high", "mean"), (x, a, b, m), strict=True):
            columns[key].append(v)
        columns["prec"].append(np.maximum(e, _NARROWEST) ** -2.0)
    if wrong:
        raise ValueError("`separate(...)`: " + "; ".join(wrong) + ".")

    def join(key, dtype=float):
        return np.concatenate(columns[key] or [[]]).astype(dtype)

    kind = join("kind", np.int64)
    return Parameters(
        kinds=tuple(kinds),
        npatch=tuple(int(n) for n in npatch),
        kind=kind,
        patch=join("patch", np.int64),
        start=join("start"),
        lower=join("low"),
        upper=join("high"),
        prior_mean=join("mean"),
        prior_precision=join("prec"),
        linear=np.isin(np.array(kinds, object)[kind], list(linear))
        if len(kind)
        else np.zeros(0, bool),
    )
