"""`tseg segment`: segment phrases in your own image."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Crf, Device, Threshold, preset, threshold_rule


def segment(
    model: Annotated[Path, typer.Argument(help="The model.safetensors written by `tseg train`.")],
    image: Annotated[Path, typer.Argument(help="Image file.")],
    expressions: Annotated[list[str], typer.Argument(help="Phrases to segment, such as 'red circle'.")],
    output: Annotated[Path, typer.Option(help="Folder to write to: a black and white mask and an overlay per phrase.")],
    threshold: Threshold = "fixed",
    crf: Crf = "none",
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Shorter side of the encoder's input in pixels. Default: as in training.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Segment phrases in an image of your own.

    tseg segment model.safetensors photo.jpg "red circle" "striped star" --output masks
    """
    from tseg.inference.segmenter import Segmenter
    from tseg.model.device import select_device
    from tseg.reporting.figures.segmentation import write_segmentation

    segmenter = Segmenter.load(
        model,
        device=str(select_device(device, 1)),
        resolution=resolution,
        threshold=threshold_rule(threshold),
        crf=preset(crf),
    )
    for file, expression, share in write_segmentation(segmenter, image, expressions, output):
        print(f"{file}: {expression}, {share:.1%} of the image")
