"""How long is a fit where every patch of sky has its own parameters?

Cells of nside 8 for each parameter (768 patches each), where the data reduce; and
K-means clusters, 10,000 of beta_d, 500 of temp and of beta_pl, on |b| > 20 deg at nside
64, where they do not: 3 pixels share a mixing matrix, and the one-pass path serves.
Timed as in fit_global.py, K-means itself apart. Checked: -ln L, and the plain numpy
gradient of every parameter in units of its error.
"""

import bench
import numpy as np
import peers
import reference
import skies
import timing
from fit_global import separations

CLUSTERS = (10_000, 500, 500)
LATITUDE = 20.0


def check(sky, result) -> float:
    """Largest gradient of any parameter times its error: about sigma off."""
    x = [np.atleast_1d(result.parameters[k]) for k in skies.KINDS]
    seen = [np.isfinite(v) for v in x]
    value, gradient = reference.of_sky(sky, x, skies.NU0)
    assert abs(result.neg_log_like / value - 1) < 1e-9, "another likelihood"
    sigma = [np.atleast_1d(result.sigma[k]) for k in skies.KINDS]
    rows = zip(gradient, sigma, seen, strict=True)
    return max(float(np.nanmax(np.abs(g * s)[ok])) for g, s, ok in rows)


def cases(args):
    """Name, nside and sky of every case."""
    for nside in args.nside:
        coarse = 2 if args.smoke else 8
        sky = skies.make(nside, patch=skies.coarse(nside, coarse))
        yield f"nside {coarse}, each parameter", nside, sky
    nside, numbers = (8, (40, 5, 5)) if args.smoke else (64, CLUSTERS)
    took, (cells, patch) = timed_clusters(nside, numbers)
    words = "/".join(f"{n:,}" for n in numbers)
    name = f"K-means {words} ({bench.seconds(took)} for K-means itself)"
    yield name, nside, skies.make(nside, patch=patch, cell_ids=cells)


def timed_clusters(nside, numbers):
    """K-means patches, and the time they took."""
    found = []
    took, _ = timing.once(
        lambda: found.append(skies.clusters(nside, LATITUDE, numbers))
    )
    return took, found[0]


def main():
    """Measure."""
    args = bench.arguments(__doc__, nside=(64, 256), smoke=(8,), solver="adam")
    ours, compared = [], []
    for name, nside, sky in cases(args):
        found = {}
        how = {"patches": sky.patches, "solver": args.solver}
        separate = separations(sky.observation(), found, **how)
        timed = timing.measure(separate, min(args.repeats, 3), most=60.0)
        result = found["result"]
        rest = check(sky, result)
        reduced = "no" if result.reduced is None else f"{result.reduced[0]:,} rows"
        ours.append(
            [
                nside,
                name,
                len(result.names),
                bench.spread(timed),
                bench.seconds(timed.cpu),
                *[
                    bench.seconds(result.seconds.get(k))
                    for k in ("preparing", "reduction", "fit", "errors", "amplitudes")
                ],
                bench.seconds(timed.compilation),
                reduced,
                result.steps,
                f"{'yes' if result.converged else 'no'}, {rest:.1e}",
            ]
        )
        compared.append(against(args, sky, name, timed))
    bench.publish(
        args,
        "2_fit_patches",
        "2. Fit with patches, uniform noise, data in memory",
        f"Solver {args.solver}. {peers.version(args, 'fgbuster')}, "
        f"{peers.version(args, 'furax')}.\n",
        bench.table(
            [
                "nside",
                "patches",
                "parameters",
                "separate, median (range)",
                "CPU",
                "preparing",
                "reduction",
                "fit",
                "errors",
                "amplitudes",
                "compilation, once",
                "reduced to",
                "passes",
                "converged, largest gradient x error",
            ],
            ours,
        ),
        bench.table(
            [
                "nside",
                "patches",
                "distsep CPU",
                "fgbuster CPU, whole fit",
                "ratio",
                "fgbuster CPU, quoted",
                "ratio, wall to its CPU",
                "furax, one value + gradient",
            ],
            compared,
        ),
        "furax brings no fit of its own: an optimiser calls its value and gradient "
        "once per step, so its time is to be multiplied by the steps.\n",
    )


def against(args, sky, name, timed) -> list:
    """The row of the peers."""
    row = [sky.nside, name.split(" (")[0], bench.seconds(timed.cpu)]
    quoted = peers.QUOTED_FIT_PATCHES.get(sky.nside) if sky.whole else None
    fit, step = {"failed": "not asked"}, {"failed": "not asked"}
    if args.peers:
        data = sky.save(args.work / "sky.npz")
        if sky.whole:
            fit = peers.run(args, "fgbuster", "fit", data)
        else:
            # Its clusters are fitted jointly, 10,000 parameters by a dense BFGS.
            fit = {"failed": "not possible"}
        step = peers.run(args, "furax", "value_gradient", data)
        data.unlink()
    if "failed" in fit:
        row += [fit["failed"], "-"]
    else:
        cpu = fit["timing"]["cpu"]
        row += [bench.seconds(cpu), bench.ratio(cpu, timed.cpu)]
    row += [bench.seconds(quoted), bench.ratio(quoted, timed.median)]
    median = step.get("timing", {}).get("median")
    return [*row, step.get("failed") or bench.seconds(median)]


if __name__ == "__main__":
    main()
