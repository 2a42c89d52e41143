"""Atomic writing: a file gets its name only when it is complete. What this process reads and writes is remembered."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

READ: dict[Path, int] = {}
"""Files that this process has read, in order, and when each was last changed; see `tseg.lineage`."""
WRITTEN: dict[Path, None] = {}
STDIN: list[str] = []
"""What it read from standard input."""
WARNINGS: list[str] = []
"""What it warned of."""
_NUMBERS = count()
_UMASK = Lock()
_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())
_PARTIAL = re.compile(rf"\..*\.{_HOST}-(\d+)-\d+\.partial(\.\w+)?")
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_write(path: Path, *, remember: bool = True) -> Generator[Path]:
    """Yield a temporary path in `path`'s folder; on success rename it to `path`, on failure remove it.

    Several processes may write one path at the same time: the last one wins, and the file is always whole. The file
    gets a note of what made it if the process is to `remember` it. Raises ValueError that names `path` if the disk is
    full or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path.parent)
        partial = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{next(_NUMBERS)}.partial{path.suffix}")
        try:
            yield partial
            # Some libraries create files that only their owner can read; apply the umask instead.
            with _UMASK:  # it can only be read by setting it, for all threads
                umask = os.umask(0)
                os.umask(umask)
            partial.chmod(0o666 & ~umask)
            with partial.open("rb") as file:
                os.fsync(file.fileno())  # a machine that fails now leaves no empty file under the name
            partial.replace(path)
            if remember:
                WRITTEN[path] = None
        except Exception as error:
            # Libraries report a full disk in words of their own, so the disk is asked. The partial file still fills it.
            if getattr(error, "errno", None) in _FULL or shutil.disk_usage(path.parent).free < 2**12:
                raise ValueError(
                    f"{path} cannot be written: the disk is full; free space and run the same command again"
                ) from error
            raise
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from error


@cache
def _remove_stale(folder: Path) -> None:
    """Remove, once in every process, the temporary files of processes of this machine that were killed."""
    for file in folder.glob(".*.partial*"):
        found = _PARTIAL.fullmatch(file.name)
        if found and not _is_running(int(found[1])):
            file.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically, with sorted keys."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def warn(text: str) -> None:
    """Print `text`, and remember it as a warning."""
    print(text, flush=True)
    WARNINGS.append(text)


def require_file(path: Path, hint: str) -> Path:
    """Return `path`, to be read. Raises ValueError with the advice `hint` if it does not exist."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; {hint}")
    remember_read(path)
    return path


def remember_read(*paths: Path) -> None:
    """Note that this process reads those of `paths` that are files."""
    for path in paths:
        if path.is_file():
            READ[path] = path.stat().st_mtime_ns


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """The hash of a file as hexadecimal digits; `algorithm` is one of hashlib's."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def read_stdin() -> str:
    """All of standard input, once."""
    STDIN.append(sys.stdin.read())
    return STDIN[-1]
