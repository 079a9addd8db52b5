"""From store to store: how long, how much memory, and what the disk alone would take?

A sky is simulated into a zarr store, separated into others in a process of its own
(`distsep.separate(open_observation(...), output=...)`), and its peak memory read at
the end. Beside it the bare minimum, in turn with the separations: the input through
`cat`, the output's bytes written once; and the input through zarr chunk by chunk (and
tensorstore, if the peers' environment has it). The input is in the page cache for all
of them. New files need memory: on a virtual machine that which was used a moment ago is
at hand; what has been free for a second or two went back to the host, which may take
longer to give it again than all the rest takes. Both are measured, for all of them
alike. Nothing is deleted in between. Answers are checked before a time is printed:
errors and chi2 at every nside, the plain numpy gradient where the maps fit in memory.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import bench
import memory
import numpy as np
import peers
import timing

SKY = """
[sky]
nside = {nside}
stokes = "QU"
seed = 3
dtype = "{dtype}"
[instrument]
preset = "LiteBIRD"
[[component]]
kind = "CMB"
amplitude = {{ random = 3.0 }}
[[component]]
kind = "Dust"
nu0 = 353.0
beta_d = 1.59
temp = 19.4
amplitude = {{ random = 30.0 }}
[[component]]
kind = "Synchrotron"
nu0 = 23.0
beta_pl = -3.06
amplitude = {{ random = 20.0 }}
[output]
truth = false
"""
IN_MEMORY = 128  # largest nside that is checked with the reference
LIMIT = 2 * 2**30  # bytes of memory per rank


# ---------------------------------------------------------------- in its own process


def work(task):
    """Run one of the tasks below."""
    do = {"separate": separate, "zarr": read_zarr, "ts": read_ts}[task["do"]]
    bench.answer(**do(task))


def separate(task):
    """Separate and, in turn, read and write the same bytes with nothing else."""
    import skies

    from distsep import separate
    from distsep.data.store import open_observation

    store, folder = Path(task["store"]), Path(task["folder"])
    found, anonymous = [], [0.0]
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(anonymous, done))
    watch.start()

    def once():
        output = folder / f"{len(found)}.zarr"
        observation = open_observation(store)
        found.append(separate(skies.components(), observation, output=output))

    first, _ = timing.once(once)  # everything is compiled then
    written = size(folder / "0.zarr")
    rounds = {state: [] for state in STATES}
    for i, state in enumerate([*STATES] * task["repeats"]):
        one, bare = {}, folder / f"bare{i}"
        actions = {
            "cat": lambda: cat(store),
            "write": lambda bare=bare: write(bare, written),
            "separate": once,
        }
        for name, action in actions.items():
            os.sync()  # the disk is not still writing what came before
            if not task["smoke"]:
                touch(max(written + 2**30, 5 * 2**30))
                time.sleep(STATES[state])
            one[name], _ = timing.once(action)
        rounds[state].append({**one, "phases": found[-1].seconds})
    done.set()
    watch.join()
    last = found[-1]
    return {
        "first": first,
        "rounds": rounds,
        "written": written,
        "peak": memory.peak(),
        "anonymous": anonymous[0],
        "converged": last.converged,
        "x": [float(np.squeeze(last.parameters[k])) for k in skies.KINDS],
        "sigma": [float(np.squeeze(last.sigma[k])) for k in skies.KINDS],
        "covariance": last.covariance.tolist(),
        "chi2": last.chi2_total,
        "dof": last.dof,
    }


def _watch(most, done):
    """Largest memory that is no mapped file, seen every 20 ms."""
    while not done.wait(0.02):
        status = Path("/proc/self/status").read_text()
        line = next(x for x in status.splitlines() if x.startswith("RssAnon"))
        most[0] = max(most[0], float(line.split()[1]) * 1024)


def read_zarr(task):
    """Read the maps chunk by chunk through zarr."""
    import zarr

    maps = zarr.open_group(task["store"], mode="r", use_consolidated=False)["maps"]

    def run():
        step = maps.chunks[-1]
        for first in range(0, maps.shape[-1], step):
            maps[..., first : first + step]

    return {"seconds": timing.measure(run, task["repeats"]).median}


def read_ts(task):
    """Read the maps chunk by chunk through tensorstore."""
    import tensorstore

    where = {"driver": "file", "path": f"{task['store']}/maps/"}
    maps = tensorstore.open({"driver": "zarr3", "kvstore": where}).result()

    def run():
        step = maps.chunk_layout.read_chunk.shape[-1]
        for first in range(0, maps.shape[-1], step):
            last = min(first + step, maps.shape[-1])
            maps[..., first:last].read().result()

    return {"seconds": timing.measure(run, task["repeats"]).median}


# ---------------------------------------------------------------- the bare minimum


def size(store: Path) -> int:
    """Bytes of the files of a store."""
    return sum(f.stat().st_size for f in store.rglob("*") if f.is_file())


def cat(store: Path) -> None:
    """`cat` over the chunks of the maps."""
    files = sorted(map(str, (store / "maps").rglob("c/**/*")))
    files = [f for f in files if Path(f).is_file()]
    with open("/dev/null", "w") as null:
        subprocess.run(["cat", *files], stdout=null, check=True)


def write(folder: Path, nbytes: int) -> None:
    """Write so many bytes, in files of 4 MiB."""
    piece = np.ones(2**19)
    folder.mkdir(parents=True)
    for i in range(max(nbytes // piece.nbytes, 1)):
        piece.tofile(folder / str(i))


def touch(nbytes: int) -> None:
    """Let another process use so much memory and give it back: it is at hand then."""
    flags = "MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE"
    code = f"from mmap import *; mmap(-1, {nbytes}, flags={flags})"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- the question


def simulate(store: Path, nside: int, dtype: str) -> float:
    """Write the input; return its seconds."""
    from distsep.config.sky import read_sky
    from distsep.simulate import simulate

    config = store.with_suffix(".toml")
    config.write_text(SKY.format(nside=nside, dtype=dtype))
    sky = read_sky(config)
    config.unlink()
    start = time.perf_counter()
    simulate(sky, store, overwrite=True)
    return time.perf_counter() - start


def check(store: Path, nside: int, found: dict) -> str:
    """Stop at a wrong answer; say how it was checked."""
    import reference
    import skies

    assert "failed" not in found, found["failed"]
    pulls = (np.array(found["x"]) - skies.TRUTH) / found["sigma"]
    assert found["converged"], "not converged"
    assert np.abs(pulls).max() < 5, f"pulls {pulls}"
    z = (found["chi2"] - found["dof"]) / np.sqrt(2 * found["dof"])
    assert abs(z) < 5, f"chi2 is {z:.1f} sigma off"
    words = f"pulls {' '.join(f'{p:+.1f}' for p in pulls)}, chi2 {z:+.1f} sigma"
    if nside > IN_MEMORY:
        return words
    from distsep.data.store import read

    obs = read(store)
    shape = obs.noise.shape[..., None]
    x = [np.array([v]) for v in found["x"]]
    _, gradient = reference.value_gradient(
        x, obs.instrument.nu, skies.NU0, obs.d, shape
    )
    off = reference.distance(gradient, np.array(found["covariance"]))
    assert off < 1e-3, f"{off} sigma from the optimum"
    return f"{words}, {off:.0e} sigma off"


def measure(args, nside: int, dtype: str):
    """Rows of one store."""
    store, folder = args.work / f"sky{nside}.zarr", args.work / "written"
    shutil.rmtree(folder, ignore_errors=True)
    simulated = simulate(store, nside, dtype)
    task = {
        "store": str(store),
        "folder": str(folder),
        "repeats": args.repeats,
        "smoke": args.smoke,
    }
    if args.smoke:
        found = separate(task)
        zarr, ts = read_zarr(task), {"failed": "not asked"}
    else:
        found = bench.worker("end_to_end.py", {**task, "do": "separate"}, timeout=1800)
        zarr = bench.worker("end_to_end.py", {**task, "do": "zarr"})
        python = {"python": peers.PYTHON} if peers.PYTHON.exists() else {}
        ts = bench.worker("end_to_end.py", {**task, "do": "ts"}, **python)
    words = check(store, nside, found)
    nbytes = size(store / "maps")
    shutil.rmtree(store)
    shutil.rmtree(folder)
    name = [nside, dtype]
    peak = f"{found['peak'] / 2**30:.2f} GiB"
    times, disk = [], []
    for state, rounds in found["rounds"].items():
        every = {k: [r[k] for r in rounds] for k in ("separate", "cat", "write")}
        wall, read, bare = (float(np.median(every[k])) for k in every)
        phases = rounds[-1]["phases"]
        t = timing.Timing(0, wall, min(every["separate"]), max(every["separate"]), 0, 0)
        times.append(
            [
                *name,
                f"{nbytes / 1e9:.2f} GB",
                state,
                bench.spread(t),
                *(f"{phases.get(k, 0) / sum(phases.values()):.0%}" for k in PHASES),
                bench.seconds(max(found["first"] - wall, 0.0)),
                peak + ("" if found["peak"] < LIMIT else " (!)"),
                f"{found['anonymous'] / 2**30:.2f} GiB",
                words,
            ]
        )
        by_zarr = min(x["seconds"] for x in (zarr, ts) if "seconds" in x)
        least = [r["separate"] / (r["cat"] + r["write"]) for r in rounds]
        disk.append(
            [
                *name,
                state,
                *(bench.seconds(t) for t in (read, zarr["seconds"], ts.get("seconds"))),
                f"{bench.seconds(bare)} ({found['written'] / 1e9:.2f} GB)",
                bench.seconds(wall),
                f"{np.median(least):.2g}x ({min(least):.2g}..{max(least):.2g})",
                f"{wall / (by_zarr + bare):.2g}x",
                f"{read / wall:.0%}",
                f"{zarr['seconds'] / wall:.0%}",
                bench.seconds(simulated),
            ]
        )
    return times, disk


# Of the memory that new files are written to, and seconds since it was used last.
STATES = {"at hand": 0, "given back": 5}
PHASES = ("preparing", "reduction", "fit", "errors", "amplitudes", "writing")


def main():
    """Measure."""
    if (task := bench.asked()) is not None:
        return work(task)
    args = bench.arguments(__doc__, nside=(64, 256, 512, 1024, 2048), smoke=(32,))
    args.repeats = min(args.repeats, 3)
    times, disk = [], []
    for nside in args.nside:
        # Single precision where the maps would be 12 GB.
        rows, bare = measure(args, nside, "float32" if nside >= 2048 else "float64")
        times += rows
        disk += bare
    bench.publish(
        args,
        "5_end_to_end",
        "5. From store to store",
        "Uniform noise, 15 bands, QU, three global parameters, one rank of one device. "
        "`reduction` and `amplitudes` read the maps, `amplitudes` writes the result as "
        "it goes. Memory: the peak of the process, mapped files included, and without "
        f"them; limit {LIMIT / 2**30:.0f} GiB.\n",
        bench.table(
            [
                "nside",
                "type",
                "maps",
                "memory",
                "separate, median (range)",
                *PHASES,
                "compilation, once",
                "peak memory",
                "without mapped files",
                "checked",
            ],
            times,
        ),
        "Against the bare minimum, `cat` plus the write of the same bytes, in turn "
        "with each separation (`cat`, `zarr`: also as a share of the separation). "
        "`memory`, of the files that are written: at hand where another process used "
        "and left 5 GiB just before; given back where it did so 5 s before, so that a "
        "virtual machine has returned it and must get it from its host:\n",
        bench.table(
            [
                "nside",
                "type",
                "memory",
                "cat",
                "zarr",
                "tensorstore",
                "bare write",
                "separate",
                "ratio, median (range)",
                "to zarr's read (or tensorstore's) + write",
                "cat / separate",
                "zarr / separate",
                "(simulation)",
            ],
            disk,
        ),
    )
    return None


if __name__ == "__main__":
    main()
