"""`tseg segment`: for people with a picture and a phrase."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Crf, Device, find_device, preset


def segment(
    model: Annotated[Path, typer.Argument(help="The model.safetensors that `tseg train` wrote.")],
    picture: Annotated[Path, typer.Argument(help="The picture.")],
    expressions: Annotated[list[str], typer.Argument(help="What to look for, such as 'red circle'; several at will.")],
    output: Annotated[Path, typer.Option(help="Folder for a black and white PNG and an overlay per phrase.")],
    crf: Crf = "none",
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Longer side in pixels; absent: as in training.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Segment phrases in a picture of yours."""
    from PIL import Image, ImageOps

    from tseg.data.transforms import open_picture
    from tseg.files import whole_file
    from tseg.inference.segmenter import Segmenter
    from tseg.reporting.overlay import PREDICTION, overlay

    segmenter = Segmenter.load(model, device=str(find_device(device, 1)), resolution=resolution, crf=preset(crf))
    # Unlike a data set, whose annotations are of the stored pixels, people see their photographs upright.
    opened = ImageOps.exif_transpose(open_picture(picture))
    for number, (expression, mask) in enumerate(zip(expressions, segmenter(opened, expressions), strict=True), 1):
        for kind, drawn in {"mask": Image.fromarray(mask), "overlay": overlay(opened, [mask], [PREDICTION])}.items():
            path = output / f"{picture.stem}-{number}-{kind}.png"
            with whole_file(path) as partial:
                drawn.save(partial)
            print(f"{path}: {expression}, {mask.mean():.1%} of the picture")
