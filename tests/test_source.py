"""Parts that are made ahead: in order, few at once, and no error is lost."""

import threading
import time

import pytest

from distsep.data.together import ahead


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("number", [0, 1, 2, 9])
def test_items_come_in_order_and_few_are_made_ahead(workers, number):
    lock, made, taken, most = threading.Lock(), [], 0, 0

    def make(item):
        nonlocal most
        time.sleep(0.002 * (item % 3))  # the later may be ready first
        with lock:
            made.append(item)
            most = max(most, len(made) - taken)
        return item**2

    found = []
    for value in ahead(make, range(number), workers):
        found.append(value)
        with lock:
            taken += 1
    assert found == [i**2 for i in range(number)]
    assert sorted(made) == list(range(number))
    assert most <= workers + 2


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_where_its_item_would(workers):
    def make(item):
        if item == 3:
            raise OSError("a chunk is missing")
        return item

    found = []
    with pytest.raises(OSError, match="a chunk is missing"):
        found.extend(ahead(make, range(6), workers))
    assert found == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_who_stops_asking_does_not_start_the_rest(workers):
    made = []
    coming = ahead(made.append, range(100), workers)
    next(coming)
    coming.close()
    assert len(made) <= workers + 2
