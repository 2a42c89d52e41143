"""Random rescaling, cropping and flipping of images, masks, boxes and expressions (section 4.2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

PADDING = 127
"""Grey level that fills a crop beyond the image: nearly 0 once normalised for a ViT."""

_MIRRORED = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
_SIDE_WORDS = re.compile(rf"\b({'|'.join(_MIRRORED)})\b", re.IGNORECASE)


def filled_box(box: Sequence[float] | np.ndarray, height: int, width: int) -> np.ndarray:
    """Mask, bool (height, width), of a box (x, y, width, height) in pixels: the pixels whose centres lie inside."""
    left, top, box_width, box_height = box
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    return np.outer(
        (top <= rows) & (rows < top + box_height),
        (left <= columns) & (columns < left + box_width),
    )


def mirror_words(expression: str) -> str:
    """The expression as it reads in a mirror: left and right (leftmost, rightmost) change places."""

    def swap(match: re.Match[str]) -> str:
        word = _MIRRORED[match.group().lower()]
        return word.capitalize() if match.group()[0].isupper() else word

    return _SIDE_WORDS.sub(swap, expression)


@dataclass(frozen=True)
class Crop:
    """A rescaling to (`width`, `height`), a square window at (`left`, `top`) with sides of `resolution`, a flip.

    All in pixels of the rescaled image. The window may reach beyond it.
    """

    width: int
    height: int
    left: int
    top: int
    resolution: int
    flipped: bool

    def __call__(self, image: Image.Image) -> Image.Image:
        """The crop of an image (mode RGB, bilinear) or of its mask (mode L, nearest; 0 beyond the image)."""
        is_mask = image.mode == "L"
        filtering = Image.Resampling.NEAREST if is_mask else Image.Resampling.BILINEAR
        rescaled = image.resize((self.width, self.height), filtering)
        canvas = Image.new(image.mode, (self.resolution, self.resolution), 0 if is_mask else (PADDING,) * 3)
        canvas.paste(rescaled, (-self.left, -self.top))
        return canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flipped else canvas


def random_crop(
    generator: np.random.Generator,
    width: int,
    height: int,
    *,
    resolution: int,
    scale: tuple[float, float],
    flip: bool,
) -> Crop:
    """A random crop of an image of (width, height) pixels.

    The image's shorter side becomes `resolution` times a factor drawn log-uniformly from `scale`; the window lies
    uniformly where it overlaps the image most; half of the crops are flipped where `flip` is true.
    """
    factor = np.exp(generator.uniform(*np.log(scale))) * resolution / min(width, height)
    rescaled = [max(1, round(side * factor)) for side in (width, height)]
    left, top = (int(generator.integers(min(0, side - resolution), max(0, side - resolution) + 1)) for side in rescaled)
    flipped = bool(generator.random() < 0.5) and flip
    return Crop(*rescaled, left=left, top=top, resolution=resolution, flipped=flipped)
