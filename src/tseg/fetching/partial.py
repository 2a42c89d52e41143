"""The bytes of a file that is not whole yet: hidden beside it, locked, with a note of where they come from."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from tseg.files import atomic_write


class Origin(NamedTuple):
    """What the first bytes came from: an address, its strong ETag or date of change, its length in bytes."""

    url: str
    validator: str | None
    size: int | None


class Partial:
    """The bytes of `target` that are there, those of an earlier process too; `file` is open and locked."""

    def __init__(self, target: Path, file: FileIO) -> None:
        self.target, self.path, self.file = target, partial_path(target), file
        self.note = self.path.with_name(f"{self.path.name}.json")
        self.num_received = self.num_discarded = 0  # bytes that came, times that bytes were thrown away
        self.continued = True
        try:
            self.origin = Origin(**json.loads(self.note.read_bytes()))
        except (OSError, ValueError, TypeError):  # nobody knows whose bytes these are
            self.origin = Origin("", None, None)
            self.discard()

    @property
    def length(self) -> int:
        """In bytes."""
        return os.fstat(self.file.fileno()).st_size

    def start(self, origin: Origin) -> None:
        """Throw away what is there and make ready for the first byte from `origin`."""
        self.discard()
        self.origin = origin
        with self._writing(), atomic_write(self.note) as path:
            path.write_text(json.dumps(origin._asdict()))

    def discard(self) -> None:
        """Throw away what is there."""
        self.num_discarded += self.length > 0
        self.continued = False
        self.file.truncate(0)

    def append(self, piece: bytes) -> None:
        """Write at the end; raises ValueError when the disk is full."""
        with self._writing():
            while piece:
                num_written = self.file.write(piece)
                self.num_received += num_written
                piece = piece[num_written:]

    def place(self) -> None:
        """Give the file its name, once its bytes are on the disk."""
        with self._writing():
            os.fsync(self.file.fileno())
        self.path.replace(self.target)
        self.note.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(
                f"{self.path} could not be written ({error.strerror}); its {self.length:,} bytes are kept: "
                "make room and run the same again to continue"
            ) from error


def partial_path(target: Path) -> Path:
    """Where the bytes of `target` are while it is not whole."""
    return target.with_name(f".{target.name}.download")


@contextmanager
def open_partial(target: Path) -> Iterator[Partial]:
    """The partial file of `target`, for this process alone; after an error that came before its first byte, none.

    Raises ValueError when another process has it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _open_locked(partial_path(target)) as file:
        partial = Partial(target, file)
        try:
            yield partial
        except BaseException:
            if partial.length == 0:
                partial.path.unlink(missing_ok=True)
                partial.note.unlink(missing_ok=True)
            raise


def _open_locked(path: Path) -> FileIO:
    while True:
        file = FileIO(path, "ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            held = isinstance(error, BlockingIOError)
            reason = "another process is downloading it; let that one finish" if held else error.strerror
            raise ValueError(f"{path} cannot be locked: {reason}") from error
        # Its last owner may have renamed or removed it between our opening and our locking it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
