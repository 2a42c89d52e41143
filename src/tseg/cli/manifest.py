"""`tseg manifest`: what the files of a stage of the audit hold."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Output, parse_text


def manifest(
    files: Annotated[str, typer.Option(help="The paths of the files as a JSON list, or - for standard input.")],
    output: Output,
) -> None:
    """Write the SHA-256 and size of files, the scores in them, and the versions of the libraries that made them.

    The folder beside the manifest of a source is described as well.
    """
    from tseg.reporting.manifest import write_manifest

    write_manifest(parse_text(list[Path], files, "--files"), output)
