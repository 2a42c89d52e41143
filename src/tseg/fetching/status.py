"""Which files of the catalogue are present, without reading them."""

import sys
from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from tseg.fetching.fetch import manifest_path
from tseg.fetching.obtain import file_path
from tseg.fetching.partial import partial_path
from tseg.fetching.pins import read_pins
from tseg.settings.catalogue import Catalogue, ShapesSource, SourceFile

PIPED_WIDTH = 1000  # characters; wide enough that piped tables never wrap


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


def print_status(catalogue: Catalogue, raw_dir: Path) -> None:
    """Print the state of all files as a table."""
    rows = status(catalogue, raw_dir)
    table = Table(box=SIMPLE_HEAD)
    for heading in ("Source", "File", "State", "Size", "Checksum", "Licence"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "Size" else "left")
    for row in rows:
        size = decimal(row.size) if row.size else "unknown" if row.file else ""
        table.add_row(row.source, row.file, row.state, size, row.checksum, row.licence)
    console = Console(markup=False, emoji=False, highlight=False)
    if not sys.stdout.isatty():
        console.width = PIPED_WIDTH
    console.print(table)
    num_present = sum(row.num_present for row in rows)
    missing = sum(row.size - row.num_present for row in rows if row.size)
    num_unknown = sum(bool(row.file) and row.size is None and row.state != "unpacked" for row in rows)
    more = f", plus {num_unknown} files of unknown size" if num_unknown else ""
    console.print(
        f"{decimal(num_present)} present, {decimal(missing)} missing{more}; in {raw_dir}/downloads", soft_wrap=True
    )


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
