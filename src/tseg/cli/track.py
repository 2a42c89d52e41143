"""`tseg track`: create the MLflow store."""

from typing import Annotated

import typer

from tseg.cli.options import Output


def track(
    uri: Annotated[str, typer.Option(help="MLflow store: sqlite:///path or the URL of a server; empty: none.")],
    experiments: Annotated[list[str], typer.Argument(help="Experiments to create, one per data set.")],
    output: Output,
) -> None:
    """Create the MLflow store and its experiments, and write its address to --output.

    Do this once, before any training: processes that create an SQLite store at
    the same time fail.
    """
    from tseg.tracking import set_up_store

    set_up_store(uri or None, experiments, output)
