"""`tseg refine`: masks of predicted similarities."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Background, Crf, Output, Records, preset


def refine(
    predictions: Annotated[Path, typer.Option(help="File written by `tseg predict`.")],
    records: Records,
    output: Output,
    background: Background = 0.2,
    confidence: Annotated[
        float,
        typer.Option(min=0, max=1, help="Classes: a word takes part if the sigmoid of its score exceeds this."),
    ] = 0.5,
    crf: Crf = "none",
) -> None:
    """Make masks of similarities at the images' own resolution, with --crf refined by a dense CRF.

    A mask for every record; for a data set with classes, a class for every pixel.
    """
    from tseg.inference.stages import refine_file

    refine_file(predictions, records, output, background=background, confidence=confidence, crf=preset(crf))
