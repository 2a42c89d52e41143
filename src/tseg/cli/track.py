"""`tseg track`: create the MLflow store."""

from typing import Annotated

import typer

from tseg.cli.options import Output


def track(
    uri: Annotated[str, typer.Option(help="MLflow store: sqlite:///path or the address of a server; empty: none.")],
    experiments: Annotated[list[str], typer.Argument(help="Experiments to create, one per data set.")],
    output: Output,
) -> None:
    """Create the MLflow store and its experiments, before any run needs them, and note its address in --output."""
    from tseg.tracking import set_up_store

    set_up_store(uri or None, experiments, output)
