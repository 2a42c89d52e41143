"""`tseg describe`: the statistics of records."""

from pathlib import Path
from typing import Annotated

import typer


def describe(
    records: Annotated[
        list[Path], typer.Argument(help="Records that `tseg prepare` wrote, or folders of them: data/records/refcoco.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="CSV file; the others go beside it. Default: only print the table.")
    ] = None,
) -> None:
    """Print the statistics of each split, next to the published counts.

    Counts images, expressions and words, and measures the sizes and overlaps of masks; = and ≠ compare each count with
    the published one. --output writes the table as .csv, .md and .html, and draws the distributions of mask sizes and
    expression lengths as .png.

    tseg describe data/records/refcoco data/records/phrasecut --output datasets.csv
    """
    from tseg.reporting.describe import describe_datasets
    from tseg.reporting.tables.formats import print_sheet

    print_sheet(describe_datasets(records, output))
