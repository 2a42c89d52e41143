"""One file of a source: used where it lies, linked from a copy, or downloaded; verified in every case."""

import glob
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tseg.datasets.readers.json_stream import stream_list
from tseg.fetching.download import digest, download, verify
from tseg.fetching.pins import read_pins
from tseg.settings.catalogue import FilesSource, SourceFile


class Wanted(NamedTuple):
    """A file of a source, and all that is known of it before it is there."""

    name: str
    about: SourceFile
    path: Path
    """Where it is downloaded to, and where a person places it."""
    pin: str | None
    """Its sha256 when it first came; a published checksum has precedence."""
    copy: Path | None
    """One in a folder that the user named."""

    @property
    def checksum(self) -> str | None:
        """What it must have, if anybody knows."""
        return self.about.checksum or (self.pin and f"sha256:{self.pin}")


def file_path(raw_dir: Path, source: str, name: str) -> Path:
    """Where a file of a source is downloaded to, and where a person places it."""
    return raw_dir / "downloads" / source / name


def wanted_files(name: str, source: FilesSource, raw_dir: Path, from_dir: Path | None) -> list[Wanted]:
    """The files of the source `name`, their copies looked up below `from_dir`; raises ValueError for an unclear one."""
    pins = read_pins(raw_dir, name)
    return [
        Wanted(
            file,
            about,
            path=file_path(raw_dir, name, file),
            pin=pins.get(file),
            copy=_find_copy(from_dir, name, [file, *about.also_called]) if from_dir else None,
        )
        for file, about in source.files.items()
    ]


def obtain(wanted: Wanted) -> str:
    """Bring a file to its place; returns where it came from, in words. Raises ValueError if it cannot, or is wrong."""
    if wanted.path.exists():
        try:
            _verify(wanted, wanted.path)
        except ValueError as error:
            # Whether the file is wrong or the pin, only a person can tell.
            if wanted.pin and not wanted.about.checksum:
                raise
            print(f"{error}; it is to be replaced", flush=True)
        else:
            return "was there"
    if wanted.copy:
        _verify(wanted, wanted.copy)
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        wanted.path.unlink(missing_ok=True)
        link(wanted.copy, wanted.path)
        return f"linked to {wanted.copy}"
    size, check = wanted.about.size, partial(_check_records, wanted)
    return f"from {download(wanted.about.urls, wanted.path, size=size, checksum=wanted.checksum, check=check)}"


def by_hand(wanted: Wanted, page: str, pins: Path) -> str:
    """What a person can do about a file that could not be had; `pins` is where its pin would be."""
    called = f" (there called {' or '.join(wanted.about.also_called)})" if wanted.about.also_called else ""
    known = wanted.about.checksum or "none is published; it will be pinned"
    if wanted.pin and not wanted.about.checksum:
        known = f"{wanted.checksum}, pinned when it first came; if it has changed since, delete its line in {pins}"
    return (
        f"a person can fetch it from {page}{called}, place it at {wanted.path} (checksum: {known}), "
        "and run the same again"
    )


def sha256_of(wanted: Wanted) -> str:
    """The sha256 of a file that was obtained; not computed again where it has just been verified."""
    algorithm, _, value = (wanted.checksum or "").partition(":")
    return value if algorithm == "sha256" else digest(wanted.path, "sha256")


def link(file: Path, path: Path) -> None:
    """Make `path` the same file: by a hard link, or by a symbolic one where the file system has none."""
    original = file.resolve(strict=True)
    try:
        os.link(original, path)
    except OSError:
        path.symlink_to(original)


def _find_copy(from_dir: Path, source: str, names: list[str]) -> Path | None:
    for path in (from_dir / folder / name for folder in ("", source) for name in names):
        if path.is_file():
            return path
    deeper = {path.resolve() for name in names for path in from_dir.rglob(glob.escape(name)) if path.is_file()}
    if len(deeper) > 1:
        several = ", ".join(map(str, sorted(deeper)))
        raise ValueError(f"--from {from_dir} has several files called {names[0]} ({several}); name the folder of one")
    return next(iter(deeper), None)


def _verify(wanted: Wanted, path: Path) -> None:
    verify(path, size=wanted.about.size, checksum=wanted.checksum)
    _check_records(wanted, path)


def _check_records(wanted: Wanted, path: Path) -> None:
    """Raise ValueError for a JSON list with another number of entries than it must have."""
    expected = wanted.about.num_records
    if expected is None:
        return
    num_records = sum(1 for _ in stream_list(path))
    if num_records != expected:
        raise ValueError(f"{path} has {num_records:,} records, expected {expected:,}")
