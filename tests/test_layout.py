"""Lanes, tiles and pieces: every sample once, and sums that no cut can change."""

import numpy as np
import pytest

from distsep.data.layout import (
    TILES,
    Keys,
    Pieces,
    block_runs,
    choose_tile,
    lay_out,
    make_pools,
    plain_runs,
    tile_costs,
)

BLOCK, NGROUP, NPIX, NPOOL = 64, 2, 300, 7


def alone(x):
    return [x]


def draw_pools(rng, npix=NPIX, npool=NPOOL):
    return rng.integers(-1, npool, (NGROUP, npix))


def costs_of(sample, block):
    return tile_costs(block_runs(sample, block))


def counted(key):
    return np.unique(key[key >= 0], return_counts=True)


def laid_out(sample, tile=None):
    costs = costs_of(sample, BLOCK)
    best, ntile = choose_tile([costs])
    if tile is not None:
        best, ntile = tile, max(int(costs[TILES.index(tile), 0]), 1)
    return lay_out(sample, BLOCK, best, ntile)


@pytest.mark.parametrize("tile", [None, 4, 64])
@pytest.mark.parametrize("npool", [1, 7, 300])
def test_every_sample_has_one_lane_in_a_tile_of_its_pool(tile, npool):
    sample = draw_pools(np.random.default_rng(20), npool=npool)
    layout = laid_out(sample, tile)
    for b, lanes in enumerate(layout.index):
        pool = sample[:, b * BLOCK : (b + 1) * BLOCK]
        wide = np.full((NGROUP, BLOCK), -1)
        wide[:, : pool.shape[1]] = pool
        wide = wide.ravel()
        live = lanes[lanes >= 0]
        assert sorted(live) == list(np.flatnonzero(wide >= 0))
        of_lane = np.repeat(layout.pool[b], layout.tile)
        np.testing.assert_array_equal(of_lane[lanes >= 0], wide[live])
        full = (lanes >= 0).reshape(-1, layout.tile).any(1)
        np.testing.assert_array_equal(full, ~layout.empty[b])
        held = layout.pool[b][~layout.empty[b]]
        assert (np.diff(held) >= 0).all()


def test_large_pools_get_large_tiles_and_small_ones_small():
    one = np.zeros((1, 50 * 4096), int)
    tiny = np.arange(50 * 4096)[None] // 3
    assert choose_tile([costs_of(one, 4096)])[0] == max(TILES)
    assert choose_tile([costs_of(tiny, 4096)])[0] == min(TILES)


@pytest.mark.parametrize("npix", [0, 1, BLOCK, NPIX])
def test_runs_of_one_pool_need_no_pixels(npix):
    found = block_runs(np.zeros((NGROUP, npix), int), BLOCK)
    assert plain_runs(npix, NGROUP, BLOCK) == found


def test_all_ranks_choose_one_tile():
    """From the costs of all; one rank has few samples, one has none."""
    samples = [draw_pools(np.random.default_rng(21), n) for n in (NPIX, 10, 0)]
    costs = [costs_of(s, BLOCK) for s in samples]
    tile, ntile = choose_tile(costs)
    assert ntile >= max(c[TILES.index(tile), 0] for c in costs)
    for sample in samples:
        assert lay_out(sample, BLOCK, tile, ntile).index.shape[1] == tile * ntile


def test_keys_number_each_combination_and_nothing_else():
    rng = np.random.default_rng(22)
    columns = [rng.integers(-1, n, (2, 50)) for n in (4, 1, 9)]
    used = rng.random((2, 50)) > 0.2
    keys = Keys([4, 1, 9])
    key = keys(columns, used)
    good = used & (np.array(columns) >= 0).all(0)
    np.testing.assert_array_equal(key >= 0, good)
    np.testing.assert_array_equal(
        keys.decode(key[good]), np.stack([c[good] for c in columns], 1)
    )


def test_too_many_combinations_are_refused():
    with pytest.raises(ValueError, match="coarser"):
        Keys([2**40, 2**30, 1])


def test_pools_are_numbered_alike_and_counted_over_all_ranks():
    rng = np.random.default_rng(23)
    keys = Keys([5, 3])
    key = keys(
        [rng.integers(0, 5, (1, 90)), rng.integers(0, 3, (1, 90))],
        np.ones((1, 90), bool),
    )
    key[0, :10] = -1
    whole = make_pools(keys, [counted(key)], alone)
    parts = [key[:, :30], key[:, 30:31], key[:, 31:]]
    sent = []
    for part in parts:
        make_pools(keys, [counted(part)], lambda x: sent.append(x) or [x])
    split = make_pools(keys, [counted(parts[0])], lambda _: sent)
    for name in ("keys", "patch", "noise_class", "count"):
        np.testing.assert_array_equal(getattr(split, name), getattr(whole, name))
    assert whole.count.sum() == 80
    number = whole.of(key)
    assert (number[0, :10] == -1).all()
    np.testing.assert_array_equal(whole.keys[number[0, 10:]], key[0, 10:])


def pieces_of(layouts, npool):
    """Pieces of every rank, from layouts of all ranks."""
    sent = []
    for x in layouts:
        Pieces(x.pool, x.empty, npool, 0, lambda y: sent.append(y) or [y])
    return [
        Pieces(x.pool, x.empty, npool, rank, lambda _: sent)
        for rank, x in enumerate(layouts)
    ]


@pytest.mark.parametrize("cuts", [[2], [1, 3], [0, 2, 2, 5]])
def test_sums_over_pools_keep_their_bits_however_blocks_are_shared_out(cuts):
    """Ranks without a block included: [0, 2, 2, 5] are five ranks, two of them idle."""
    rng = np.random.default_rng(24)
    sample = draw_pools(rng)
    whole = laid_out(sample, 4)
    rows = rng.normal(size=(*whole.pool.shape, 3)) * 10.0 ** rng.integers(-8, 8, 3)
    rows[whole.empty] = 0

    def part(a, b):
        return type(whole)(
            4, BLOCK, whole.index[a:b], whole.pool[a:b], whole.empty[a:b]
        )

    bounds = [0, *cuts, len(rows)]
    spans = list(zip(bounds[:-1], bounds[1:], strict=True))
    ranks = pieces_of([part(a, b) for a, b in spans], NPOOL)
    tables = [p.table(rows[a:b]) for p, (a, b) in zip(ranks, spans, strict=True)]
    total = tables[0]
    for table in tables[1:]:
        total = total + table  # what an allreduce does, in any order: x + 0 = x
    (one,) = pieces_of([whole], NPOOL)
    expected = one.pool_sum(one.table(rows))
    for rank in ranks:
        np.testing.assert_array_equal(rank.pool_sum(total), expected)
    plain = np.zeros((NPOOL, 3))
    np.add.at(plain, whole.pool[~whole.empty], rows[~whole.empty])
    scale = np.abs(rows).sum((0, 1))
    np.testing.assert_allclose(expected / scale, plain / scale, rtol=0, atol=1e-15)
