"""Tables that are made item by item, and kept in parts on the way: a command that was killed goes on after them."""

import hashlib
import re
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from tseg.files import atomic_write, hash_file
from tseg.progress import progress
from tseg.source import digest

T = TypeVar("T")

SECONDS = 60
"""A killed command loses the work of about so many seconds, and of one batch."""
ROWS_AT_ONCE = 1000
"""Rows that are held as Python objects."""
BYTES_HELD = 2**24
"""A part is written earlier if its rows have more bytes. A command with fewer, of less than a minute, writes none."""
_NAME = re.compile(r"([0-9a-f]{16})-(\d+)-(\d+)-([0-9a-f]{16})\.parquet")
"""Fingerprint, first item, item after the last one, hash of the content."""


class Parts:
    """The folder `output.with_suffix(".parts")`: a file for each sequence of items that is done."""

    def __init__(self, output: Path, command: str, files: Sequence[Path], options: Mapping[str, Any]):
        """Of the function `command`, which makes `output` of `files` with `options`; others have other parts."""
        self.folder = output.with_suffix(".parts")
        self.made_by = command, files, options

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the code, the files and the options; not of the images that the files name."""
        command, files, options = self.made_by
        described = f"{digest(command)} {sorted(options.items())} {' '.join(map(hash_file, files))}"
        return hashlib.sha256(described.encode()).hexdigest()[:16]

    def find(self) -> list[tuple[Path, int, int]]:
        """The parts of consecutive items from the first one on: file, first item, item after the last one.

        Removes parts of other files or options, and damaged ones.
        """
        starts: dict[int, tuple[Path, int]] = {}
        for path, (fingerprint, start, stop, content) in sorted(self._files()):
            if fingerprint != self.fingerprint:
                path.unlink(missing_ok=True)
            elif _hash(path.read_bytes()) != content:
                warnings.warn(f"{path} is damaged, and made again", stacklevel=2)
                path.unlink(missing_ok=True)
            else:
                starts[int(start)] = path, int(stop)
        found: list[tuple[Path, int, int]] = []
        start = 0
        while start in starts:
            path, stop = starts[start]
            found.append((path, start, stop))
            start = stop
        return found

    def write(self, start: int, stop: int, rows: pa.Table) -> None:
        """Keep the rows of the items `start` to `stop` - 1."""
        buffer = pa.BufferOutputStream()
        pq.write_table(rows, buffer)
        data = buffer.getvalue().to_pybytes()
        with atomic_write(self.folder / f"{self.fingerprint}-{start:08}-{stop:08}-{_hash(data)}.parquet") as partial:
            partial.write_bytes(data)

    def remove(self) -> None:
        """Remove the folder, unless it holds files of others."""
        for path in [*(path for path, _ in self._files()), *self.folder.glob(".*.partial.parquet")]:
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _files(self) -> list[tuple[Path, tuple[str, ...]]]:
        """The parts of any fingerprint, and what their names say."""
        named = ((path, _NAME.fullmatch(path.name)) for path in self.folder.glob("*.parquet"))
        return [(path, found.groups()) for path, found in named if found]


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@contextmanager
def in_parts(output: Path, command: str, *files: Path | None, **options: Any) -> Generator[Parts]:
    """Yield the parts of `output`, and remove them once it is made. For the arguments see `Parts`."""
    parts = Parts(output, command, [file for file in files if file], options)
    yield parts
    parts.remove()


def tables_of(
    items: Iterable[T],
    rows_of: Callable[[Iterator[T]], Iterable[Iterable[Mapping[str, Any]]]],
    schema: pa.Schema,
    *,
    what: str,
    unit: str,
    total: int,
    parts: Parts | None = None,
    batch_size: int = 1,
) -> Iterator[pa.Table]:
    """The rows of all `items`, in order, as tables of `schema`, under a progress bar: `total` of a `unit` to `what`.

    `rows_of` maps the items, in order, to the rows of each; it may take `batch_size` of them at once, always the same
    ones. With `parts`, those of an earlier call are taken, and rows are kept every minute. About `BYTES_HELD` of rows,
    and those of one batch, are in memory.
    """
    kept = parts.find() if parts else []
    done = kept[-1][2] if kept else 0
    for path, _, _ in kept:
        yield pq.ParquetFile(path).read().cast(schema)
    waiting = islice(items, done, None)
    rows: list[Mapping[str, Any]] = []
    tables: list[pa.Table] = []
    saved = time.monotonic()
    with progress((), what, unit, total, initial=done) as bar:
        for number, of_item in enumerate(rows_of(waiting), done + 1):
            rows += of_item
            bar.update()
            if len(rows) >= ROWS_AT_ONCE:
                tables.append(pa.Table.from_pylist(rows, schema))
                rows = []
            is_due = time.monotonic() - saved >= SECONDS or sum(table.nbytes for table in tables) >= BYTES_HELD
            if is_due and number % batch_size == 0:
                table = pa.concat_tables([*tables, pa.Table.from_pylist(rows, schema)])
                if parts:
                    parts.write(done, number, table)
                yield table
                done, rows, tables, saved = number, [], [], time.monotonic()
    yield pa.concat_tables([*tables, pa.Table.from_pylist(rows, schema)])
