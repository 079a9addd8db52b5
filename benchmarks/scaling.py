"""How does a step scale with ranks and devices, and what will a large machine take?

Measured: one value and gradient with pixel-varying noise (all maps seen, one packed
allreduce), and the reduction of uniform noise, on 1 and 2 ranks of 1 and 2 devices; the
same sky (strong), and the same pixels per device (weak). The sums of a strong series
must agree to the last bit. Then the allreduce alone, by size and number of ranks. From
these a model (`model.py`) of 1 to 4096 ranks, with its assumptions, as a table and a
picture.
"""

import os

import bench
import model
import numpy as np
import reference
import skies
import timing

LAYOUTS = ((1, 1), (1, 2), (2, 1), (2, 2))
SIZES = tuple(8 * 8**k for k in range(9))  # bytes of an allreduce: 8 B to 128 MiB


# ---------------------------------------------------------------- on every rank


def work(task):
    """Run one measurement on all ranks of this launch."""
    from distsep.parallel import launched_by_mpi, world

    bench.use_devices(task["devices"])
    if not launched_by_mpi():
        return bench.answer(**passes_of(task, None))
    found = passes_of(task, world()) if "npix" in task else {}
    if "sizes" in task:
        found["sums"] = allreduces(task, world())
    return bench.answer(**found) if world().rank == 0 else None


def own_sky(task, comm, noise):
    """The pixels of this rank of one sky: the same sky on any number of ranks."""
    cells = np.arange(task["npix"])
    sky = skies.make(task["nside"], noise=noise, cell_ids=cells)
    return sky if comm is None else sky.part(comm.rank, comm.size)


def passes_of(task, comm):
    """Time a step on noise of every pixel, and a reduction on uniform noise."""
    import passes

    sky = own_sky(task, comm, "pixel")
    p = passes.prepare(sky.observation(), skies.components(), None, comm)
    x = np.concatenate(sky.start)
    step = timing.measure(lambda: p.value_gradient(x), task["repeats"], comm)
    value, gradient = p.value_gradient(x)
    message = p.message
    sky = own_sky(task, comm, "uniform")
    p = passes.prepare(sky.observation(), skies.components(), None, comm)
    reduction = timing.measure(p.reduce, task["repeats"], comm)
    return {
        "step": step.to_dict(),
        "reduction": reduction.to_dict(),
        "message": message,
        "bits": [float(v).hex() for v in (value, *gradient)],
    }


def allreduces(task, comm):
    """Time `comm.sum` by size."""
    found = []
    for size in task["sizes"]:
        x = np.full(size // 8, 1.0 + comm.rank)
        total = comm.sum(x)
        assert (total == comm.size * (comm.size + 1) / 2).all(), "a wrong sum"
        repeats = max(3, min(200, int(2**24 / size))) if task["repeats"] > 1 else 1
        found.append(timing.measure(lambda x=x: comm.sum(x), repeats, comm).median)
    return found


# ---------------------------------------------------------------- the launches


def launch(args, ranks, task):
    """Run a task on so many ranks, one core for each of their devices."""
    task = {"repeats": args.repeats, **task}
    if ranks == 1 and args.smoke:
        return passes_of(task, None)
    cores = ranks * task["devices"]
    return bench.worker("scaling.py", task, ranks=ranks, cores=cores)


def series(args, kind, layouts, nside, npix_of, sizes=()):
    """Rows of a strong or weak series, its raw numbers, and allreduces on 2 ranks."""
    rows, raw, first, sums = [], [], None, None
    for ranks, devices in layouts:
        npix = npix_of(ranks, devices)
        task = {"devices": devices, "nside": nside, "npix": npix}
        if sizes and (ranks, devices) == (2, 1):
            task["sizes"] = sizes
        found = launch(args, ranks, task)
        if "failed" in found:
            rows.append([kind, ranks, devices, f"{npix:,}", found["failed"]])
            continue
        check(nside, npix, found["bits"])
        step, reduction = found["step"]["median"], found["reduction"]["median"]
        first = first or (step, reduction, found["bits"])
        same = "yes" if found["bits"] == first[2] else "NO"
        assert kind == "weak" or same == "yes", "other bits on another layout"
        share = 1 if kind == "weak" else ranks * devices
        rows.append(
            [
                kind,
                ranks,
                devices,
                f"{npix:,}",
                bench.spread(timing.Timing(**found["step"])),
                f"{first[0] / step / share:.0%}",
                bench.seconds(reduction),
                f"{first[1] / reduction / share:.0%}",
                f"{found['message']:,} B",
                same if kind == "strong" else "-",
            ]
        )
        raw.append((ranks, devices, npix, step, reduction))
        sums = found.get("sums", sums)
    return rows, raw, sums


def check(nside, npix, bits):
    """Compare the sums with plain numpy."""
    sky = skies.make(nside, noise="pixel", cell_ids=np.arange(npix))
    value, gradient = reference.of_sky(sky, sky.start, skies.NU0)
    true = np.concatenate([[value], *gradient])
    found = np.array([float.fromhex(b) for b in bits])
    assert np.allclose(found, true, rtol=1e-7, atol=1e-8 * abs(true[1:]).max())


def main():
    """Measure, fit the model, and draw it."""
    if (task := bench.asked()) is not None:
        return work(task)
    args = bench.arguments(__doc__, nside=(256,), smoke=(32,))
    nside = args.nside[0]
    layouts = ((1, 1), (2, 1)) if args.smoke else LAYOUTS
    sizes = SIZES[:3] if args.smoke else SIZES
    whole = 12 * nside**2
    strong, raw, two = series(args, "strong", layouts, nside, lambda *_: whole, sizes)
    sums = {} if two is None else {2: two}
    weak = []
    if not args.smoke:
        # The share of a device does not change: a quarter of the sphere.
        weak, *_ = series(args, "weak", layouts, nside, lambda r, n: whole // 4 * r * n)
        four = launch(args, 4, {"devices": 1, "sizes": sizes})
        sums |= {4: four["sums"]} if "sums" in four else {}
    rows = [
        [f"{size:,}", *(bench.seconds(times[i]) for times in sums.values())]
        for i, size in enumerate(sizes)
    ]
    parts = [
        f"nside {nside}, 15 bands, QU, float64, {len(os.sched_getaffinity(0))} cores: "
        "more ranks x devices than cores take turns.\n",
        bench.table(
            [
                "series",
                "ranks",
                "devices of each",
                "pixels",
                "step, median (range)",
                "efficiency",
                "reduction",
                "efficiency",
                "summed",
                "same bits",
            ],
            [*strong, *weak],
        ),
        "The allreduce as a fit calls it (`Comm.sum`), within one machine:\n",
        bench.table(["bytes", *(f"{n} ranks" for n in sums)], rows),
    ]
    if raw and 2 in sums:
        npix = whole // 64
        few = launch(args, 1, {"devices": 1, "nside": nside, "npix": npix})
        small = npix, few["step"]["median"]
        machine = model.fitted(raw, small, sizes, sums[2])
        picture = None
        if args.results is not None:
            picture = args.results.with_name(f"{args.results.stem}-scaling.png")
        parts += model.report(machine, nside, raw, picture)
    bench.publish(args, "4_scaling", "4. Ranks and devices", *parts)
    return None


if __name__ == "__main__":
    main()
