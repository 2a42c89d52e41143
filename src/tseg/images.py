"""Check image files, open them as RGB and normalise them for an encoder."""

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**27
"""Pillow refuses much larger images as decompression bombs."""

_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
"""Modes of at most 8 bits per channel; Pillow clips 16-bit grey at 255."""

UPRIGHT = 1
"""The EXIF orientation of an image that viewers show as it is stored."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(Exception):
    """An image cannot be used; the message says why and how to fix it."""


@contextmanager
def usable_image(path: Path | str | IO[bytes]) -> Generator[Image.Image, None, None]:
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
    except FileNotFoundError:
        raise ImageError("there is no such file; correct its path") from None
    except UnidentifiedImageError:
        raise ImageError(
            "the image is of no format that Pillow reads (JPEG, PNG, WebP, TIFF and more); fetch it again or convert it"
        ) from None
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


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an image whose pixels are loaded, 1 to 8; 1, upright, if it has none.

    Raises ImageError if the EXIF data are damaged.
    """
    try:
        # Reading `getexif` alone is not enough: Pillow forgets an error that occurred while it opened the file.
        Image.Exif().load(image.info.get("exif", b""))
        orientation = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception as error:  # Pillow raises errors of many types
        reason = f"the image has damaged EXIF data ({error}), which may say how to turn it"
        raise ImageError(f"{reason}; remove the EXIF data or save the image again") from error
    return orientation if orientation in _TURNS else UPRIGHT


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Turn or mirror stored pixels as viewers do for an EXIF `orientation`, 1 to 8."""
    return image if orientation == UPRIGHT else image.transpose(_TURNS[orientation])


def turned_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width of a turned image, from those of its stored pixels."""
    return (height, width) if orientation < 5 else (width, height)


def turned_box(box: Sequence[float], height: int, width: int, orientation: int) -> list[float]:
    """Turn a box (x, y, width, height) with its image of `height` x `width` stored pixels."""
    left, top, box_width, box_height = box
    if orientation >= 5:
        left, top, box_width, box_height, height, width = top, left, box_height, box_width, width, height
    left = width - left - box_width if orientation in (2, 3, 6, 7) else left
    top = height - top - box_height if orientation in (3, 4, 7, 8) else top
    return [left, top, box_width, box_height]


def open_image(
    path: Path | str, *, size: tuple[int, int] | None = None, shorter_side: float | None = None
) -> Image.Image:
    """Read an image as RGB, turned as its EXIF orientation says and viewers show it.

    Training, prediction and figures read every image here. `size` is the width and height that its record has. If its
    shorter side will be seen at `shorter_side` pixels, a JPEG file is decoded at a half, a quarter or an eighth of its
    size where that leaves as many. Raises ValueError if the image cannot be used, or has another size.
    """
    try:
        with usable_image(path) as image:
            stored = image.height, image.width
            if shorter_side is not None:
                shorter, wanted = min(image.size), math.ceil(shorter_side)
                image.draft("RGB", (image.width * wanted // shorter, image.height * wanted // shorter))
            image.load()
            orientation = orientation_of(image)
            seen = as_seen(image, orientation)
    except ImageError as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    height, width = turned_size(*stored, orientation)
    if size not in (None, (width, height)):
        raise ValueError(
            f"{path} has {width} x {height} pixels, and {size[0]} x {size[1]} in the records, which were made of "
            "another version of it; prepare them again"
        )
    return seen


def as_seen(image: Image.Image, orientation: int) -> Image.Image:
    """An image as RGB, turned and opaque as viewers show it.

    ASSUME: what is transparent shows white; its stored colour is arbitrary.
    """
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    upright = turned(image if image.mode == "RGB" else image.convert("RGB"), orientation)
    # The orientation is applied.
    upright.info.clear()
    upright.getexif().clear()
    return upright


def normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalise an RGB image to float32 (3, H, W): (value / 255 - mean) / std, with `mean` and `std` per channel."""
    values = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)
    shift, unit = (np.array(channels, np.float32)[:, None, None] for channels in (mean, std))
    return (values / 255 - shift) / unit
