"""Files that are whole or absent: everything is written beside its place and renamed into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; on success rename it to `path`, on failure remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        yield partial
        # Some libraries write for the owner's eyes only; a colleague shall read it if the umask lets him.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def require_file(path: Path, hint: str) -> Path:
    """`path` itself, or a ValueError that names it and says how to `hint` its absence."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; {hint}")
    return path
