"""Masks over images. The image and overlapping masks stay visible."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor

# The palette of Okabe and Ito, distinct for colour-blind readers.
COLOURS = ["#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#000000"]
WORKING_PIXELS = 400  # longer side of an image in a figure
STRIPES = 30  # along the longer side
STRONG, HALF, WEAK = 0.9, 0.6, 0.2  # opacities
PALENESS = 0.35


def _striped(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.where((x + y) % 1 < 0.5, STRONG, WEAK)


def _dotted(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.where((x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.1, STRONG, WEAK)


def _crossed(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.where(np.minimum((x + y) % 1, (x - y) % 1) < 0.2, STRONG, WEAK)


# Opacity in [0, 1] at coordinates (height, 1) and (1, width) in units of stripes.
PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray | float]] = {
    "plain": lambda y, x: HALF,
    "striped": _striped,
    "dotted": _dotted,
    "crossed": _crossed,
    "outline": lambda y, x: 1.0,  # of the rim; an outline has no interior
}


class Look(NamedTuple):
    """The look of a mask: its colour (#rrggbb) and a key of `PATTERNS`."""

    colour: str
    pattern: str = "plain"


TRUTH, PREDICTION = (Look(colour) for colour in COLOURS[:2])
VOID_LOOK = Look("#FFFFFF", "crossed")
# Enough for VOC's twenty classes.
LOOKS = [Look(colour, pattern) for pattern in ("plain", "striped", "dotted") for colour in COLOURS]


def overlay(image: Image.Image, masks: Sequence[np.ndarray], looks: Sequence[Look]) -> Image.Image:
    """Draw boolean `masks` (height, width) over `image` (RGB), each in its look and with an opaque rim.

    Where masks overlap, their looks alternate in diagonal stripes. An outline is a rim only. Pixels outside all masks
    do not change.
    """
    size = image.height, image.width
    assert all(mask.shape == size for mask in masks), "a mask is as large as its image"
    if not masks:
        return image.copy()
    rims = np.stack([_rim(mask) for mask in masks])
    outlined = np.array([look.pattern == "outline" for look in looks])[:, None, None]
    layers = np.where(outlined, rims, np.stack(masks))
    on_rim = rims.any(axis=0)
    shown = np.where(on_rim, rims, layers)
    y, x = (axis * np.float32(STRIPES / max(size)) for axis in np.ogrid[: size[0], : size[1]])
    turn = np.floor(x - y).astype(int) % np.maximum(1, shown.sum(axis=0))
    chosen = np.argmax(shown & (shown.cumsum(axis=0) == turn + 1), axis=0)
    patterns = np.stack([np.broadcast_to(PATTERNS[look.pattern](y, x), size) for look in looks])
    opacity = np.where(on_rim, 1, np.take_along_axis(patterns, chosen[None], axis=0)[0]) * layers.any(axis=0)
    colours = np.array([ImageColor.getrgb(look.colour) for look in looks], np.uint8)[chosen]
    return Image.composite(Image.fromarray(colours), image, Image.fromarray((255 * opacity).round().astype(np.uint8)))


def _rim(mask: np.ndarray) -> np.ndarray:
    pixels = max(1, round(max(mask.shape) / 200))
    inner = np.pad(mask, pixels, mode="edge")  # no rim along the sides of the image
    for axis in (0, 1):
        inner = np.lib.stride_tricks.sliding_window_view(inner, 2 * pixels + 1, axis=axis).all(axis=-1)
    return mask & ~inner


def working_size(image: Image.Image) -> Image.Image:
    """Resize an image so that its longer side has `WORKING_PIXELS`."""
    scale = WORKING_PIXELS / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def working_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a boolean mask to `size` (width and height in pixels) with a smooth outline."""
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)) > 127


def pale(image: Image.Image) -> Image.Image:
    """Convert an image (RGB) to light greys, so that overlays stand out."""
    return image.convert("L").point(lambda value: value * (1 - PALENESS) + 255 * PALENESS).convert("RGB")
