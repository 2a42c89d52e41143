"""`tseg tabulate`: a table from the summaries of its cells."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import parse_text


def tabulate(
    layout: Annotated[
        str,
        typer.Option(
            help="The table as JSON: table (its name), number, title, corner, best, note, rows, columns and cells. "
            "Each cell has row, column, metric and summaries: the JSON files of `tseg evaluate`, one per seed."
        ),
    ],
    published: Annotated[Path, typer.Option(help="CSV file of published numbers.")],
    output: Annotated[Path, typer.Option(help="CSV file; .md, .tex, .html, .json and _detail.csv go beside it.")],
) -> None:
    """Write a table of the paper: metrics of the runs beside the published numbers."""
    from tseg.reporting.tables.paper import write_table
    from tseg.settings.layout import TableLayout

    write_table(parse_text(TableLayout, layout, "--layout"), output, published=published)
