"""Atomic writing: a file gets its name only when it is complete."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """Yield a temporary path in `path`'s folder; on success rename it to `path`, on failure remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        yield partial
        # Some libraries create files that only their owner can read; apply the umask instead.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically, with sorted keys."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def require_file(path: Path, hint: str) -> Path:
    """Return `path`. Raises ValueError if it does not exist; `hint` is the advice that the message ends with."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; {hint}")
    return path
