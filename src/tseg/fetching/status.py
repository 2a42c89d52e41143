"""What is there of the catalogue, told without reading the files."""

from pathlib import Path
from typing import NamedTuple

from tseg.fetching.fetch import manifest_path
from tseg.fetching.obtain import file_path
from tseg.fetching.partial import partial_path
from tseg.fetching.pins import read_pins
from tseg.settings.catalogue import Catalogue, ShapesSource, SourceFile


class FileStatus(NamedTuple):
    """A file of a source; `file` is empty for a source that is drawn."""

    source: str
    file: str
    state: str
    """there, unpacked (and then removed), 37 % there, wrong size, missing, drawn or to be drawn."""
    size: int | None
    """Bytes; None where nobody says."""
    num_there: int
    """Bytes that need not be fetched again."""
    checksum: str
    """published md5 or sha256, pinned, or none yet."""
    licence: str


def status(catalogue: Catalogue, raw_dir: Path) -> list[FileStatus]:
    """A row for every file of every source, in the order of the catalogue."""
    rows = []
    for name, source in catalogue.items():
        whole = manifest_path(raw_dir, name).exists() and (raw_dir / name).exists()
        if isinstance(source, ShapesSource):
            state = "drawn" if whole else "to be drawn"
            rows.append(FileStatus(name, "", state, None, 0, "", "MIT, as this project"))
            continue
        pins = read_pins(raw_dir, name)
        for file, about in source.files.items():
            state, size, num_there = _state(file_path(raw_dir, name, file), about, whole)
            rows.append(FileStatus(name, file, state, size, num_there, _checksum(about, file in pins), source.licence))
    return rows


def _state(path: Path, about: SourceFile, whole: bool) -> tuple[str, int | None, int]:
    """The state of a file, its size, and how many bytes of it are there."""
    size, unfinished = about.size, partial_path(path)
    if path.exists():
        num_there = path.stat().st_size
        return ("there", num_there, num_there) if size in (None, num_there) else ("wrong size", size, 0)
    if whole:
        return "unpacked", size, size or 0
    if unfinished.exists():
        num_there = unfinished.stat().st_size
        return (f"{100 * num_there // size} % there" if size else "partly there"), size, num_there
    return "missing", size, 0


def _checksum(about: SourceFile, pinned: bool) -> str:
    if about.checksum:
        return f"published {about.checksum.partition(':')[0]}"
    return "pinned" if pinned else "none yet"
