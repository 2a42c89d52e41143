"""Locks between processes."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Hold the lock file `path` and remove it on release; the system releases the lock of a process that dies.

    Raises ValueError if another process holds it, or if the file system has no locks.
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
            # While held: filelock refuses the lock of a removed file to a process that has opened it already.
            path.unlink(missing_ok=True)
