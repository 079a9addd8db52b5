"""Many simulated skies, separated one after the other: are the errors right?

A process grid: groups of ranks, each with skies of its own; the ranks of a group share
the pixels of one sky. Groups do not wait for one another before the end, and programs
are compiled for the first sky of each alone.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from distsep.config import Campaign
from distsep.config.tables import SYSTEMATICS
from distsep.data.fits_scalar import read_mask
from distsep.flow import separate
from distsep.parallel import Comm
from distsep.rows import SkyFolder, SkyRow
from distsep.simulate import observe
from distsep.skies import Skies
from distsep.sky import Sky, constants, make_sky, redraw, true_values


def run_campaign(
    campaign: Campaign,
    folder: SkyFolder,
    done: list[SkyRow],
    comm: Comm,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Skies | None:
    """Simulate and separate the skies that are not done yet.

    Args:
        campaign: What `read_campaign` returned.
        folder: Where rows, and results if asked for, are kept.
        done: What `folder.begin` found.
        comm: All ranks.
        progress: Called with (done, of, words), as if all groups were as far as this.

    Returns:
        All rows of the campaign on rank 0, None elsewhere.

    Raises:
        Exception: errors of a sky carry its seed. Before every group has its first, the
            folder is as it was.

    Communication: a split, two barriers and a gather of rows; that of `separate` in
        each group.
    """
    table, known = campaign.config.campaign, {row.seed for row in done}
    todo = [seed for seed in table.seeds if seed not in known]
    number, ngroup = comm.rank // table.ranks_per_sky, comm.size // table.ranks_per_sky
    mine, group = todo[number::ngroup], comm.split(number)
    worker, rows = _Worker(campaign, folder, group), []
    for n, seed in enumerate(mine):
        try:
            rows.append(worker(seed))
        except Exception as error:
            error.add_note(f"in the sky of seed {seed}")
            raise
        if n == 0:
            _commit(folder, todo[:ngroup], comm)
        if group.rank == 0:
            folder.add(rows[-1], writer=comm.rank)
        progress(min((n + 1) * ngroup, len(todo)), len(todo), f"sky {seed}")
    if not mine:
        _commit(folder, todo[:ngroup], comm)
    everything = comm.gather(rows)
    if everything is None:
        return None
    found = {row.seed: row for some in (done, *everything) for row in some}
    kept = [found[seed] for seed in table.seeds if seed in found]
    return Skies(kept, _truth(campaign, kept[0].values))


def require_groups(campaign: Campaign, size: int) -> None:
    """Refuse a number of ranks that cannot be cut into groups of `ranks_per_sky`.

    Raises:
        ValueError: if they cannot.

    Communication: none.
    """
    each = campaign.config.campaign.ranks_per_sky
    if size % each:
        raise ValueError(
            f"`campaign.ranks_per_sky = {each}`: {size} rank"
            f"{'' if size == 1 else 's'} cannot be cut into groups of so many: start a "
            "multiple of it."
        )


def _commit(folder: SkyFolder, first: list[int], comm: Comm) -> None:
    """Make the folder, once all groups have a sky. Communication: two barriers."""
    comm.barrier()
    if comm.rank == 0:
        folder.commit(first)
    comm.barrier()


def _truth(campaign: Campaign, kinds: Iterable[str]) -> dict[str, float | None]:
    """True values of the parameters that were fitted, as far as there are."""
    truth = constants(true_values(campaign.sky))
    laws = {table.label for table in campaign.run.component}
    for kind in kinds:
        head = kind.split(".")[0]
        if head not in laws:  # no gain is off, and a simulated sky has no global term
            truth[kind] = SYSTEMATICS.get(head, 0.0)
    return truth


class _Worker:
    """What a group of ranks needs for every sky, and the sky it had before."""

    def __init__(self, campaign: Campaign, folder: SkyFolder, group: Comm):
        self._campaign, self._folder, self._group = campaign, folder, group
        sky, run = campaign.sky.sky, campaign.run
        sphere: dict[str, Any] = {"nside": sky.nside, "coordsys": sky.coordsys}
        self._arguments = run.separate_arguments(**sphere)
        mask = run.observation.mask
        self._mask = None if mask is None else read_mask(mask, **sphere)
        self._sky: Sky | None = None
        self._truth = _truth(campaign, ())

    def __call__(self, seed: int) -> SkyRow:
        """Make one sky and separate it. Communication: that of `separate`."""
        begun, group = time.perf_counter(), self._group
        config = self._campaign.sky_of(seed)
        if self._sky is None:
            self._sky = make_sky(config, group)
        else:
            self._sky = redraw(self._sky, config, group)
        observation = observe(config, self._sky, group, self._mask)
        said = {
            **observation.provenance,
            "run": self._campaign.run.provenance,
            "truth": self._truth,
        }
        kept = self._folder.results
        result = separate(
            observation=observation.replace(provenance=said),
            output=self._folder.result(seed) if kept else None,
            overwrite=kept,
            comm=group,
            **self._arguments,
        )
        return SkyRow.of(seed, result, time.perf_counter() - begun)
