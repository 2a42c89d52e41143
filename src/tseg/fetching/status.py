"""Which files of the catalogue are present, without reading them."""

from pathlib import Path
from typing import NamedTuple

from tseg.fetching.fetch import manifest_path
from tseg.fetching.obtain import file_path
from tseg.fetching.partial import partial_path
from tseg.fetching.pins import read_pins
from tseg.settings.catalogue import Catalogue, ShapesSource, SourceFile


class FileStatus(NamedTuple):
    """A file of a source; `file` is empty for drawn shapes."""

    source: str
    file: str
    state: str
    """present, unpacked (and then removed), 37 % present, partly present, wrong size, missing, drawn or not drawn."""
    size: int | None
    """Bytes; None if unknown."""
    num_present: int
    """Bytes that need not be downloaded again."""
    checksum: str
    """published md5, published sha256, pinned or none yet."""
    licence: str


def status(catalogue: Catalogue, raw_dir: Path) -> list[FileStatus]:
    """One row per file, in the order of the catalogue."""
    rows = []
    for name, source in catalogue.items():
        complete = manifest_path(raw_dir, name).exists() and (raw_dir / name).exists()
        if isinstance(source, ShapesSource):
            state = "drawn" if complete else "not drawn"
            rows.append(FileStatus(name, "", state, None, 0, "", "MIT, like this project"))
            continue
        pins = read_pins(raw_dir, name)
        for file, entry in source.files.items():
            state, size, num_present = _state(file_path(raw_dir, name, file), entry, complete)
            rows.append(
                FileStatus(name, file, state, size, num_present, _checksum(entry, file in pins), source.licence)
            )
    return rows


def _state(path: Path, entry: SourceFile, complete: bool) -> tuple[str, int | None, int]:
    """The state of a file, its size and its number of bytes present."""
    size, partial = entry.size, partial_path(path)
    if path.exists():
        num_present = path.stat().st_size
        return ("present", num_present, num_present) if size in (None, num_present) else ("wrong size", size, 0)
    if complete:
        return "unpacked", size, size or 0
    if partial.exists():
        num_present = partial.stat().st_size
        return (f"{100 * num_present // size} % present" if size else "partly present"), size, num_present
    return "missing", size, 0


def _checksum(entry: SourceFile, pinned: bool) -> str:
    if entry.checksum:
        return f"published {entry.checksum.partition(':')[0]}"
    return "pinned" if pinned else "none yet"
