"""`tseg`: one sub-command per rule of the workflow; others explain, audit and verify results, or segment your images.

A sub-command turns its options into the arguments of one library call. It imports that library only when it runs, so
that help is instant.
"""

import os
import sys
from typing import Annotated

import typer

from tseg.cli.audit import audit
from tseg.cli.check import check
from tseg.cli.configure import configure
from tseg.cli.describe import describe
from tseg.cli.draw import draw
from tseg.cli.driver import end_with_driver
from tseg.cli.encode import encode
from tseg.cli.evaluate import evaluate
from tseg.cli.explain import explain
from tseg.cli.fetch import fetch
from tseg.cli.manifest import manifest
from tseg.cli.overlap import overlap
from tseg.cli.predict import predict
from tseg.cli.prepare import prepare
from tseg.cli.pseudo_label import pseudo_label
from tseg.cli.reference import reference
from tseg.cli.refine import refine
from tseg.cli.segment import segment
from tseg.cli.tabulate import tabulate
from tseg.cli.track import track
from tseg.cli.train import train
from tseg.cli.verify import verify

# Arrow's own allocator keeps most of what is freed: 60 MB after reading 15,000 records.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

app = typer.Typer(
    help="Learn to segment from images and phrases alone, then segment any phrase in any image.\n\n"
    "The steps of the workflow, in order: fetch, prepare, check, encode, configure, train, predict, refine,\n"
    "evaluate, tabulate.\n"
    "Snakemake runs them all; `tseg segment` needs only a trained model and an image.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    fetch,
    prepare,
    describe,
    overlap,
    encode,
    check,
    configure,
    track,
    train,
    predict,
    pseudo_label,
    refine,
    evaluate,
    tabulate,
    manifest,
    reference,
    explain,
    audit,
    verify,
    segment,
):
    app.command()(command)
app.add_typer(draw)


EXTRAS = {
    "dvc": "workflow",
    "matplotlib": "workflow",
    "mlflow": "workflow",
    "pydensecrf": "crf",
    "snakemake": "workflow",
}
"""Packages to the extra of pyproject.toml that installs them."""


def print_version(requested: bool) -> None:
    """Print the version and exit, if `requested`."""
    if requested:
        from tseg import __version__

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
    """Run `tseg`. A user error prints one sentence on stderr, without a traceback, and exits with status 1.

    So does a package that is not installed because it belongs to an extra.
    """
    end_with_driver()
    from tseg.lineage import noted

    try:
        with noted(sys.argv):
            app()
    except (ValueError, OSError) as error:
        print(f"tseg: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        print(f'tseg: this needs {package}; run `pip install "tseg[{EXTRAS[package]}]"`', file=sys.stderr)
        sys.exit(1)
