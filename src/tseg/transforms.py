"""Random rescaling, cropping and flipping of images, masks, boxes and expressions (section 4.2)."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from PIL import Image

PADDING = 127
"""Grey level of a crop outside the image; close to 0 after a ViT's normalisation."""

MAX_ASPECT = 4
"""An encoder's input is at most this many times as long as it is wide, so that no image sets the cost of all."""

_MIRRORED = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
_SIDE_WORDS = re.compile(rf"\b({'|'.join(_MIRRORED)})\b", re.IGNORECASE)


def filled_box(box: Sequence[float] | np.ndarray, height: int, width: int) -> np.ndarray:
    """Mask, bool (height, width), of the pixels whose centres lie inside a box (x, y, width, height) in pixels."""
    left, top, box_width, box_height = box
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    return np.outer(
        (top <= rows) & (rows < top + box_height),
        (left <= columns) & (columns < left + box_width),
    )


def mirror_words(expression: str) -> str:
    """Swap left and right, and leftmost and rightmost, in the expression of a mirrored image."""

    def swap(match: re.Match[str]) -> str:
        word = _MIRRORED[match.group().lower()]
        return word.capitalize() if match.group()[0].isupper() else word

    return _SIDE_WORDS.sub(swap, expression)


@dataclass(frozen=True)
class Crop:
    """Rescale to (`width`, `height`), cut a square of side `resolution` at (`left`, `top`), then flip if `flipped`.

    All lengths are in pixels of the rescaled image. The square may extend beyond that image.
    """

    width: int
    height: int
    left: int
    top: int
    resolution: int
    flipped: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result, in pixels."""
        return self.resolution, self.resolution

    def __call__(self, image: Image.Image) -> Image.Image:
        """Crop an image (mode RGB, bilinear) or its mask (mode L, nearest neighbour; 0 beyond the image).

        Only the visible part is rescaled, so that time and memory beyond the image's own are bounded by `resolution`.
        """
        is_mask = image.mode == "L"
        filtering = Image.Resampling.NEAREST if is_mask else Image.Resampling.BILINEAR
        columns = _visible(self.left, self.resolution, self.width, image.width)
        rows = _visible(self.top, self.resolution, self.height, image.height)
        window = image.crop((columns.window[0], rows.window[0], columns.window[1], rows.window[1]))
        box = (columns.box[0], rows.box[0], columns.box[1], rows.box[1])
        canvas = window.resize((columns.length, rows.length), filtering, box)
        if canvas.size != self.size:
            visible, canvas = canvas, Image.new(image.mode, self.size, 0 if is_mask else (PADDING,) * 3)
            canvas.paste(visible, (columns.start, rows.start))
        return canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flipped else canvas


class _Visible(NamedTuple):
    """What a square shows of one axis of a rescaled image."""

    start: int
    """Where the visible part starts in the square."""
    length: int
    """Its length, in pixels of the rescaled image."""
    window: tuple[int, int]
    """First pixel, and the one after the last, of the original image that it depends on."""
    box: tuple[float, float]
    """Its bounds inside the window, in pixels of the original image."""


def _visible(first: int, resolution: int, rescaled: int, original: int) -> _Visible:
    """What `resolution` pixels from `first` on show of an axis of `original` pixels that becomes `rescaled` pixels."""
    start, end = max(first, 0), min(first + resolution, rescaled)
    factor = original / rescaled
    # A bilinear pixel depends on originals within one pixel of it, or within `factor` where the image shrinks.
    reach = math.ceil(max(1, factor))
    window = max(0, math.floor(start * factor) - reach), min(original, math.ceil(end * factor) + reach)
    # Pillow keeps a box in float32: a long image needs one that is relative to the window.
    box = start * factor - window[0], min(end * factor, original) - window[0]
    return _Visible(start - first, end - start, window, box)


@dataclass(frozen=True)
class Whole:
    """Resize a whole image to (`width`, `height`) pixels, then flip it if `flipped`."""

    width: int
    height: int
    flipped: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result, in pixels."""
        return self.width, self.height

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resize an image of mode RGB bilinearly."""
        resized = image.resize(self.size, Image.Resampling.BILINEAR)
        return resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flipped else resized


def whole_view(width: int, height: int, *, resolution: float, patch_size: int, flipped: bool) -> Whole:
    """The view of a whole image of (width, height) pixels whose shorter side is resized to `resolution` pixels.

    As in training, the shorter side sets the scale. The aspect ratio is kept, to whole patches; an image longer than
    `MAX_ASPECT` times its width is squeezed to that ratio.
    """
    scale = resolution / min(width, height) / patch_size
    longest = MAX_ASPECT * max(1, round(resolution / patch_size))
    columns, rows = (min(longest, max(1, round(side * scale))) for side in (width, height))
    return Whole(columns * patch_size, rows * patch_size, flipped)


def each_view(scales: Sequence[float], flip: bool) -> list[tuple[float, bool]]:
    """Scale, and whether it is mirrored, of all views of an image in order: with `flip`, each scale twice."""
    return list(product(scales, [False, True] if flip else [False]))


def random_crop(
    generator: np.random.Generator,
    width: int,
    height: int,
    *,
    resolution: int,
    scale: tuple[float, float],
    flip: bool,
) -> Crop:
    """Draw a random crop for an image of (width, height) pixels.

    The shorter side becomes `resolution` times a factor drawn uniformly from `scale`. The position is uniform among
    those with the largest overlap with the image. With `flip`, half of the crops are flipped.
    """
    factor = generator.uniform(*scale) * resolution / min(width, height)
    rescaled = [max(1, round(side * factor)) for side in (width, height)]
    left, top = (int(generator.integers(min(0, side - resolution), max(0, side - resolution) + 1)) for side in rescaled)
    flipped = bool(generator.random() < 0.5) and flip
    return Crop(*rescaled, left=left, top=top, resolution=resolution, flipped=flipped)
