"""Locks between processes, released by the system when their process dies, on network file systems too."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def exclusive(path: Path, what: str, *, wait: bool = False) -> Generator[None]:
    """Hold the lock file `path`, and remove it at the end.

    If another process holds it: with `wait`, print that it does `what` and wait until it ends; else raise ValueError.
    Raises ValueError if the file system does not support locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0, fallback_to_soft=False)  # a soft lock can outlive its process
    try:
        try:
            held = lock.acquire()
        except Timeout:
            other = f"another process {what} and holds {path}"
            if not wait:
                raise ValueError(f"{other}; wait until it finishes") from None
            print(f"{other}; waiting until it ends", flush=True)
            held = lock.acquire(timeout=-1, poll_interval=1)
    except OSError as error:
        raise ValueError(f"{path} cannot be locked: {error.strerror}") from error
    with held:
        try:
            yield
        finally:
            # Removed while still locked: filelock grants no lock on a removed file to a process that has it open.
            path.unlink(missing_ok=True)


_HELD: list[FileLock] = []


def hold_free(paths: Sequence[Path], number: int) -> list[int]:
    """Hold up to `number` of the lock files `paths` that no other process holds, until this process ends.

    Returns their positions.
    """
    positions: list[int] = []
    for position, path in enumerate(paths):
        if len(positions) < number:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, timeout=0, fallback_to_soft=False)
            try:
                lock.acquire()
            except (Timeout, OSError):
                continue
            _HELD.append(lock)
            positions.append(position)
    return positions
