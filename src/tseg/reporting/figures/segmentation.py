"""Masks of phrases in one image, written as images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from tseg.files import atomic_write
from tseg.images import open_image
from tseg.inference.segmenter import Segmenter
from tseg.reporting.figures.overlay import PREDICTION, overlay


def write_segmentation(
    segmenter: Segmenter, path: Path, expressions: Sequence[str], output: Path
) -> Iterator[tuple[Path, str, float]]:
    """Write a mask and an overlay (PNG) per expression of the image at `path` to the folder `output`.

    Yields each file, its expression and the share of the image that the mask covers. As everywhere, an image is turned
    as its EXIF orientation says.
    """
    image = open_image(path)
    for number, (expression, mask) in enumerate(zip(expressions, segmenter(image, expressions), strict=True), 1):
        for kind, drawn in {"mask": Image.fromarray(mask), "overlay": overlay(image, [mask], [PREDICTION])}.items():
            file = output / f"{path.stem}-{number}-{kind}.png"
            with atomic_write(file) as partial:
                drawn.save(partial)
            yield file, expression, float(mask.mean())
