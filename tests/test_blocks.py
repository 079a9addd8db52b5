"""The block grid: pure arithmetic that tiles the pixels for any number of ranks."""

import pytest

from distsep.data.blocks import Grid

SIZES = [1, 5, 4096, 4097, 20_000, 49_152, 300_000, 12 * 1024**2, 12 * 8192**2]


@pytest.mark.parametrize("npix", [1, 2, 7, 40])
def test_ranks_tile_the_pixels_for_every_number_of_ranks(npix):
    grid = Grid(npix, block=2, chunk=4)
    for size in range(1, npix + 3):
        bounds = [grid.rank_pixels(rank, size) for rank in range(size)]
        assert [start for start, _ in bounds[1:]] == [stop for _, stop in bounds[:-1]]
        assert (bounds[0][0], bounds[-1][1]) == (0, npix)
        assert all(start == stop or start % grid.chunk == 0 for start, stop in bounds)


@pytest.mark.parametrize("npix", SIZES)
def test_blocks_of_the_production_size_in_few_chunks(npix):
    grid = Grid.of(npix)
    assert grid.block >= 4096
    assert grid.chunk % grid.block == 0
    assert grid.nblocks <= 4096
    assert (grid.nblocks - 1) * grid.block < npix <= grid.nblocks * grid.block


@pytest.mark.parametrize("npix", SIZES)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 64])
def test_chunks_are_shared_out_evenly(npix, size):
    grid = Grid.of(npix)
    counts = [b - a for a, b in (grid.rank_chunks(r, size) for r in range(size))]
    assert sum(counts) == grid.nchunks
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("npix", [1, 4096, 70_001])
def test_chunks_tile_the_pixels(npix):
    grid = Grid.of(npix)
    ranges = [grid.chunk_range(c) for c in range(grid.nchunks)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == npix
    assert all(a[1] == b[0] for a, b in zip(ranges[:-1], ranges[1:], strict=True))


@pytest.mark.parametrize("wrong", [(0, 1, 1), (5, 0, 4), (5, 4, 6)])
def test_a_grid_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="whole number of blocks"):
        Grid(*wrong)
