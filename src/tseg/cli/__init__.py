"""`tseg`: one sub-command per rule of the workflow, and one for people with an image.

A sub-command turns options into the arguments of one call into the library. It imports what it needs when it runs, so
that help is instant.
"""

import sys
from typing import Annotated

import typer

from tseg.cli.configure import configure
from tseg.cli.describe import describe
from tseg.cli.draw import draw
from tseg.cli.evaluate import evaluate
from tseg.cli.fetch import fetch
from tseg.cli.overlap import overlap
from tseg.cli.predict import predict
from tseg.cli.prepare import prepare
from tseg.cli.refine import refine
from tseg.cli.segment import segment
from tseg.cli.tabulate import tabulate
from tseg.cli.track import track
from tseg.cli.train import train

app = typer.Typer(
    help="Segmentation learned from words: weak training on images and phrases, masks for any phrase.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    track,
    configure,
    fetch,
    prepare,
    describe,
    overlap,
    train,
    predict,
    refine,
    evaluate,
    tabulate,
    segment,
):
    app.command()(command)
app.add_typer(draw)


def print_version(requested: bool) -> None:
    """Print the version and exit, if `requested`."""
    from tseg import __version__

    if requested:
        print(f"tseg {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Declare the options of `tseg` itself."""


def main() -> None:
    """Run `tseg`. A mistake of the user ends in one sentence on stderr and exit status 1, not in a traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"tseg: {error}", file=sys.stderr)
        sys.exit(1)
