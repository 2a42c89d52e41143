"""Image files: checked, opened as RGB, and normalised for an encoder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**27
"""Beyond this Pillow takes an image for an attack."""

_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
"""Of at most 8 bits a channel; Pillow cuts off what a 16-bit grey exceeds 255 by."""


class ImageError(Exception):
    """Why an image cannot be used, and what fixes it."""


@contextmanager
def usable_image(path: Path | str) -> Iterator[Image.Image]:
    """The image, not decoded yet. Raises ImageError for one that is too large, animated or of more than 8 bits.

    What goes wrong while the image is in use becomes a ImageError too.
    """
    try:
        with Image.open(path) as image:
            check_kind(image)
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image is too large ({error}); scale it down") from error
    except Exception as error:  # Pillow's decoders let many kinds through
        raise ImageError(f"the image cannot be read to its end ({error}); fetch it again") from error


def check_kind(image: Image.Image) -> None:
    """Raise ImageError unless the image, opened, not decoded, is one still image of 8 bits a channel."""
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}"
        raise ImageError(f"the image is too large ({size}); scale it down")
    # A camera's MPO is one image, with the preview or the other eye's view after it.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageError("the image is animated or one of several in its file; save the one that is meant alone")
    if image.mode not in _MODES:
        raise ImageError(f"the image has Pillow's mode {image.mode}; save it with 8 bits a channel")


def check_orientation(image: Image.Image) -> None:
    """Raise ImageError for an opened image that a viewer turns or mirrors before it shows it."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in range(2, 9):
        hint = "save it upright, as `mogrify -auto-orient` does"
        raise ImageError(f"the image is stored turned or mirrored (EXIF orientation {orientation}); {hint}")


def open_image(path: Path | str) -> Image.Image:
    """The image as RGB, decoded, its pixels as they are stored. Raises ValueError naming one that cannot be used."""
    try:
        with usable_image(path) as image:
            return image.convert("RGB")
    except ImageError as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The image as float32 (3, H, W): (value / 255 - mean) / std, `mean` and `std` one number per channel."""
    values = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)
    shift, unit = (np.array(numbers, np.float32)[:, None, None] for numbers in (mean, std))
    return (values / 255 - shift) / unit
