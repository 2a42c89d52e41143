"""`tseg fetch`: fetch sources of the catalogue, or list their state."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tseg.cli.options import read_settings

if TYPE_CHECKING:
    from tseg.settings.catalogue import Catalogue, Source

PIPED_WIDTH = 1000  # characters; wide enough that piped tables never wrap


def fetch(
    sources: Annotated[list[str] | None, typer.Argument(help="Sources to fetch, by name.")] = None,
    catalogue: Annotated[Path, typer.Option(help="YAML file that lists all sources.")] = Path("config/sources.yaml"),
    dir: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("data/raw"),
    from_dir: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Folder of copies: files with the right name are verified and linked, not downloaded."
        ),
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List what is present and missing; fetch nothing.")] = False,
) -> None:
    """Fetch data sets and encoders: download, verify and unpack them, or draw shapes.

    Source S becomes the folder DIR/S, and DIR/S.json lists its files.
    Downloads stay in DIR/downloads/S; files that you place there are verified
    and used. An interrupted download continues where it stopped. HTTPS_PROXY
    and HF_HUB_OFFLINE are respected.

    tseg fetch --list                state, size and licence of all files
    tseg fetch voc2012 sbd           two sources
    tseg fetch voc2012 --from /mnt   use copies anywhere below /mnt
    """
    from tseg.files import require_file
    from tseg.settings.catalogue import Catalogue
    from tseg.settings.validation import check_known

    known = read_settings(Catalogue, catalogue)
    for name in sources or []:
        check_known(name, known, f"{catalogue} has no source")
    if show_list:
        _print_status({name: known[name] for name in sources or known}, dir)
        return
    if not sources:
        raise ValueError(f"name one or more sources: {', '.join(known)}; `tseg fetch --list` shows their sizes")
    if from_dir:
        require_file(from_dir, "give --from a folder that exists")
    failures = []
    for name in sources:
        try:
            _fetch_and_report(name, known[name], dir, from_dir)
        except ValueError as error:
            failures.append(str(error))
    if failures:
        raise ValueError("\n".join(failures))


def _fetch_and_report(name: str, source: "Source", dir: Path, from_dir: Path | None) -> None:
    """Fetch one source and print its terms, checksums and counts."""
    from tseg.fetching.fetch import fetch_source
    from tseg.settings.catalogue import FilesSource

    if isinstance(source, FilesSource):
        print(f"{name}: {source.title}; licence: {source.licence}; cite: {source.citation}", flush=True)
    manifest = fetch_source(name, source, dir, from_dir)
    for file, entry in manifest.get("files", {}).items():
        print(f"{name}: {file} has sha256 {entry['sha256']}")
    print(f"{name}: " + ", ".join(f"{count:,} {unit}" for unit, count in manifest["counts"].items()))


def _print_status(catalogue: "Catalogue", dir: Path) -> None:
    """Print the state of all files as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    from tseg.fetching.status import status

    rows = status(catalogue, dir)
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
        f"{decimal(num_present)} present, {decimal(missing)} missing{more}; in {dir}/downloads", soft_wrap=True
    )
