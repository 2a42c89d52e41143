"""Read a split in shards of items, in one or several processes, and check the images of its records."""

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

from tseg.datasets.readers.annotations import OpenSplit, Record, Skipped
from tseg.images import ImageError, check_orientation, usable_image
from tseg.records import RECORDS

SHARD_SIZE = 256
"""Items per shard."""
CACHED_IMAGES = 2**14
"""Checked images that a process remembers: it checks an image once if its records stand together."""


class Shard(NamedTuple):
    """The outcome of consecutive items: a table of `RECORDS`, and what was skipped."""

    records: pa.Table
    skipped: list[Skipped]


class CheckedImage(NamedTuple):
    """A checked image: its path, its (height, width) in pixels, and its fault, empty if there is none."""

    path: str
    size: tuple[int, int]
    fault: str


def read_shards(split: OpenSplit, images: Sequence[Path], num_workers: int) -> Generator[Shard, None, None]:
    """Yield the shards in order, for any number of processes; a few are in memory at a time.

    Each image is taken from the first of the folders `images` that has it. A record is kept if its image can be decoded
    and has the record's size; its `file_name` becomes the image's path. Raises ValueError if a process is killed.
    """
    # Items are pickled even for a single process: as thousands of nested lists, they would make Python's garbage
    # collector scan them again and again.
    items = map(pickle.dumps, split.items)
    shards = iter(lambda: list(islice(items, SHARD_SIZE)), [])
    reader = split.read, tuple(images), split.upright
    yield from map(ShardReader(*reader), shards) if num_workers == 1 else _distribute(shards, reader, num_workers)


def _distribute(shards: Iterator[list[bytes]], reader: tuple[Any, ...], num_workers: int) -> Iterator[Shard]:
    """Read the shards in `num_workers` processes, each with a `ShardReader` of the arguments `reader`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, _start_worker, reader) as pool:
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
        self.read = read
        self.check = lru_cache(CACHED_IMAGES)(partial(check_image, images=images, upright=upright))

    def __call__(self, items: list[bytes]) -> Shard:
        """Read one shard and check the image of each record."""
        records, skipped = [], []
        for record in (record for item in items for record in self.read(pickle.loads(item))):
            checked = record if isinstance(record, Skipped) else with_image(record, self.check(record["file_name"]))
            (skipped if isinstance(checked, Skipped) else records).append(checked)
        return Shard(pa.Table.from_pylist(records, schema=RECORDS), skipped)


_WORKER: dict[str, ShardReader] = {}


def _start_worker(*reader: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process stops the work
    Thread(target=_end_with_parent, daemon=True).start()
    _WORKER["reader"] = ShardReader(*reader)


def _end_with_parent() -> None:
    """Exit when the parent ends, even by kill -9; otherwise a pool's processes wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "it started this process"
    parent.join()
    os._exit(1)


def _read_shard(items: list[bytes]) -> Shard:
    return _WORKER["reader"](items)


def with_image(record: Record, image: CheckedImage) -> Record | Skipped:
    """The record with the path of its image as `file_name` and with the image's size; or why it is skipped."""
    path, size, fault = image
    height, width = record["height"], record["width"]
    if not fault and (height, width) not in (size, (None, None)):
        fault = f"its annotation is for an image of {width} x {height} pixels, but the image has "
        fault += f"{size[1]} x {size[0]}; fetch the original image"
    if fault:
        return Skipped(Path(path), record["record_id"], fault)
    return record | {"file_name": path, "height": size[0], "width": size[1]}


def check_image(name: str, images: Sequence[Path], upright: bool) -> CheckedImage:
    """Find the image `name` in the first of the folders `images` that has it, and decode it completely.

    The size is that of the stored pixels, as official annotations ignore the EXIF orientation. With `upright`, an image
    with an EXIF rotation flag is a fault.
    """
    try:
        path = next(images_dir / name for images_dir in images if (images_dir / name).is_file())
    except StopIteration:
        folders = ", ".join(map(str, images))
        return CheckedImage(name, (0, 0), f"the image is in none of {folders}; fetch it into one of them")
    except OSError as error:  # a name that is too long
        return CheckedImage(name, (0, 0), f"the file system refuses the image's name ({error}); correct the name")
    try:
        with usable_image(path) as image:
            width, height = image.size
            if upright:
                check_orientation(image)
            image.draft("L", (1, 1))  # for a JPEG: all data is read, but only a thumbnail is decoded
            image.load()
    except ImageError as error:
        return CheckedImage(str(path), (0, 0), str(error))
    return CheckedImage(str(path), (height, width), "")
