"""What users give a segmenter: images in many forms, and phrases."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from tseg.expressions import clean_expression
from tseg.images import UPRIGHT, ImageError, as_seen, check_kind, open_image, orientation_of, usable_image

ImageLike: TypeAlias = str | Path | bytes | Image.Image | np.ndarray
"""A path, the bytes of a file, Pillow's image of any mode, or an array, uint8 (H, W), (H, W, 3) or (H, W, 4)."""
_CHANNELS = (1, 3, 4)
"""Grey, RGB and RGBA."""


def read_image(source: object) -> Image.Image:
    """What is `ImageLike` as RGB, turned and opaque as viewers show it.

    Raises ValueError if it cannot be read, and TypeError if it is nothing of the kind.
    """
    if isinstance(source, str | Path):
        return open_image(source)
    try:
        if isinstance(source, bytes):
            with usable_image(BytesIO(source)) as image:
                image.load()
                return as_seen(image, orientation_of(image))
        if isinstance(source, np.ndarray):
            return as_seen(_of_array(source), UPRIGHT)
        if isinstance(source, Image.Image):
            check_kind(source)
            image = source.copy()  # which has no file to close
            return as_seen(image, orientation_of(image))
    except (ImageError, OSError, ValueError) as error:
        raise ValueError(f"the image cannot be read: {error}") from error
    given = f"{type(source).__name__} is no image"
    raise TypeError(f"{given}; give a path, the bytes of a file, an image of Pillow or an array")


def _of_array(values: np.ndarray) -> Image.Image:
    *size, channels = values.shape if values.ndim == 3 else (*values.shape, 1)
    if values.dtype != np.uint8 or len(size) != 2 or channels not in _CHANNELS or not values.size:
        raise ImageError(
            f"the array is {values.dtype} {values.shape}; give uint8 (H, W), (H, W, 3) or (H, W, 4), from 0 to 255"
        )
    return Image.fromarray(values.reshape(size) if channels == 1 else np.ascontiguousarray(values))


def read_phrases(phrases: object) -> list[str]:
    """One or several phrases, cleaned as `tseg prepare` cleans the expressions of training.

    Raises ValueError if there is none, or if nothing of one can be seen; TypeError if one is no text.
    """
    if not isinstance(phrases, str | Sequence):
        raise TypeError(f"{phrases!r} is no phrase; give text, or a list of it")
    several: Sequence[Any] = [phrases] if isinstance(phrases, str) else phrases
    if not several:
        raise ValueError("there is no phrase; name what to look for")
    for phrase in several:
        if not isinstance(phrase, str):
            raise TypeError(f"{phrase!r} is no phrase; give text")
    cleaned = [clean_expression(phrase) for phrase in several]
    for phrase, seen in zip(several, cleaned, strict=True):
        if not seen:
            raise ValueError(f"the phrase {phrase!r} is empty; name what to look for")
    return cleaned
