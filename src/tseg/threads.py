"""Work in threads whose results come in order. Images are decoded, and PyTorch computes, without Python's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], items: Iterable[T], num_threads: int, ahead: int | None = None) -> Iterator[R]:
    """`map` in `num_threads` threads, at most `ahead` items (default: one per thread) beyond the one asked for.

    One thread is this one: nothing is computed ahead.
    """
    if num_threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        running: deque[Future[R]] = deque()
        try:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) > (ahead or num_threads):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
