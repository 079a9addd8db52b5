"""How long is one value and gradient where every band has its own noise in every pixel?

Nothing reduces here: each step of a fit sees all maps. Competitors: furax, fgbuster
(its algebra), and the plain numpy normal equations of `reference.py`, each in a process
of its own on the same arrays, on 1 core and on 2: as threads of one device, two devices
of one rank, or two ranks (numpy on 1: two would take half its time at best, and that is
what two cores are compared with). Bytes: maps and inverse variances once each, against
the bandwidth of memory, measured just before: on a shared machine it is another in
every minute. The values and gradients are compared before a time is
printed. `kernel` is the compiled pass alone; `step` is what a fit waits for, the sum
over ranks included. Where the noise is uniform the data reduce: that step is timed
beside furax's too.
"""

import bench
import memory
import numpy as np
import peers
import reference
import skies
import timing

SIGNIFICANT = 1e-8  # relative to the largest component of the gradient
LEAST = 1.5  # seconds that repeats take: a shared machine is slow for half of one


def work(task):
    """One competitor on one sky: distsep or the reference."""
    sky = skies.load(task["data"])
    if task["who"] == "numpy":
        invN = 1 / sky.variance
        found = []

        def step():
            found[:] = reference.value_gradient(
                sky.start, sky.nu, skies.NU0, sky.d, invN, sky.patch
            )

        timed = timing.measure(step, task["repeats"], most=60.0, least=LEAST)
        return {
            "timing": timed.to_dict(),
            "value": found[0],
            "gradient": [g.tolist() for g in found[1]],
        }
    if task.get("here"):
        return distsep_pass(sky, task["repeats"], 1, None)
    bench.use_devices(task["devices"])
    from distsep.parallel import launched_by_mpi, world

    comm = world() if launched_by_mpi() else None
    return distsep_pass(sky, task["repeats"], task["devices"], comm)


def distsep_pass(whole, repeats, devices, comm):
    """Prepare once; time the step, and the compiled pass alone. Rank 0 answers."""
    import passes

    from distsep.inference.likelihood import block_value_gradient

    sky = whole if comm is None else whole.part(comm.rank, comm.size)
    p = passes.prepare(
        sky.observation(), skies.components(), sky.patches, comm, devices
    )
    x = np.concatenate(whole.start)
    timed = timing.measure(lambda: p.value_gradient(x), repeats, comm, least=LEAST)
    tables = p.problem.own.tables(x)
    kernel = timing.measure(
        lambda: list(p.survey.outputs(block_value_gradient, tables)),
        repeats,
        comm,
        least=LEAST,
    )
    value, gradient = p.value_gradient(x)
    if comm is not None and comm.rank:
        return None
    cuts = np.cumsum([len(v) for v in whole.start])[:-1]
    return {
        "timing": timed.to_dict(),
        "kernel": kernel.to_dict(),
        "value": float(value),
        "gradient": [g.tolist() for g in np.split(gradient, cuts)],
    }


def wrong(found, gradient) -> float:
    """Largest difference of the gradient, relative to its largest component."""
    other, true = np.concatenate(found["gradient"]), np.concatenate(gradient)
    return float(np.abs(other - true).max() / np.abs(true).max())


def sky_of(case, nside):
    """Global parameters, or patches."""
    patch = None
    if case == "patches":
        patch = skies.coarse(nside, min(8, nside // 2))
    return skies.make(nside, noise="pixel", patch=patch)


def main():
    """Measure."""
    if (task := bench.asked()) is not None:
        found = work(task)
        return bench.answer(**found) if found else None
    args = bench.arguments(
        __doc__, nside=(64, 128, 256, 512), smoke=(8,), most_peer=512, rounds=3
    )
    against_machine(args)
    if args.peers or args.smoke:
        against_peers(args)
    return None


def skies_of(args):
    """Yield case, nside, sky, its file, and the true value and gradient."""
    for case in ("global", "patches"):
        for nside in args.nside:
            sky = sky_of(case, nside)
            data = sky.save(args.work / "sky.npz")
            yield case, nside, sky, data, reference.of_sky(sky, sky.start, skies.NU0)
            data.unlink()


def against_machine(args):
    """The step on one core and two, beside numpy and the bandwidth of the memory."""
    # Cores, ranks, and devices of each.
    cuts = ((1, 1, 1),) if args.smoke else ((1, 1, 1), (2, 1, 1), (2, 1, 2), (2, 2, 1))
    size = 2**20 if args.smoke else memory.SIZE
    rounds = 1 if args.smoke else args.rounds
    rows = []
    for case, nside, sky, data, truth in skies_of(args):
        nbytes = 2 * sky.d.nbytes
        task = {"data": str(data), "repeats": args.repeats}
        plain = run(args, "numpy", {**task, "cores": 1})
        check(plain, *truth)
        for cores, ranks, devices in cuts:
            how = {"cores": cores, "ranks": ranks, "devices": devices}
            tries = []
            for _ in range(rounds):
                speed = memory.read_bandwidth(cores, size, args.repeats)
                ours = run(args, "distsep", {**task, **how})
                check(ours, *truth)
                rate = nbytes / ours["timing"]["median"] / 1e9
                tries.append((rate / speed, speed, rate, ours))
            tries.sort(key=lambda t: t[0])
            part, speed, rate, ours = tries[len(tries) // 2]
            mine = timing.Timing(**ours["timing"])
            rows.append(
                [
                    case,
                    nside,
                    cores,
                    f"{ranks} x {devices}",
                    bench.spread(mine),
                    bench.seconds(ours["kernel"]["median"]),
                    f"{rate:.2f}",
                    f"{part:.0%} of {speed:.1f}",
                    f"{tries[0][0]:.0%}..{tries[-1][0]:.0%}",
                    bench.seconds(plain["timing"]["median"]),
                    bench.ratio(plain["timing"]["median"] / cores, mine.median),
                    bench.seconds(mine.compilation),
                ]
            )
    bench.publish(
        args,
        "3_value_gradient",
        "3. Value and gradient, pixel-varying noise in every band",
        "15 bands, QU, float64, three kinds of parameters; patches: cells of nside 8. "
        "The arrays: 24 MB at nside 64, 94, 377 and 1510 MB at 128, 256 and 512. The "
        "bandwidth, on as many cores, is the fastest of four ways to read, measured "
        f"anew just before each step. Each row is the middle one of {rounds} such "
        "rounds, by the fraction of the bandwidth.\n",
        bench.table(
            [
                "parameters",
                "nside",
                "cores",
                "ranks x devices",
                "step, median (range)",
                "kernel alone",
                "GB/s of the step",
                "of read GB/s",
                "all rounds",
                "numpy, 1 core",
                "ratio, per core",
                "compilation, once",
            ],
            rows,
        ),
    )


def against_peers(args):
    """The step on one device, on one core and two, beside the peers."""
    rows = []
    for case, nside, sky, data, truth in skies_of(args):
        task = {"data": str(data), "repeats": args.repeats}
        for cores in (1,) if args.smoke else (1, 2):
            ours = run(args, "distsep", {**task, "cores": cores, "devices": 1})
            check(ours, *truth)
            mine = ours["timing"]
            row = [case, nside, cores, bench.seconds(mine["median"])]
            row += peer(args, "furax", sky, data, cores, mine, truth[1])
            row += peer(args, "fgbuster", sky, data, cores, mine, truth[1])
            rows.append(row)
    reduced = [uniform(args, nside) for nside in args.nside]
    bench.publish(
        args,
        "3_value_gradient_peers",
        "3, continued. The same step, against the peers",
        f"{peers.version(args, 'furax')}, {peers.version(args, 'fgbuster')}; `off`: "
        "largest error of the gradient, relative to its largest component. At most "
        f"three repeats after the first call, none begun after {peers.MOST:.0f} s.\n",
        bench.table(
            [
                "parameters",
                "nside",
                "cores",
                "distsep",
                *("furax", "ratio", "off"),
                *("fgbuster", "ratio", "off"),
            ],
            rows,
        ),
        "Uniform noise, global parameters, 1 core: distsep sees the reduced data.\n",
        bench.table(
            ["nside", "reduction, once", "step", "furax", "ratio", "off"], reduced
        ),
        "Quoted from before, fgbuster CPU: "
        + ", ".join(
            f"nside {n} {bench.seconds(t)}"
            for n, t in peers.QUOTED_VALUE_GRADIENT.items()
        )
        + ".\n",
    )


def uniform(args, nside) -> list:
    """Row of the case where the data reduce; in this process, one device."""
    import passes

    sky = skies.make(nside)
    p = passes.prepare(sky.observation(), skies.components())
    x = np.concatenate(sky.start)
    once = timing.measure(p.reduce, args.repeats)
    objective = p.reduced()
    timed = timing.measure(lambda: objective.value_gradient(x), args.repeats)
    truth = reference.of_sky(sky, sky.start, skies.NU0)
    value, gradient = objective.value_gradient(x)
    found = {"value": value, "gradient": gradient[:, None]}
    # Roots of sums keep differences of ln L, not its absolute value.
    assert wrong(found, truth[1]) < SIGNIFICANT, "another gradient"
    data = sky.save(args.work / "sky.npz")
    row = [nside, bench.seconds(once.median), bench.seconds(timed.median)]
    row += peer(args, "furax", sky, data, 1, timed.to_dict(), truth[1])
    data.unlink()
    return row


def run(args, who, task):
    """One of our own competitors; in this process for a smoke test."""
    task = {**task, "who": who}
    if args.smoke:
        return work({**task, "here": True})
    how = {"cores": task["cores"], "ranks": task.get("ranks", 1)}
    return bench.worker("value_gradient.py", task, **how)


def check(found, value, gradient):
    """Stop before a time of a wrong answer is printed."""
    assert "failed" not in found, found["failed"]
    off = abs(found["value"] / value - 1)
    assert off < SIGNIFICANT, f"another value: {off:.1e}"
    assert wrong(found, gradient) < SIGNIFICANT, "another gradient"


def peer(args, name, sky, data, cores, mine, gradient) -> list:
    """Time, ratio and error of a peer; `-` where it is not run."""
    if name == "fgbuster" and sky.patch is not None:
        return ["one value only", "-", "-"]
    if sky.nside > args.most_peer:
        return ["not run", "-", "-"]
    found = peers.run(args, name, "value_gradient", data, cores=cores)
    if "failed" in found:
        return [found["failed"], "-", "-"]
    median = found["timing"]["median"]
    off = wrong(found, gradient)
    return [bench.seconds(median), bench.ratio(median, mine["median"]), f"{off:.0e}"]


if __name__ == "__main__":
    main()
