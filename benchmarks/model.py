"""A model of the time per step and per campaign on many ranks.

A step is a pass over the share of the busiest rank, and one allreduce of the table of
blocks. Three constants are fitted to what `scaling.py` measured on this machine; the
network is assumed. The shares come from the library's own block grid.
"""

from dataclasses import dataclass
from pathlib import Path

import bench
import numpy as np

from distsep.data.blocks import Grid

HOP = 5e-6  # assumed: latency of one step of an allreduce between nodes [s]
WIRE = 1e-10  # assumed: seconds per byte between nodes, 10 GB/s
RANKS = (1, 4, 16, 64, 256, 1024, 4096)
NSIDES = (512, 1024, 2048, 4096, 8192)
KINDS = 3  # parameters
STEPS = 50  # of a fit that sees all maps: warm start and Adam
SKIES = 1000  # of a campaign
BYTES = 2 * 15 * 8  # of the maps of one pixel, QU and 15 bands


@dataclass(frozen=True)
class Machine:
    """Fitted constants.

    Attributes:
        sample: Seconds per pixel (Q and U) of one value and gradient.
        reduce: Seconds per pixel of the reduction; the second pass is taken as long.
        dispatch: Seconds of a step beside its pixels: tables, launch, a small sum.
        byte: Seconds per byte of the allreduce, times 2 (P - 1) / P.
    """

    sample: float
    reduce: float
    dispatch: float
    byte: float

    def total(self, nbytes: float, ranks: int) -> float:
        """Seconds of one allreduce beyond its dispatch."""
        if ranks == 1:
            return 0.0
        wire = max(self.byte, WIRE)
        return HOP * np.ceil(np.log2(ranks)) + wire * nbytes * 2 * (ranks - 1) / ranks

    def step(self, nside: int, ranks: int) -> float:
        """Seconds of a value and gradient with noise of every pixel, in memory."""
        grid = Grid.of(12 * nside**2)
        message = 8 * grid.nblocks * (1 + KINDS)
        pixels = busiest(grid, ranks)
        return self.dispatch + self.sample * pixels + self.total(message, ranks)

    def reduced(self, nside: int, ranks: int) -> float:
        """Seconds of a separation of uniform noise: two passes and a small fit."""
        grid = Grid.of(12 * nside**2)
        roots = 8 * grid.nblocks * 15**2
        pixels = busiest(grid, ranks)
        # The reduced fit takes as long as about fifty dispatches, whatever the sky.
        passes = 2 * self.reduce * pixels + 2 * self.dispatch
        return passes + self.total(roots, ranks) + 50 * self.dispatch

    def campaign(self, nside: int, ranks: int, uniform: bool) -> tuple[float, int]:
        """Seconds for all skies, and the ranks per sky that give the least."""
        choices = []
        for group in (2**k for k in range(13) if 2**k <= ranks):
            one = self.reduced(nside, group)
            if not uniform:
                one = STEPS * self.step(nside, group) + self.reduce * busiest(
                    Grid.of(12 * nside**2), group
                )
            rounds = -(-SKIES // (ranks // group))
            choices.append((rounds * one, group))
        return min(choices)


def busiest(grid: Grid, ranks: int) -> int:
    """Pixels of the rank that has the most: ranks own whole chunks."""
    return -(-grid.nchunks // ranks) * grid.chunk


def fitted(raw: list[tuple], few: tuple, sizes: tuple, seconds: list) -> Machine:
    """Fit the constants.

    Args:
        raw: (ranks, devices, npix, step, reduction) of the strong series.
        few: (npix, step) of one rank of one device with a small part of the sky: both
            were alone on the memory.
        sizes: Bytes of the allreduces.
        seconds: Their times on 2 ranks.
    """
    one = next(r for r in raw if r[:2] == (1, 1))
    sample = max(one[3] - few[1], 0.0) / (one[2] - few[0])
    small = float(min(seconds))
    slope = (seconds[-1] - small) / (sizes[-1] - sizes[0])
    return Machine(
        sample=sample,
        reduce=one[4] / one[2],
        dispatch=max(few[1] - sample * few[0], 0.0) + small,
        byte=max(float(slope), 0.0),
    )


def report(m: Machine, nside: int, raw: list[tuple], picture: Path | None) -> list[str]:
    """Tables, assumptions, and the picture."""
    head = ["nside", "chunks", *(f"{n:,} ranks" for n in RANKS)]
    steps, uniform, pixel = [], [], []
    for n in NSIDES:
        grid = Grid.of(12 * n**2)
        steps.append(
            [
                n,
                grid.nchunks,
                *(seconds(m, n, p) for p in RANKS),
            ]
        )
        for rows, flag in ((uniform, True), (pixel, False)):
            found = [m.campaign(n, p, flag) for p in RANKS]
            rows.append([n, "", *(f"{hours(t)} ({g})" for t, g in found)])
    for_measured = [
        [f"{r} x {d}", bench.seconds(t), bench.seconds(m.step(nside, r))]
        for r, d, _, t, _ in raw
        if d == 1
    ]
    if picture is not None:
        draw(m, nside, raw, picture)
    return [
        "### Model of 1 to 4096 ranks\n",
        f"Fitted here: {m.sample * 1e9:.1f} ns per pixel (QU) and step, "
        f"{m.reduce * 1e9:.1f} ns per pixel of the reduction, "
        f"{bench.seconds(m.dispatch)} per step beside the pixels, "
        f"{m.byte * 1e9:.2f} ns per byte summed.\n",
        "Assumed: ranks as fast as one core of this machine, each alone on its memory "
        "(the two that were measured share one); "
        f"maps in memory (reading is section 5); {HOP * 1e6:.0f} us per hop of a tree "
        f"and at most {1e-9 / WIRE:.0f} GB/s between nodes; no waiting for a slow "
        "rank; a rank owns whole chunks, so that more ranks than chunks do not help; "
        f"{KINDS} global parameters.\n",
        bench.table(["ranks x devices", "measured step", "model"], for_measured),
        "Seconds per step, noise of every pixel (`*`: over 16 GB per rank, which would "
        "have to be read again at each step):\n",
        bench.table(head, steps),
        f"{SKIES} skies, uniform noise (two passes and a reduced fit each), and in "
        "brackets the ranks per sky that give the least:\n",
        bench.table(head, uniform),
        f"{SKIES} skies, noise of every pixel, {STEPS} steps each:\n",
        bench.table(head, pixel),
        *([f"![model]({picture.name})\n"] if picture else []),
    ]


def seconds(m: Machine, nside: int, ranks: int) -> str:
    """A step; marked if a share of maps and inverse variances is beyond 16 GB."""
    big = 2 * BYTES * busiest(Grid.of(12 * nside**2), ranks) > 16e9
    return bench.seconds(m.step(nside, ranks)) + ("*" if big else "")


def hours(t: float) -> str:
    """A time that may be long."""
    if t >= 3600:
        return f"{t / 3600:.3g} h"
    return f"{t / 60:.3g} min" if t >= 60 else bench.seconds(t)


def draw(m: Machine, nside: int, raw: list[tuple], path: Path) -> None:
    """Time per step against ranks, with what was measured; time of a campaign."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ranks = 2 ** np.arange(13)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for n in NSIDES:
        left.loglog(ranks, [m.step(n, p) for p in ranks], label=f"nside {n}")
        for style, flag in (("-", True), ("--", False)):
            times = [m.campaign(n, p, flag)[0] / 3600 for p in ranks]
            colour = left.lines[-1].get_color()
            right.loglog(ranks, times, style, color=colour)
    left.loglog(ranks, [m.step(nside, p) for p in ranks], ":k", label=f"nside {nside}")
    points = [(r, t) for r, d, _, t, _ in raw if d == 1]
    left.loglog(*zip(*points, strict=True), "ok", label="measured")
    left.set(xlabel="ranks", ylabel="seconds per step", title="noise of every pixel")
    right.set(
        xlabel="ranks", ylabel="hours", title=f"{SKIES} skies: - uniform, -- pixel"
    )
    left.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
