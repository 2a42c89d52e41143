"""The incomplete file of a download: a hidden, locked file beside the target, and a note of its origin."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from tseg.files import atomic_write
from tseg.locks import exclusive


class Origin(NamedTuple):
    """Where the first bytes came from: the URL, its strong ETag or modification date, and the full length in bytes."""

    url: str
    validator: str | None
    size: int | None


class Partial:
    """The bytes of `target` that this and earlier processes have received, in the open file `file`."""

    def __init__(self, target: Path, file: FileIO) -> None:
        self.target, self.path, self.file = target, partial_path(target), file
        self.note = self.path.with_name(f"{self.path.name}.json")
        self.num_received = self.num_discards = 0  # bytes received by this process; times that bytes were discarded
        self.continued = True
        try:
            self.origin = Origin(**json.loads(self.note.read_bytes()))
        except (OSError, ValueError, TypeError):  # the origin of the bytes is unknown
            self.origin = Origin("", None, None)
            self.discard()

    @property
    def length(self) -> int:
        """Bytes received so far."""
        return os.fstat(self.file.fileno()).st_size

    def start(self, origin: Origin) -> None:
        """Discard all bytes and note that the next ones come from `origin`."""
        self.discard()
        self.origin = origin
        with self._disk_errors(), atomic_write(self.note) as path:
            path.write_text(json.dumps(origin._asdict()))

    def discard(self) -> None:
        """Discard all bytes."""
        self.num_discards += self.length > 0
        self.continued = False
        self.file.truncate(0)

    def append(self, piece: bytes) -> None:
        """Append `piece`. Raises ValueError if the disk is full."""
        with self._disk_errors():
            while piece:
                num_written = self.file.write(piece)
                self.num_received += num_written
                piece = piece[num_written:]

    def finish(self) -> None:
        """Flush the file to the disk and rename it to `target`."""
        with self._disk_errors():
            os.fsync(self.file.fileno())
        self.path.replace(self.target)
        self.note.unlink(missing_ok=True)

    @contextmanager
    def _disk_errors(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(
                f"{self.path} could not be written ({error.strerror}); its {self.length:,} bytes are kept: "
                "make room and run the command again to continue"
            ) from error


def partial_path(target: Path) -> Path:
    """Path of the incomplete file of `target`."""
    return target.with_name(f".{target.name}.download")


@contextmanager
def open_partial(target: Path) -> Generator[Partial]:
    """Open the incomplete file of `target` under a lock. After an error, remove the file if it is empty.

    Raises ValueError if another process holds the lock.
    """
    lock_path = target.with_name(f".{target.name}.lock")
    with exclusive(lock_path, "is fetching this"), FileIO(partial_path(target), "ab") as file:
        partial = Partial(target, file)
        try:
            yield partial
        except BaseException:
            if partial.length == 0:
                partial.path.unlink(missing_ok=True)
                partial.note.unlink(missing_ok=True)
            raise
