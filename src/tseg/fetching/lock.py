"""Locks between processes."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Hold the lock file `path`, and remove it at the end; if the process dies, the system releases the lock.

    Raises ValueError if another process holds the lock, or if the file system does not support locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path, timeout=0, fallback_to_soft=False).acquire()  # a soft lock can outlive its process
    except Timeout:
        raise ValueError(f"another process is fetching this and holds {path}; wait until it finishes") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be locked: {error.strerror}") from error
    with held:
        try:
            yield
        finally:
            # Removed while still locked: filelock grants no lock on a removed file to a process that has it open.
            path.unlink(missing_ok=True)
