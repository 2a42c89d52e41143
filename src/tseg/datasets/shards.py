"""Read a split in shards, in one or more processes, and check the images of its records."""

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pyarrow as pa

from tseg.datasets.check import check_image, with_image
from tseg.datasets.readers.annotations import OpenSplit, Record, Skipped
from tseg.records import RECORDS

SHARD_SIZE = 256
"""Items per shard."""
CACHED_IMAGES = 2**14
"""Number of image checks that a process caches, as records of one image are close together."""


class Shard(NamedTuple):
    """The result of reading consecutive items: a table of `RECORDS`, and the skipped records."""

    records: pa.Table
    skipped: list[Skipped]


def read_shards(split: OpenSplit, images: Sequence[Path], num_workers: int) -> Generator[Shard, None, None]:
    """Yield the shards in order, whatever the number of processes; only a few are in memory at a time.

    Each image is taken from the first folder of `images` that has it. A record is kept if its image can be decoded and
    has the record's size, as stored or as turned by EXIF (see `check.with_image`). Raises ValueError if a process is
    killed.
    """
    # Items are pickled even for a single process: otherwise the garbage collector would scan their thousands of nested
    # lists again and again.
    items = map(pickle.dumps, split.items)
    shards = iter(lambda: list(islice(items, SHARD_SIZE)), [])
    arguments = split.read, tuple(images), split.upright
    yield from map(ShardReader(*arguments), shards) if num_workers == 1 else _distribute(shards, arguments, num_workers)


def _distribute(shards: Iterator[list[bytes]], arguments: tuple[Any, ...], num_workers: int) -> Iterator[Shard]:
    """Read the shards in `num_workers` processes, each with a `ShardReader(*arguments)`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, _start_worker, arguments) as pool:
        running: deque[Future[Shard]] = deque()
        try:
            for shard in shards:
                running.append(pool.submit(_read_shard, shard))
                if len(running) > num_workers + 2:  # enough to keep all workers busy
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool as error:
            raise ValueError("a worker process was killed, probably for lack of memory; use fewer threads") from error
        finally:
            pool.shutdown(cancel_futures=True)


class ShardReader:
    """Reads shards of pickled items."""

    def __init__(self, read: Callable[[Any], Iterator[Record | Skipped]], images: Sequence[Path], upright: bool):
        self.read, self.upright = read, upright
        self.check = lru_cache(CACHED_IMAGES)(partial(check_image, images=images))

    def __call__(self, items: list[bytes]) -> Shard:
        """Read one shard and check the image of each record."""
        records, skipped = [], []
        for record in (record for item in items for record in self.read(pickle.loads(item))):
            checked = record
            if not isinstance(record, Skipped):
                checked = with_image(record, self.check(record["file_name"]), self.upright)
            (skipped if isinstance(checked, Skipped) else records).append(checked)
        return Shard(pa.Table.from_pylist(records, schema=RECORDS), skipped)


_WORKER: dict[str, ShardReader] = {}


def _start_worker(*arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    Thread(target=_end_with_parent, daemon=True).start()
    _WORKER["reader"] = ShardReader(*arguments)


def _end_with_parent() -> None:
    """Exit when the parent process ends, even by kill -9; otherwise the workers would wait forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "it started this process"
    parent.join()
    os._exit(1)


def _read_shard(items: list[bytes]) -> Shard:
    return _WORKER["reader"](items)
