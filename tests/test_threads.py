"""Results come in order, few items are taken ahead, and an error in a thread is the caller's."""

import threading
import time
from collections.abc import Iterator

import pytest

from tseg.threads import in_order


@pytest.mark.parametrize("num_threads", [1, 3])
def test_results_have_the_order_of_the_items(num_threads: int) -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number**2

    assert list(in_order(slow_first, range(20), num_threads)) == [number**2 for number in range(20)]


@pytest.mark.parametrize(("num_threads", "ahead", "most"), [(1, 5, 1), (2, None, 3), (2, 8, 9)])
def test_few_items_are_taken_before_they_are_asked_for(num_threads: int, ahead: int | None, most: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    results = in_order(lambda number: number, items(), num_threads, ahead)
    for asked in range(1, 50):
        next(results)
        assert taken <= asked - 1 + most
    results.close()
    assert taken < 100


def test_work_is_done_in_other_threads_side_by_side() -> None:
    both = threading.Barrier(2, timeout=10)
    assert list(in_order(lambda _: both.wait() >= 0, range(4), 2)) == [True] * 4


@pytest.mark.parametrize("num_threads", [1, 2])
def test_an_error_is_raised_in_its_turn_and_nothing_more_is_taken(num_threads: int) -> None:
    def fails(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    taken: list[int] = []
    results = in_order(fails, (taken.append(number) or number for number in range(1000)), num_threads)
    found: list[int] = []
    with pytest.raises(ValueError, match="three"):
        for result in results:
            found.append(result)
    assert found == [0, 1, 2]
    assert len(taken) < 10
