"""`tseg segment`: for people with an image and a phrase."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Crf, Device, find_device, preset


def segment(
    model: Annotated[Path, typer.Argument(help="The model.safetensors that `tseg train` wrote.")],
    image: Annotated[Path, typer.Argument(help="The image.")],
    expressions: Annotated[list[str], typer.Argument(help="What to look for, such as 'red circle'; several at will.")],
    output: Annotated[Path, typer.Option(help="Folder for a black and white PNG and an overlay per phrase.")],
    crf: Crf = "none",
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Longer side in pixels; absent: as in training.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Segment phrases in an image of yours."""
    from PIL import Image, ImageOps

    from tseg.files import atomic_write
    from tseg.images import open_image
    from tseg.inference.segmenter import Segmenter
    from tseg.reporting.figures.overlay import PREDICTION, overlay

    segmenter = Segmenter.load(model, device=str(find_device(device, 1)), resolution=resolution, crf=preset(crf))
    # Unlike a data set, whose annotations are of the stored pixels, people see their photographs upright.
    opened = ImageOps.exif_transpose(open_image(image))
    for number, (expression, mask) in enumerate(zip(expressions, segmenter(opened, expressions), strict=True), 1):
        for kind, drawn in {"mask": Image.fromarray(mask), "overlay": overlay(opened, [mask], [PREDICTION])}.items():
            path = output / f"{image.stem}-{number}-{kind}.png"
            with atomic_write(path) as partial:
                drawn.save(partial)
            print(f"{path}: {expression}, {mask.mean():.1%} of the image")
