"""fgbuster's two recipes under their names, for those who come from there.

The same calls, the same layout of the answer: maps of the whole sphere in RING order,
UNSEEN where there is nothing, patches of an `nside` in RING order. What differs is said
below; `distsep.separate` does more.

- `Sigma` is the covariance H^-1 F H^-1 of the estimates; fgbuster's (Fisher's) is
  `result.fisher_inverse`.
- One band that is UNSEEN in a pixel does not lose the others.
- Depths must be there for the Stokes parameters of the data.
- `success` means that the optimum was reached, to 1e-3 sigma.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from distsep.data import healpix
from distsep.data.observation import Observation
from distsep.data.result import Result
from distsep.flow import separate
from distsep.model.instrument import Instrument
from distsep.model.mixing import MixingMatrix

log = logging.getLogger("distsep")

STOKES = {1: "I", 2: "QU", 3: "IQU"}
SCIPY = ("tol", "method", "options", "jac", "hess", "callback", "disp")


@dataclass(frozen=True)
class Separation:
    """What the recipes return; the names are those of fgbuster.

    Attributes:
        params: Names of the free parameters.
        x: Best fit, (param,); with patches (param, patch), or one array for each
            parameter where their nsides differ.
        Sigma: Covariance, (param, param) or (param, param, patch); of all values
            together, in the order of `result.names`, where their nsides differ.
        s: Amplitudes [uK_CMB], (comp, stokes, pix), without `stokes` if the data had
            none.
        chi: Residuals in units of the noise, shape of the data.
        fun: -ln L at the best fit.
        success: Whether the fit converged.
        message: How it ended.
        nit: Passes over the data.
        mask_good: Pixels that were used, (pix,).
        result: The whole result.
    """

    params: list[str]
    x: Any
    Sigma: np.ndarray | None
    s: np.ndarray
    chi: np.ndarray
    fun: float
    success: bool
    message: str
    nit: int
    mask_good: np.ndarray
    result: Result


def basic_comp_sep(
    components: Sequence[Any],
    instrument: Any,
    data: Float[np.ndarray, "freq *stokes pix"],
    nside: int | Sequence[int] = 0,
    **keywords: Any,
) -> Separation:
    """Separate maps whose noise is that of the depths of the instrument.

    Args:
        components: Emission laws of distsep.
        instrument: With `frequency` and `depth_i` / `depth_p` [uK_CMB arcmin]; or an
            `Instrument`, or the name of one.
        data: Maps [uK_CMB] of the whole sphere in RING order; of I, or of QU or IQU.
            UNSEEN or NaN: not observed.
        nside: Patches of the parameters: 0 for one value each; one nside, or one for
            each parameter in the order of `params`.
        keywords: `bounds` as in scipy, and arguments of `distsep.separate` but those
            whose result has no place in fgbuster's layout.

    Returns:
        The separation.

    Raises:
        ValueError: see `distsep.separate`.

    Communication: none.
    """
    return _separate(components, instrument, data, None, nside, keywords)


def weighted_comp_sep(
    components: Sequence[Any],
    instrument: Any,
    data: Float[np.ndarray, "freq *stokes pix"],
    cov: Float[np.ndarray, "freq *stokes pix"],
    nside: int | Sequence[int] = 0,
    **keywords: Any,
) -> Separation:
    """Separate maps with a noise variance in every pixel.

    Args:
        components: Emission laws of distsep.
        instrument: With `frequency`; depths are not used.
        data: As for `basic_comp_sep`.
        cov: Noise variance [uK_CMB^2], in the shape of `data`; UNSEEN or infinite where
            a band did not observe.
        nside: As for `basic_comp_sep`.
        keywords: As for `basic_comp_sep`.

    Returns:
        The separation.

    Communication: none.
    """
    return _separate(components, instrument, data, np.asarray(cov), nside, keywords)


_NOT_HERE = (
    *("patches", "shared", "calibration", "band_shift", "angle", "global_terms"),
    *("amplitude_unit", "comm", "output"),
)


def _separate(components, instrument, data, cov, nside, keywords) -> Separation:
    refused = [name for name in _NOT_HERE if name in keywords]
    if refused:
        raise ValueError(
            f"`{', '.join(refused)}`: fgbuster's layout has no place for what comes of "
            "it. Call `distsep.separate`."
        )
    d = np.asarray(data)
    maps = d[:, None] if d.ndim == 2 else d
    if maps.ndim != 3 or maps.shape[1] not in STOKES:
        raise ValueError(
            "`data` should have shape (freq, pix) or (freq, stokes, pix) with 1, 2 "
            f"(QU) or 3 (IQU) Stokes parameters; got {d.shape}."
        )
    stokes = STOKES[maps.shape[1]]
    keywords = dict(keywords)
    variance = None
    if cov is not None:
        if np.shape(cov) != d.shape:
            raise ValueError(
                f"`cov` should have the shape of `data`, {d.shape}; got "
                f"{np.shape(cov)}."
            )
        variance = np.array(cov, float).reshape(maps.shape)
        variance[healpix.is_missing(variance)] = np.inf
    observation = Observation(
        maps,
        Instrument.of(instrument),
        stokes=stokes,
        nside=healpix.nside_of(maps.shape[-1], "data"),
        noise_variance=variance,
        observed=keywords.pop("observed", None),
    )
    mixing = MixingMatrix(
        components, observation.instrument, stokes=stokes, fixed=keywords.get("fixed")
    )
    sides = _sides(nside, mixing.names)
    result = separate(
        components,
        observation,
        patches={name: n for name, n in sides.items() if n},
        **_arguments(keywords, mixing.names),
    )
    return _answer(result, observation, mixing, sides, d)


def _sides(nside: int | Sequence[int], names: tuple[str, ...]) -> dict[str, int]:
    """The nside of the patches of every parameter."""
    single = isinstance(nside, int | np.integer)
    given = [int(nside)] * len(names) if single else [int(n) for n in nside]
    if len(given) != len(names):
        raise ValueError(
            f"`nside` should be one number, or one for each of {', '.join(names)}; got "
            f"{nside}."
        )
    return dict(zip(names, given, strict=True))


def _arguments(keywords: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Keywords of `separate`; scipy's are set aside, and said to be."""
    ours = {key: value for key, value in keywords.items() if key not in SCIPY}
    if len(ours) < len(keywords):
        aside = ", ".join(key for key in keywords if key in SCIPY)
        log.warning(f"{aside}: of scipy's minimisers, not used by distsep.")
    bounds = ours.get("bounds")
    if bounds is not None and not isinstance(bounds, Mapping):
        pairs = [np.ndim(b) == 1 and len(b) == 2 for b in bounds]
        if len(pairs) != len(names) or not all(pairs):
            raise ValueError(
                "`bounds` should be (lower, upper), None for neither, for each of "
                f"{', '.join(names)}; got {bounds}."
            )
        limits = [
            tuple(
                free if v is None else v
                for v, free in zip(b, (-np.inf, np.inf), strict=True)
            )
            for b in bounds
        ]
        ours["bounds"] = dict(zip(names, limits, strict=True))
    return ours


def _answer(
    result: Result,
    observation: Observation,
    mixing: MixingMatrix,
    sides: dict[str, int],
    data: np.ndarray,
) -> Separation:
    """The result in fgbuster's layout."""
    each = {name: _in_ring(result.parameters[name], n) for name, n in sides.items()}
    same = len(set(sides.values())) <= 1
    amplitudes = np.asarray(result.amplitudes)
    chi = observation.restore(_residuals(result, observation, mixing))
    s = np.where(np.isfinite(amplitudes), amplitudes, healpix.UNSEEN)
    chi = np.where(np.isfinite(chi), chi, healpix.UNSEEN)
    return Separation(
        params=list(mixing.names),
        x=np.array(list(each.values())) if same else list(each.values()),
        Sigma=_sigma(result, mixing.names, sides) if same else result.covariance,
        s=s[:, 0] if data.ndim == 2 else s,
        chi=chi.reshape(data.shape),
        fun=result.neg_log_like,
        success=result.converged,
        message=result.message,
        nit=result.steps,
        mask_good=np.asarray(np.isfinite(amplitudes).any((0, 1))),
        result=result,
    )


def _in_ring(values: Any, nside: int) -> np.ndarray:
    """Values of the patches of an nside in RING order, UNSEEN where there is none."""
    v = np.where(np.isfinite(values), values, healpix.UNSEEN)
    return v if nside == 0 else v[healpix.ring_to_nest(nside, np.arange(len(v)))]


def _sigma(
    result: Result, names: tuple[str, ...], sides: dict[str, int]
) -> np.ndarray | None:
    """Covariance of the parameters in each patch, (param, param, patch)."""
    if result.covariance is None:
        return None
    nside = next(iter(sides.values()), 0)
    if nside == 0:
        return result.covariance
    order = {name: k for k, name in enumerate(result.names)}
    npatch = 12 * nside**2
    sigma = np.full((len(names), len(names), npatch), healpix.UNSEEN)
    nest = healpix.ring_to_nest(nside, np.arange(npatch))
    for ring, patch in enumerate(nest):
        rows = [order.get(f"{name}[{patch}]", -1) for name in names]
        if min(rows) >= 0:
            sigma[:, :, ring] = result.covariance[np.ix_(rows, rows)]
    return sigma


def _residuals(
    result: Result, observation: Observation, mixing: MixingMatrix
) -> np.ndarray:
    """(d - A s) / sigma of the local pixels, (freq, stokes, pix)."""
    s = np.asarray(result.amplitudes)[..., observation.caller_index]
    kept = {name: ids[0] for name, ids in result.patches.items()}
    r = np.array(observation.d, dtype=float)
    if not kept:
        A = np.asarray(mixing(result.parameters))[..., None]
    else:
        beta = {
            name: np.asarray(value)[kept[name]]
            if name in kept
            else np.full(r.shape[-1], value)
            for name, value in result.parameters.items()
        }
        A = np.moveaxis(np.asarray(mixing(beta)), 0, -1)
    for c in range(len(s)):
        r -= A[:, c, None] * s[c]
    noise = observation.noise
    invN = noise.shape if noise.kind == "pixel" else noise.shape[..., None]
    invN = invN if noise.weight is None else invN * noise.weight
    return r * np.sqrt(invN)
