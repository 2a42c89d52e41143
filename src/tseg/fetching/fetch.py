"""A source of the catalogue: its files obtained, unpacked, and put in place as one folder when it is whole."""

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tseg.fetching.obtain import Wanted, by_hand, link, obtain, sha256_of, wanted_files
from tseg.fetching.partial import partial_path
from tseg.fetching.pins import pins_path, read_pins, write_pins
from tseg.fetching.unpack import unpack
from tseg.settings.catalogue import FilesSource


def fetch(name: str, source: FilesSource, raw_dir: Path, *, from_dir: Path | None = None) -> dict[str, Any]:
    """Bring the files of the source `name` to `raw_dir`/downloads and make the folder `raw_dir`/<name> of them.

    A file that is there is used if it is right; else a copy below `from_dir` is linked; else it is downloaded. The
    folder appears, or is replaced, when it is whole. Returns its manifest: size and sha256 of the files, and how many
    the folder has; the same whatever way they came. Raises ValueError when a file is not the one of the catalogue or
    cannot be had, and how to help; when the disk is too small; when the files do not become what the catalogue says.
    """
    with _alone(raw_dir / "downloads" / f".{name}.lock"):
        files = wanted_files(name, source, raw_dir, from_dir)
        _check_disk(name, files, raw_dir)
        _obtain_all(name, source, files, raw_dir)
        sums = {file.name: sha256_of(file) for file in files}
        num_files = _build(name, source, files, raw_dir)
        _pin(name, {file.name: sums[file.name] for file in files if not file.checksum}, raw_dir)
    return {
        "source": name,
        "files": {file.name: {"size": file.path.stat().st_size, "sha256": sums[file.name]} for file in files},
        "counts": {"files": num_files},
    }


def manifest_path(raw_dir: Path, source: str) -> Path:
    """Where the manifest of a source is; while it is there, the folder beside it is whole."""
    return raw_dir / f"{source}.json"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the file `path` against other processes; raises ValueError when one has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process that fetches this source holds {path}; wait for its end") from None
        yield


def _check_disk(name: str, files: Sequence[Wanted], raw_dir: Path) -> None:
    """Raise ValueError unless there is room for what is missing and, at the least, as much again unpacked."""
    needed = 0
    for file in files:
        there = next((path for path in (file.path, file.copy) if path and path.exists()), None)
        size = there.stat().st_size if there else file.about.size or 0
        if not there:
            unfinished = partial_path(file.path)
            needed += max(0, size - (unfinished.stat().st_size if unfinished.exists() else 0))
        if file.about.max_unpacked:
            needed += size
    free = shutil.disk_usage(raw_dir).free
    if needed > free:
        raise ValueError(
            f"{name} needs {needed:,} bytes to be downloaded and unpacked, and {free:,} are free in {raw_dir}; "
            "make room, or name a folder on another disk"
        )


def _obtain_all(name: str, source: FilesSource, files: Sequence[Wanted], raw_dir: Path) -> None:
    """Bring all files to their places; raises ValueError that tells, line by line, of every one that failed."""
    failures = []
    for file in files:
        try:
            origin = obtain(file)
        except ValueError as error:
            failures.append(f"{error}; {by_hand(file, source.page, pins_path(raw_dir, name))}")
        else:
            print(f"{name}: {file.name}, {file.path.stat().st_size:,} bytes, {origin}", flush=True)
    if failures:
        raise ValueError("\n".join(failures))


def _pin(name: str, sums: dict[str, str], raw_dir: Path) -> None:
    """Pin files that came for the first time and have no published checksum."""
    if sums:
        write_pins(raw_dir, name, read_pins(raw_dir, name) | sums)
        print(f"{name}: no checksum is published of {', '.join(sums)}; pinned in {pins_path(raw_dir, name)}")


def _build(name: str, source: FilesSource, files: Sequence[Wanted], raw_dir: Path) -> int:
    """Unpack or link the files into a folder and put it in place when it is whole; returns its number of files."""
    unfinished = raw_dir / f".{name}.partial"
    _remove(unfinished)
    unfinished.mkdir()
    try:
        num_files = 0
        for file in files:
            if file.about.max_unpacked:
                num_files += unpack(file.path, unfinished, file.about.max_unpacked)
            else:
                link(file.path, unfinished / file.name)
                num_files += 1
        missing = [path for path in source.becomes if not (unfinished / path).exists()]
        if missing:
            raise ValueError(f"{name}: its files do not become {', '.join(missing)}; fix them, or the catalogue")
        _replace(raw_dir / name, unfinished, manifest_path(raw_dir, name))
    finally:
        _remove(unfinished)
    return num_files


def _replace(dir: Path, finished: Path, manifest: Path) -> None:
    """Put a folder in the place of `dir`, of which no part is ever seen under its name."""
    old = dir.with_name(f".{dir.name}.old")
    _remove(old)
    manifest.unlink(missing_ok=True)  # it speaks of the old folder
    if dir.exists():
        dir.rename(old)
    finished.rename(dir)
    _remove(old)


def _remove(dir: Path) -> None:
    """Remove a folder and all that is in it; of a link to one, the link alone."""
    if dir.is_symlink():
        dir.unlink()
    else:
        shutil.rmtree(dir, ignore_errors=True)
