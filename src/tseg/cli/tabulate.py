"""`tseg tabulate`: a table from the summaries of its cells."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tseg.cli.options import parse_text


def tabulate(
    layout: Annotated[
        str,
        typer.Option(
            help="The table as JSON: number, title, corner, best, note, rows, columns, and for each of its cells row, "
            "column, metric and summaries, the JSON files of `tseg evaluate`, one per seed."
        ),
    ],
    published: Annotated[Path, typer.Option(help="CSV file of published numbers.")],
    output: Annotated[Path, typer.Option(help="CSV file; .md, .tex, .html, .json and _detail.csv go beside it.")],
) -> None:
    """Write a table of the paper from the metrics of its runs, the published numbers beside them."""
    from tseg.reporting.tables.paper import write_table

    write_table(parse_text(dict[str, Any], layout, "--layout"), output, published=published)
