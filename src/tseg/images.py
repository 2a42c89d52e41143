"""Check image files, open them as RGB and normalise them for an encoder."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**27
"""Pillow refuses much larger images as decompression bombs."""

_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
"""Modes of at most 8 bits per channel; Pillow clips 16-bit grey at 255."""


class ImageError(Exception):
    """An image cannot be used; the message says why and how to fix it."""


@contextmanager
def usable_image(path: Path | str) -> Generator[Image.Image, None, None]:
    """Open an image without decoding it.

    Raises ImageError if it is too large, animated or has more than 8 bits per channel. Any error while the image is in
    use becomes an ImageError too.
    """
    try:
        with Image.open(path) as image:
            check_kind(image)
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image is too large ({error}); scale it down") from error
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise ImageError(f"the image cannot be read to its end ({error}); fetch it again") from error


def check_kind(image: Image.Image) -> None:
    """Raise ImageError unless the opened image is a single still image with at most 8 bits per channel."""
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}"
        raise ImageError(f"the image is too large ({size}); scale it down")
    # A camera's MPO file is one image, followed by a preview or a second view.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageError("the image is animated or one of several in its file; save it on its own")
    if image.mode not in _MODES:
        raise ImageError(f"the image has Pillow's mode {image.mode}; save it with 8 bits per channel")


def check_orientation(image: Image.Image) -> None:
    """Raise ImageError for an opened image with an EXIF rotation flag, which viewers apply and Pillow does not."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in range(2, 9):
        hint = "save it upright, as `mogrify -auto-orient` does"
        raise ImageError(f"the image is stored rotated or mirrored (EXIF orientation {orientation}); {hint}")


def open_image(path: Path | str) -> Image.Image:
    """Read an image as RGB without applying its EXIF rotation. Raises ValueError if it cannot be used."""
    try:
        with usable_image(path) as image:
            return image.convert("RGB")
    except ImageError as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalise an RGB image to float32 (3, H, W): (value / 255 - mean) / std, with `mean` and `std` per channel."""
    values = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)
    shift, unit = (np.array(channels, np.float32)[:, None, None] for channels in (mean, std))
    return (values / 255 - shift) / unit
