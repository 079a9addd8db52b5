"""Arrays on whole pages: whole, apart from one another, and used again."""

import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distsep.data import chunk_files, pages
from distsep.parallel.mesh import device_mesh, spread_maps


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1,), (5, 7), (1025, 513)])
@pytest.mark.parametrize("dtype", ["<f8", np.float32, np.uint64])
def test_an_array_of_any_shape(shape, dtype):
    x = pages.empty(shape, dtype)
    assert x.shape == shape
    assert x.dtype == np.dtype(dtype)
    assert x.ctypes.data % 4096 == 0
    assert x.flags.writeable
    assert x.flags.c_contiguous


def test_memory_is_not_handed_out_while_a_view_looks_at_it():
    first = pages.empty((1000,), float)
    first[:] = 1.0
    view = first.reshape(10, 100)[3:, ::2]
    del first
    others = [pages.empty((1000,), float) for _ in range(20)]
    for x in others:
        x[:] = 2.0
    assert (view == 1.0).all()


def test_memory_is_used_again():
    where = [pages.empty((4321,), float).ctypes.data for _ in range(3)]
    assert len(set(where)) == 1


def test_a_file_written_row_by_row_holds_the_rows_one_after_another(
    tmp_path, monkeypatch
):
    rng = np.random.default_rng(4)
    whole = rng.normal(size=(1100, 24))
    rows = [row[4:20] for row in whole]
    chunk_files.write_rows(tmp_path / "a", rows)
    # A system that takes a part of what it is given, as on a signal or a full pipe.
    monkeypatch.setattr(
        chunk_files.os, "writev", lambda fd, some: os.write(fd, bytes(some[0])[:100])
    )
    chunk_files.write_rows(tmp_path / "b", rows)
    for name in "ab":
        found = np.fromfile(tmp_path / name)
        np.testing.assert_array_equal(found, whole[:, 4:20].ravel())


def test_a_file_in_memory_is_not_copied_and_never_changed(tmp_path):
    file, numbers = tmp_path / "chunk", np.arange(70_000.0)
    numbers.tofile(file)
    held = pages.in_memory(file, "<f8")
    if held is None:
        pytest.skip("this system does not say which files it holds in memory")
    np.testing.assert_array_equal(held, numbers)
    held[5] = -1.0
    np.testing.assert_array_equal(np.fromfile(file), numbers)
    # A store that is replaced while someone looks at the old one.
    np.zeros(70_000).tofile(tmp_path / "new")
    (tmp_path / "new").rename(file)
    assert (held[4], held[5], held[-1]) == (4.0, -1.0, 69_999.0)


@pytest.mark.parametrize("lost", ["the system cannot say", "one page is on the disk"])
def test_a_file_that_is_not_in_memory_is_read(tmp_path, monkeypatch, lost):
    file = tmp_path / "chunk"
    np.arange(70_000.0).tofile(file)

    class System:
        def __init__(self):
            self.asked = 0

        def mincore(self, _address, _length, held):
            self.asked += 1
            held._obj.value = self.asked != 7
            return -1 if lost == "the system cannot say" else 0

    system = System()
    monkeypatch.setattr(pages, "_libc", lambda: system)
    assert pages.in_memory(file, "<f8") is None
    (tmp_path / "empty").touch()
    assert pages.in_memory(tmp_path / "empty", "<f8") is None


def test_threads_that_ask_at_once_get_memory_of_their_own():
    """Each writes its own number into all it was given, again and again."""

    def work(k):
        for _ in range(300):
            x = pages.empty((7, 1024), np.int64)
            x[:] = k
            time.sleep(0)
            if not (x == k).all():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize(
    ("address", "nbytes", "whole"),
    [
        (8192, 8192, (8192, 8192)),
        (8193, 8192, (12288, 4096)),
        (8192, 8191, (8192, 4096)),
        (8193, 100, (12288, 0)),
    ],
)
def test_only_pages_that_are_wholly_ours_are_asked_for(address, nbytes, whole):
    assert mmap.PAGESIZE == 4096
    assert pages._whole_pages(address, nbytes) == whole


@pytest.mark.parametrize("nbytes", [0, 100, 2**23 + 5])
def test_large_pages_change_nothing(nbytes):
    x = np.arange(nbytes, dtype=np.uint8)
    before = x.copy()
    pages.enlarge(x.ctypes.data, x.nbytes)
    np.testing.assert_array_equal(x, before)


def test_jax_takes_them_over_without_a_copy():
    """Else every part of a streamed pass would be copied."""
    x = pages.empty((6, 4096), np.float32)
    x[:] = 3.0
    taken = spread_maps(device_mesh(1), x)
    assert taken.addressable_shards[0].data.unsafe_buffer_pointer() == x.ctypes.data
    np.testing.assert_array_equal(taken, x)
