"""`tseg overlap`: images that training and evaluation splits share."""

from pathlib import Path
from typing import Annotated

import typer


def overlap(
    train: Annotated[list[Path], typer.Option(help="Records of a training split; repeat it.")],
    evaluation: Annotated[list[Path], typer.Option(help="Records of an evaluation split; repeat it.")],
    output: Annotated[
        Path | None, typer.Option(help="CSV file; the others go beside it. Default: only print the table.")
    ] = None,
) -> None:
    """Print how many images of each evaluation split are also in a training split.

    All images of RefCOCO, RefCOCO+ and RefCOCOg, and about half of PhraseCut's, come from COCO, so a model may have
    been trained on images that it is evaluated on. COCO ids identify them. --output writes .csv, .md and .html.
    """
    from tseg.reporting.tables.formats import print_sheet
    from tseg.reporting.tables.overlaps import report_overlaps

    print_sheet(report_overlaps(train, evaluation, output))
