"""A split read in shards of items, by this process or several, and the images of its records checked."""

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

SHARD = 256
"""Items of a shard."""
LATELY = 2**14
"""Images that a process remembers, so that it looks at each once wherever its records stand together."""


class Shard(NamedTuple):
    """What became of consecutive items: a table of `RECORDS`, and what was left out."""

    records: pa.Table
    skipped: list[Skipped]


class CheckedImage(NamedTuple):
    """What the check of one image found: its path, (height, width) in pixels, and its fault or ''."""

    path: str
    size: tuple[int, int]
    fault: str


def read_shards(split: OpenSplit, images: Sequence[Path], num_workers: int) -> Generator[Shard, None, None]:
    """Yield the shards in order, whatever the number of processes; a few of them are held at a time.

    A record is kept if its image, in the first of the folders `images` that has it, is whole and of its size; the
    image's path becomes its `file_name`. Raises ValueError when a process is killed.
    """
    # As bytes, also within one process: were they held as the thousands of lists that they are, Python's garbage
    # collector would go through them again and again.
    items = map(pickle.dumps, split.items)
    shards = iter(lambda: list(islice(items, SHARD)), [])
    reading = split.read, tuple(images), split.upright
    yield from map(ShardReader(*reading), shards) if num_workers == 1 else _share_out(shards, reading, num_workers)


def _share_out(shards: Iterator[list[bytes]], reading: tuple[Any, ...], num_workers: int) -> Iterator[Shard]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, _start_worker, reading) as pool:
        running: deque[Future[Shard]] = deque()
        try:
            for shard in shards:
                running.append(pool.submit(_read_shard, shard))
                if len(running) > num_workers + 2:  # so many wait for the oldest
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except BrokenProcessPool as error:
            killed = "a process that prepares records was killed, most likely for want of memory"
            raise ValueError(f"{killed}; prepare with fewer threads") from error
        finally:
            pool.shutdown(cancel_futures=True)


class ShardReader:
    """Reads shards of pickled items."""

    def __init__(self, read: Callable[[Any], Iterator[Record | Skipped]], images: Sequence[Path], upright: bool):
        self.read = read
        self.check = lru_cache(LATELY)(partial(check_image, images=images, upright=upright))

    def __call__(self, items: list[bytes]) -> Shard:
        """Read one shard, the image of each of its records checked."""
        records, skipped = [], []
        for record in (record for item in items for record in self.read(pickle.loads(item))):
            checked = record if isinstance(record, Skipped) else with_image(record, self.check(record["file_name"]))
            (skipped if isinstance(checked, Skipped) else records).append(checked)
        return Shard(pa.Table.from_pylist(records, schema=RECORDS), skipped)


_WORKER: dict[str, ShardReader] = {}


def _start_worker(*reading: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one stops the work
    Thread(target=_end_with_parent, daemon=True).start()
    _WORKER["reader"] = ShardReader(*reading)


def _end_with_parent() -> None:
    """However the parent ends, were it by kill -9: a pool's processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "it started this process"
    parent.join()
    os._exit(1)


def _read_shard(items: list[bytes]) -> Shard:
    return _WORKER["reader"](items)


def with_image(record: Record, image: CheckedImage) -> Record | Skipped:
    """The record with its image's path as `file_name`, its size if it has none; or why it is left out."""
    path, size, fault = image
    wanted = record["height"], record["width"]
    if not fault and wanted not in (size, (None, None)):
        fault = f"its annotation is for an image of {wanted[1]} x {wanted[0]} pixels, this one has "
        fault += f"{size[1]} x {size[0]}; fetch the original image"
    if fault:
        return Skipped(Path(path), record["record_id"], fault)
    return record | {"file_name": path, "height": size[0], "width": size[1]}


def check_image(name: str, images: Sequence[Path], upright: bool) -> CheckedImage:
    """Find the image `name` in the first of the folders that has it and decode it to its end.

    It has the size that it is stored with: annotations do not know EXIF's orientation, unless they are of images
    that are `upright`, in which an image that a viewer turns is at fault.
    """
    try:
        path = next(images_dir / name for images_dir in images if (images_dir / name).is_file())
    except StopIteration:
        folders = ", ".join(map(str, images))
        return CheckedImage(name, (0, 0), f"the image is in none of {folders}; fetch it into one of them")
    except OSError as error:  # a name that is too long
        return CheckedImage(name, (0, 0), f"the image cannot be looked for ({error}); fix its name")
    try:
        with usable_image(path) as image:
            width, height = image.size
            if upright:
                check_orientation(image)
            image.draft("L", (1, 1))  # a JPEG is read to its end, but only its coarsest version is made
            image.load()
    except ImageError as error:
        return CheckedImage(str(path), (0, 0), str(error))
    return CheckedImage(str(path), (height, width), "")
