"""Pictures for the encoder: normalised, and for training at random rescaled, cropped and flipped (section 4.2)."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from tseg.data.annotations import MAX_PIXELS

PADDING = 127
"""Grey level that fills a crop beyond the picture: nearly 0 once normalised for a ViT."""

_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
"""Of at most 8 bits a channel; Pillow cuts off what a 16-bit grey exceeds 255 by."""

_MIRRORED = {"left": "right", "right": "left", "leftmost": "rightmost", "rightmost": "leftmost"}
_SIDE_WORDS = re.compile(rf"\b({'|'.join(_MIRRORED)})\b", re.IGNORECASE)


class PictureError(Exception):
    """Why a picture cannot be used, and what mends it."""


@contextmanager
def usable_picture(path: Path | str) -> Iterator[Image.Image]:
    """The picture, not decoded yet. Raises PictureError for one that is too large, animated or of more than 8 bits.

    What goes wrong while the picture is in use becomes a PictureError too.
    """
    try:
        with Image.open(path) as picture:
            check_kind(picture)
            yield picture
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"the picture is too large ({error}); scale it down") from error
    except Exception as error:  # Pillow's decoders let many kinds through
        raise PictureError(f"the picture cannot be read to its end ({error}); fetch it again") from error


def check_kind(picture: Image.Image) -> None:
    """Raise PictureError unless the picture, opened, not decoded, is one still picture of 8 bits a channel."""
    if picture.width * picture.height > MAX_PIXELS:
        size = f"{picture.width} x {picture.height} pixels, more than {MAX_PIXELS:,}"
        raise PictureError(f"the picture is too large ({size}); scale it down")
    # A camera's MPO is one picture, with the preview or the other eye's view after it.
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        raise PictureError("the picture is animated or one of several in its file; save the one that is meant alone")
    if picture.mode not in _MODES:
        raise PictureError(f"the picture has Pillow's mode {picture.mode}; save it with 8 bits a channel")


def check_orientation(picture: Image.Image) -> None:
    """Raise PictureError for an opened picture that a viewer turns or mirrors before it shows it."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in range(2, 9):
        mend = "save it upright, as `mogrify -auto-orient` does"
        raise PictureError(f"the picture is stored turned or mirrored (EXIF orientation {orientation}); {mend}")


def open_picture(path: Path | str) -> Image.Image:
    """The picture as RGB, decoded, its pixels as they are stored. Raises ValueError naming one that cannot be used."""
    try:
        with usable_picture(path) as picture:
            return picture.convert("RGB")
    except PictureError as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def normalised(picture: Image.Image, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The picture as float32 (3, H, W): (value / 255 - mean) / std, `mean` and `std` one number per channel."""
    values = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1)
    shift, unit = (np.array(numbers, np.float32)[:, None, None] for numbers in (mean, std))
    return (values / 255 - shift) / unit


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

    All in pixels of the rescaled picture. The window may reach beyond it.
    """

    width: int
    height: int
    left: int
    top: int
    resolution: int
    flipped: bool

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The crop of a picture (mode RGB, bilinear) or of its mask (mode L, nearest; 0 beyond the picture)."""
        is_mask = picture.mode == "L"
        filtering = Image.Resampling.NEAREST if is_mask else Image.Resampling.BILINEAR
        rescaled = picture.resize((self.width, self.height), filtering)
        canvas = Image.new(picture.mode, (self.resolution, self.resolution), 0 if is_mask else (PADDING,) * 3)
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
    """A random crop of a picture of (width, height) pixels.

    The picture's shorter side becomes `resolution` times a factor drawn log-uniformly from `scale`; the window lies
    uniformly where it overlaps the picture most; half of the crops are flipped where `flip` is true.
    """
    factor = np.exp(generator.uniform(*np.log(scale))) * resolution / min(width, height)
    rescaled = [max(1, round(side * factor)) for side in (width, height)]
    left, top = (int(generator.integers(min(0, side - resolution), max(0, side - resolution) + 1)) for side in rescaled)
    flipped = bool(generator.random() < 0.5) and flip
    return Crop(*rescaled, left=left, top=top, resolution=resolution, flipped=flipped)
