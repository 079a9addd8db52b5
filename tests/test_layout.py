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


def counted(keys, columns, used):
    """Distinct keys, and how many samples have each."""
    found, at = keys.number(columns, used)
    return found, np.bincount(at[at >= 0], minlength=len(found))


def laid_out(sample, tile=None):
    costs = costs_of(sample, BLOCK)
    best, ntile = choose_tile([costs])
    if tile is not None:
        best, ntile = tile, max(int(costs[TILES.index(tile), 0]), 1)
    return lay_out(sample, BLOCK, best, ntile)


@pytest.mark.parametrize("tile", [None, 8, 64])
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


# Patches of each kind, and noise classes; the last two pass 64 bits, in 2 and 4 words.
RADIX = {
    "few": [4, 1, 9],
    "all of 62 bits": [2**31, 2**30, 2],
    "9 kinds x 400": [*[400] * 9, 3],
    "large": [2**40, 2**40, 7, 2**60, 2**60, 3],
}


def draw_columns(rng, radix, n):
    """Patches far apart, of which many samples share the same; -1 = not used."""
    columns = [np.append(rng.integers(0, r, 2), r - 1) for r in radix[:-1]]
    columns = [c[rng.integers(0, 3, (NGROUP, n))] for c in columns]
    columns[0] = np.where(rng.random((NGROUP, n)) < 0.1, -1, columns[0])
    return [*columns, rng.integers(0, radix[-1], (NGROUP, n))]


def by_hand(columns, used):
    """Distinct rows of the samples that are used, in order, and each sample's."""
    rows = [
        tuple(int(c.ravel()[i]) for c in columns) if used.ravel()[i] else (-1,)
        for i in range(used.size)
    ]
    known = sorted({row for row in rows if min(row) >= 0})
    place = [known.index(row) if min(row) >= 0 else -1 for row in rows]
    return known, np.reshape(place, used.shape)


@pytest.mark.parametrize("radix", RADIX)
def test_keys_number_the_combinations_in_their_order(radix):
    rng, keys = np.random.default_rng(22), Keys(RADIX[radix])
    columns, used = draw_columns(rng, RADIX[radix], 200), rng.random((2, 200)) < 0.9
    assert (keys.dtype == object) == (radix in ("9 kinds x 400", "large"))
    found, at = keys.number(columns, used)
    rows, place = by_hand(columns, used)
    assert [tuple(row) for row in keys.decode(found).tolist()] == rows
    assert sorted(found.tolist()) == found.tolist()
    np.testing.assert_array_equal(at, place)


@pytest.mark.parametrize("radix", RADIX)
@pytest.mark.parametrize("cuts", [[], [30], [30, 31, 31, 60]])
def test_pools_are_numbered_alike_and_counted_over_all_ranks(radix, cuts):
    """A rank without a pixel included; every rank has its pixels in two parts."""
    rng, keys = np.random.default_rng(23), Keys(RADIX[radix])
    columns, used = draw_columns(rng, RADIX[radix], 90), np.ones((NGROUP, 90), bool)
    used[:, :10] = False
    rows, place = by_hand(columns, used)
    ends = [0, *cuts, 90]
    found = [
        [
            counted(keys, [c[:, a:b] for c in columns], used[:, a:b])
            for a, b in ((first, (first + last) // 2), ((first + last) // 2, last))
        ]
        for first, last in zip(ends, ends[1:], strict=False)
    ]
    sent = []
    for parts in found:
        make_pools(keys, parts, lambda x: sent.append(x) or [x])
    for parts in found:
        pools = make_pools(keys, parts, lambda _: sent)
        assert pools.number == len(rows)
        got = np.column_stack([pools.patch, pools.noise_class])
        np.testing.assert_array_equal(got, np.array(rows))
        expected = np.bincount(place[place >= 0], minlength=len(rows))
        np.testing.assert_array_equal(pools.count, expected)
    own, at = keys.number(columns, used)
    np.testing.assert_array_equal(np.append(pools.of(own), -1)[at], place)


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
    whole = laid_out(sample, 8)
    rows = rng.normal(size=(*whole.pool.shape, 3)) * 10.0 ** rng.integers(-8, 8, 3)
    rows[whole.empty] = 0

    def part(a, b):
        return type(whole)(
            8, BLOCK, whole.index[a:b], whole.pool[a:b], whole.empty[a:b]
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
