"""`tseg fetch`: the files of the catalogue, and a table of what is there."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tseg.cli.options import parse_text, read_text, write_json

if TYPE_CHECKING:
    from tseg.settings.catalogue import Catalogue, Source

PIPED_WIDTH = 1000  # characters: nothing is folded or cut where the table goes into a file


def fetch(
    sources: Annotated[list[str] | None, typer.Argument(help="Names in the catalogue; several at will.")] = None,
    catalogue: Annotated[Path, typer.Option(help="Where every file comes from.")] = Path("config/sources.yaml"),
    dir: Annotated[Path, typer.Option(help="Folder of raw data.")] = Path("data/raw"),
    from_dir: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Folder with copies: those of the right names and checksums are linked, not fetched."
        ),
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Tell what is there and what is missing; fetch nothing.")
    ] = False,
) -> None:
    """Bring sources into place: draw shapes, or download, verify and unpack the files of a data set or an encoder.

    The source S becomes the folder DIR/S; DIR/S.json says what is in it.
    Its files stay in DIR/downloads/S. One that you place there is used, verified
    alike. What was interrupted goes on where it was. Proxies (HTTPS_PROXY) and
    HF_HUB_OFFLINE are respected.

    tseg fetch --list                what there is, how large, whose
    tseg fetch voc2012 sbd           two sources
    tseg fetch voc2012 --from /mnt   from a copy that is somewhere below /mnt
    """
    from tseg.files import require_file
    from tseg.settings.catalogue import Catalogue
    from tseg.settings.validation import check_known

    known = parse_text(Catalogue, read_text(catalogue), str(catalogue))
    for name in sources or []:
        check_known(name, known, f"{catalogue} has no source")
    if show_list:
        _print_status({name: known[name] for name in sources or known}, dir)
        return
    if not sources:
        raise ValueError(f"name what to fetch, of {', '.join(known)}; tseg fetch --list tells how large each is")
    if from_dir:
        require_file(from_dir, "give --from a folder that exists")
    failures = []
    for name in sources:
        try:
            _fetch(name, known[name], dir, from_dir)
        except ValueError as error:
            failures.append(str(error))
    if failures:
        raise ValueError("\n".join(failures))


def _fetch(name: str, source: "Source", dir: Path, from_dir: Path | None) -> None:
    """Bring one source into place and write its manifest."""
    from tseg.fetching.fetch import manifest_path
    from tseg.settings.catalogue import ShapesSource

    if isinstance(source, ShapesSource):
        from tseg.datasets.shapes.draw import draw_shapes

        settings = source.model_dump()
        counts = draw_shapes(
            dir / name, sets=source.sets, num_train=source.num_train, num_val=source.num_val, seed=source.seed
        )
        manifest = {"source": name, "settings": settings, "counts": counts}
    else:
        from tseg.fetching.fetch import fetch

        print(f"{name}: {source.title}; licence: {source.licence}; to cite: {source.citation}", flush=True)
        manifest = fetch(name, source, dir, from_dir=from_dir)
        for file, about in manifest["files"].items():
            print(f"{name}: {file} has sha256 {about['sha256']}")
    print(f"{name}: " + ", ".join(f"{count:,} {what}" for what, count in manifest["counts"].items()))
    write_json(manifest_path(dir, name), manifest)


def _print_status(catalogue: "Catalogue", dir: Path) -> None:
    """Print a table of all files, and what of them is there and missing."""
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
        size = decimal(row.size) if row.size else "not known" if row.file else ""
        table.add_row(row.source, row.file, row.state, size, row.checksum, row.licence)
    console = Console(markup=False, emoji=False, highlight=False)
    if not sys.stdout.isatty():
        console.width = PIPED_WIDTH
    console.print(table)
    num_there = sum(row.num_there for row in rows)
    missing = sum(row.size - row.num_there for row in rows if row.size)
    num_unknown = sum(bool(row.file) and row.size is None and row.state != "unpacked" for row in rows)
    more = f", and {num_unknown} files whose size is not known" if num_unknown else ""
    console.print(f"{decimal(num_there)} there, {decimal(missing)} missing{more}; in {dir}/downloads", soft_wrap=True)
