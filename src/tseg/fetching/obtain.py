"""Obtain one file of a source: use it if present, else link a copy or download it; always verify it."""

import glob
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tseg.datasets.readers.json_stream import stream_list
from tseg.fetching.contents import refuse_other
from tseg.fetching.download import check_download, download
from tseg.fetching.pins import read_pins
from tseg.files import hash_file
from tseg.settings.catalogue import FilesSource, SourceFile


class Wanted(NamedTuple):
    """A file to obtain, and what is known about it in advance."""

    name: str
    entry: SourceFile
    path: Path
    """Where the file is downloaded to, or placed by the user."""
    pin: str | None
    """The sha256 of its first download; used only without a published checksum."""
    copy: Path | None
    """A copy below the folder given with --from."""

    @property
    def checksum(self) -> str | None:
        """The published checksum, else the pinned one, else None."""
        return self.entry.checksum or (self.pin and f"sha256:{self.pin}")


def file_path(raw_dir: Path, source: str, name: str) -> Path:
    """Path where a file of a source is downloaded to, or placed by the user."""
    return raw_dir / "downloads" / source / name


def wanted_files(name: str, source: FilesSource, raw_dir: Path, from_dir: Path | None) -> list[Wanted]:
    """The files of the source `name`, with copies below `from_dir`. Raises ValueError if a copy is ambiguous."""
    pins = read_pins(raw_dir, name)
    return [
        Wanted(
            file,
            entry,
            path=file_path(raw_dir, name, file),
            pin=pins.get(file),
            copy=_find_copy(from_dir, name, [file, *entry.also_called]) if from_dir else None,
        )
        for file, entry in source.files.items()
    ]


def obtain(wanted: Wanted) -> str:
    """Put a verified file in place and return its origin in words. Raises ValueError if it is wrong or unavailable."""
    if wanted.path.exists():
        try:
            _verify(wanted, wanted.path)
        except ValueError as error:
            # Either the file or the pin is wrong; the user must decide.
            if wanted.pin and not wanted.entry.checksum:
                raise
            print(f"{error}; replacing it", flush=True)
        else:
            return "already present"
    if wanted.copy:
        _verify(wanted, wanted.copy)
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        wanted.path.unlink(missing_ok=True)
        link(wanted.copy, wanted.path)
        return f"linked to {wanted.copy}"
    size, check = wanted.entry.size, partial(_check_content, wanted)
    return f"from {download(wanted.entry.urls, wanted.path, size=size, checksum=wanted.checksum, check=check)}"


def manual_hint(wanted: Wanted, page: str, pins: Path) -> str:
    """Advice on how to download a file by hand; `pins` is the path of the source's pins."""
    alias = f" (named {' or '.join(wanted.entry.also_called)} there)" if wanted.entry.also_called else ""
    known = wanted.entry.checksum or "none published; it will be pinned"
    if wanted.pin and not wanted.entry.checksum:
        known = (
            f"{wanted.checksum}, pinned at the first download; if the file has changed since, delete its line in {pins}"
        )
    return (
        f"download it by hand from {page}{alias}, place it at {wanted.path} (checksum: {known}) "
        "and run the command again"
    )


def sha256_of(wanted: Wanted) -> str:
    """The sha256 of an obtained file; not computed again if it was the verified checksum."""
    algorithm, _, value = (wanted.checksum or "").partition(":")
    return value if algorithm == "sha256" else hash_file(wanted.path)


def link(file: Path, path: Path) -> None:
    """Make `path` a hard link to `file`, or a symbolic link if hard links are impossible."""
    original = file.resolve(strict=True)
    try:
        os.link(original, path)
    except OSError:
        path.symlink_to(original)


def _find_copy(from_dir: Path, source: str, names: list[str]) -> Path | None:
    for path in (from_dir / folder / name for folder in ("", source) for name in names):
        if path.is_file():
            return path
    matches = {path.resolve() for name in names for path in from_dir.rglob(glob.escape(name)) if path.is_file()}
    if len(matches) > 1:
        several = ", ".join(map(str, sorted(matches)))
        raise ValueError(f"{from_dir} has several files named {names[0]} ({several}); give the folder of one of them")
    return next(iter(matches), None)


def _verify(wanted: Wanted, path: Path) -> None:
    check_download(path, size=wanted.entry.size, checksum=wanted.checksum)
    _check_content(wanted, path)


def _check_content(wanted: Wanted, path: Path) -> None:
    """Raise ValueError if a file without a checksum is not what its name says, or a JSON list has the wrong length."""
    if wanted.checksum is None:
        refuse_other(path, wanted.name)
    expected = wanted.entry.num_records
    if expected is None:
        return
    num_records = sum(1 for _ in stream_list(path))
    if num_records != expected:
        raise ValueError(f"{path} has {num_records:,} records, expected {expected:,}")
