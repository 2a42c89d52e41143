"""`tseg overlap`: images that training and evaluation splits share."""

from pathlib import Path
from typing import Annotated

import typer


def overlap(
    train: Annotated[list[Path], typer.Option(help="Records of a training split; repeatable.")],
    evaluation: Annotated[list[Path], typer.Option(help="Records of an evaluation split; repeatable.")],
    output: Annotated[
        Path | None, typer.Option(help="File to write as .csv; .md and .html go beside it. Default: only print.")
    ] = None,
) -> None:
    """Print how many images of each evaluation split are also in a training split.

    All images of RefCOCO, RefCOCO+ and RefCOCOg, and about half of PhraseCut's,
    come from COCO. A model may therefore be evaluated on images that it was
    trained on. COCO ids identify them.
    """
    from tseg.reporting.tables.formats import print_sheet
    from tseg.reporting.tables.overlaps import report_overlaps

    print_sheet(report_overlaps(train, evaluation, output))
