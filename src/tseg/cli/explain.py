"""`tseg explain`: what made a result."""

from pathlib import Path
from typing import Annotated

import typer


def explain(
    path: Annotated[Path, typer.Argument(help="A file that the workflow made, such as results/table3.csv.")],
    row: Annotated[str | None, typer.Option(help="Cells of a table whose row has this in its label.")] = None,
    column: Annotated[str | None, typer.Option(help="Cells of a table whose column has this in its label.")] = None,
) -> None:
    """Print the ancestry of a result: runs, seeds, MLflow runs, data, times.

    For a table, cell by cell. Each file is shown with its SHA-256, and the
    command, the time and the git revision that made it. A file that was
    changed since is named. The folders `.made` hold these notes.
    """
    from tseg.reporting.explain import explain_file

    explain_file(path, row, column)
