"""`tseg segment`: phrases in an image of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Crf, Device, preset


def segment(
    model: Annotated[Path, typer.Argument(help="The model.safetensors written by `tseg train`.")],
    image: Annotated[Path, typer.Argument(help="The image.")],
    expressions: Annotated[list[str], typer.Argument(help="Phrases to look for, such as 'red circle'.")],
    output: Annotated[Path, typer.Option(help="Folder for a black and white PNG and an overlay per phrase.")],
    crf: Crf = "none",
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Longer side in pixels. Default: as in training.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Segment phrases in an image of your own.

    tseg segment results/runs/phrasecut-mpa/seed0/model.safetensors photo.jpg "red circle" "striped star" --output masks
    """
    from tseg.inference.segmenter import Segmenter
    from tseg.model.device import select_device
    from tseg.reporting.figures.segmentation import write_segmentation

    segmenter = Segmenter.load(model, device=str(select_device(device, 1)), resolution=resolution, crf=preset(crf))
    for file, expression, share in write_segmentation(segmenter, image, expressions, output):
        print(f"{file}: {expression}, {share:.1%} of the image")
