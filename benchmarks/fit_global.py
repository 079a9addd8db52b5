"""How long is a fit of global parameters, uniform noise, data in memory?

Timed: `distsep.separate` on an observation in memory, from the maps to amplitudes and
errors. Apart: compilation (the first call), and the construction of the observation.
The answer is checked with the plain numpy gradient: its distance from the optimum in
sigma.
"""

import bench
import numpy as np
import peers
import reference
import skies
import timing

import distsep

SOLVERS = ("adam", "lbfgs", "newton")


def check(sky, result) -> float:
    """Distance of a result from the optimum [sigma], by the reference's gradient."""
    x = [np.atleast_1d(result.parameters[k]) for k in skies.KINDS]
    value, gradient = reference.of_sky(sky, x, skies.NU0)
    distance = reference.distance(gradient, result.covariance)
    assert result.converged, result.message
    assert distance < 1e-3, f"{distance} sigma from the optimum"
    assert abs(result.neg_log_like / value - 1) < 1e-9, "another likelihood"
    return distance


def off(sky, x, result) -> float:
    """Distance of a peer's parameters from the optimum [sigma]."""
    gradient = reference.of_sky(sky, [np.array(v) for v in x], skies.NU0)[1]
    return reference.distance(gradient, result.hessian_inverse)


def phases(result) -> list[str]:
    """Seconds of the phases that matter."""
    named = ("preparing", "reduction", "fit", "amplitudes")
    return [bench.seconds(result.seconds[k]) for k in named]


def separations(observation, found, **options):
    """Return what is timed: a separation.

    The last result is put into `found`, and the seconds of all: as in a campaign, the
    memory of the one before it is used again.
    """
    model = skies.components()

    def separate():
        found["result"] = distsep.separate(model, observation, **options)
        found.setdefault("seconds", []).append(found["result"].seconds)

    return separate


def main():
    """Measure."""
    args = bench.arguments(__doc__, nside=(64, 128, 256, 512), smoke=(8,))
    ours, compared, solvers = [], [], []
    for nside in args.nside:
        sky = skies.make(nside)
        door, _ = timing.once(sky.observation)
        observation = sky.observation()
        for solver in SOLVERS[:1] if args.smoke else SOLVERS:
            found = {}
            separate = separations(observation, found, solver=solver)
            timed = timing.measure(separate, args.repeats)
            result = found["result"]
            distance = check(sky, result)
            fits = [s["fit"] for s in found["seconds"][1:]]
            row = [nside, solver, result.steps, bench.seconds(float(np.median(fits)))]
            solvers.append([*row, bench.seconds(timed.compilation), f"{distance:.1e}"])
            if solver != "adam":
                continue
            ours.append(
                [
                    nside,
                    bench.spread(timed),
                    bench.seconds(timed.cpu),
                    *phases(result),
                    bench.seconds(timed.compilation),
                    bench.seconds(door),
                    f"{sky.d.nbytes / timed.median / 1e9:.2g} GB/s",
                ]
            )
            compared.append(against(args, sky, timed, result))
    bench.publish(
        args,
        "1_fit_global",
        "1. Fit of global parameters, uniform noise, data in memory",
        f"CMB + dust(beta_d, temp) + synchrotron(beta_pl), 15 bands, QU, float64. "
        f"{peers.version(args, 'fgbuster')}, scipy's default method, tol=1.\n",
        bench.table(
            [
                "nside",
                "separate, median (range)",
                "CPU",
                "preparing",
                "reduction",
                "fit",
                "amplitudes",
                "compilation, once",
                "Observation(...)",
                "maps / time",
            ],
            ours,
        ),
        bench.table(
            [
                "nside",
                "distsep CPU",
                "fgbuster CPU",
                "ratio",
                "its evaluations",
                "its distance",
                "fgbuster CPU, quoted",
                "ratio, wall to its CPU",
            ],
            compared,
        ),
        "The solvers, fit alone (reduced data: flat in nside and in steps):\n",
        bench.table(
            ["nside", "solver", "passes", "fit", "compilation, once", "sigma off"],
            solvers,
        ),
    )


def against(args, sky, timed, result) -> list:
    """The row of fgbuster: measured here, and as quoted."""
    quoted = peers.QUOTED_FIT.get(sky.nside)
    found = {"failed": "not asked"}
    if args.peers:
        data = sky.save(args.work / "sky.npz")
        found = peers.run(args, "fgbuster", "fit", data)
        data.unlink()
    row = [sky.nside, bench.seconds(timed.cpu)]
    if "failed" in found:
        row += [found["failed"], "-", "-", "-"]
    else:
        cpu = found["timing"]["cpu"]
        row += [
            bench.seconds(cpu),
            bench.ratio(cpu, timed.cpu),
            found["evaluations"],
            f"{off(sky, found['x'], result):.2g} sigma",
        ]
    return [*row, bench.seconds(quoted), bench.ratio(quoted, timed.median)]


if __name__ == "__main__":
    main()
