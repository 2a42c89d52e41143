"""`tseg describe`: the statistics of records."""

from pathlib import Path
from typing import Annotated

import typer


def describe(
    records: Annotated[
        list[Path],
        typer.Argument(help="Files of `tseg prepare`, or folders of them, such as data/records/refcoco."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="File to write as .csv; .md, .html and .png go beside it. Default: only print.")
    ] = None,
) -> None:
    """Print the statistics of each split, next to the published counts.

    The table counts images, expressions and words, and measures the sizes and
    overlaps of masks. A count is marked = if it equals the published one, and
    ≠ if it differs. --output also draws the distributions of mask sizes and
    expression lengths.

    tseg describe data/records/refcoco --output results/datasets.csv
    """
    from tseg.reporting.describe import describe_datasets
    from tseg.reporting.tables.formats import print_sheet

    print_sheet(describe_datasets(records, output))
