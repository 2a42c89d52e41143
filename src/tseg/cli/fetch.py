"""`tseg fetch`: fetch sources of the catalogue, or list their state."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import read_settings


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
    from tseg.fetching.fetch import fetch_sources
    from tseg.fetching.status import print_status
    from tseg.settings.catalogue import Catalogue
    from tseg.settings.validation import check_known

    known = read_settings(Catalogue, catalogue)
    for name in sources or []:
        check_known(name, known, f"{catalogue} has no source")
    if show_list:
        print_status({name: known[name] for name in sources or known}, dir)
    elif sources:
        fetch_sources({name: known[name] for name in sources}, dir, from_dir)
    else:
        raise ValueError(f"name one or more sources: {', '.join(known)}; `tseg fetch --list` shows their sizes")
