"""fgbuster's recipes on the arrays of a file; runs in the peers' environment."""

import importlib.metadata

import bench
import timing

task = bench.asked()
if task["task"] == "version":
    bench.answer(version=importlib.metadata.version("fgbuster"))
    raise SystemExit

import fgbuster  # noqa: E402
import healpy as hp  # noqa: E402
import numpy as np  # noqa: E402
from fgbuster import algebra  # noqa: E402

with np.load(task["data"]) as file:
    sky = {k: file[k] for k in file.files}
KINDS = ("Dust.beta_d", "Dust.temp", "Synchrotron.beta_pl")
START = {"Dust.beta_d": 1.54, "Dust.temp": 20.0, "Synchrotron.beta_pl": -3.0}
components = [fgbuster.CMB(), fgbuster.Dust(353.0), fgbuster.Synchrotron(23.0)]
instrument = {"frequency": sky["nu"], "depth_p": sky["depth"]}


def value_gradient():
    """Value and gradient with the noise of every pixel, as `weighted_comp_sep` does."""
    from fgbuster.separation_recipes import _A_evaluator, standardize_instrument

    A, dA, columns, x0, names = _A_evaluator(
        components, standardize_instrument(instrument)
    )
    d = np.moveaxis(sky["d"], 0, -1)
    invN = np.moveaxis(1 / np.broadcast_to(sky["variance"], sky["d"].shape), 0, -1)
    invN = invN[..., None] * np.eye(len(sky["nu"]))
    x = np.array([START[k] for k in names])
    dA, columns = algebra._A_dB_ev_and_comp_of_dB_as_compatible_list(dA, columns, x)

    found = []

    def step():
        # Made anew each time: it keeps what it computed for the last x.
        value, gradient, _ = algebra._build_bound_inv_logL_and_logL_dB(
            A, d, invN, dA, columns
        )
        found[:] = value(x), gradient(x)

    timed = timing.measure(step, task["repeats"], most=task["most"])
    value, gradient = found
    constant = float((sky["d"] ** 2 / sky["variance"]).sum())
    order = [names.index(k) for k in KINDS]
    return {
        "timing": timed.to_dict(),
        "value": float(value) + 0.5 * constant,
        "gradient": [[float(gradient[i])] for i in order],
    }


def fit():
    """The whole separation, uniform noise: global, or in the cells of nside 8."""
    d = np.array([[hp.reorder(m, n2r=True) for m in stokes] for stokes in sky["d"]])
    nside = 8 if "patch" in sky else 0
    found = []

    def separate():
        found.append(
            fgbuster.basic_comp_sep(components, instrument, d, nside=nside, tol=1)
        )

    # Not repeated: it is slow, and compiles nothing.
    timed = timing.measure(separate, 0)
    result = found[-1]
    order = [list(result.params).index(k) for k in KINDS]
    x = np.atleast_2d(np.asarray(result.x).T).T if not nside else result.x
    x = np.asarray(x).reshape(len(KINDS), -1)[order]
    if nside:
        x = hp.reorder(x, r2n=True)
    return {
        "timing": timed.to_dict(),
        "x": x.tolist(),
        "evaluations": int(np.sum(result.get("nfev", 0))),
    }


bench.answer(**{"value_gradient": value_gradient, "fit": fit}[task["task"]]())
