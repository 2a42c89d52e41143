"""Check the image of a record, and bring the record's region into the image's frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tseg.datasets.readers.annotations import Record, RecordError, Skipped
from tseg.datasets.readers.find import find_file
from tseg.images import UPRIGHT, ImageError, orientation_of, turned, turned_box, turned_size, usable_image
from tseg.records import decode_mask, encode_mask


class CheckedImage(NamedTuple):
    """A checked image, and its fault, or an empty string if it has none."""

    path: str
    name: str
    """Its path below its folder, as it is spelt on the disk."""
    size: tuple[int, int] = (0, 0)
    """Height and width of the stored pixels."""
    orientation: int = UPRIGHT
    """How EXIF turns the stored pixels, 1 to 8."""
    fault: str = ""


def check_image(name: str, images: Sequence[Path]) -> CheckedImage:
    """Find the image `name` in the folders `images` (see `find_file`), and check that it can be decoded."""
    try:
        path, name = find_file(name, images, "fetch it into one of them or correct its path")
    except RecordError as error:
        return CheckedImage(name, name, fault=f"the image {error}")
    try:
        with usable_image(path) as image:
            width, height = image.size
            image.draft("L", (1, 1))  # of a JPEG, all data is read but only a thumbnail decoded
            image.load()
            orientation = orientation_of(image)
    except ImageError as error:
        return CheckedImage(str(path), name, fault=str(error))
    return CheckedImage(str(path), name, (height, width), orientation)


def with_image(record: Record, image: CheckedImage, upright: bool) -> Record | Skipped:
    """The record with its image's path, and with the size and the region of the turned image; or why it is skipped.

    `tseg.images.open_image` turns every image. The record's own size says which pixels its annotators saw: those of the
    turned image or, if only these fit, the stored ones; then its masks and its box turn with the image. If both fit (a
    square, or a turn by 180 degrees), `upright` tells which they saw. A record without a size has no region.
    """
    stored, orientation = image.size, image.orientation
    viewed = turned_size(*stored, orientation)
    size = viewed if record["height"] is None else (record["height"], record["width"])
    fault = image.fault
    if not fault and size not in (stored, viewed):
        found = f"{viewed[1]} x {viewed[0]}"
        found += f" ({stored[1]} x {stored[0]} before EXIF turns it)" if stored != viewed else ""
        fault = f"its annotation is for an image of {size[1]} x {size[0]} pixels, but the image has {found}; "
        fault += "fetch the original image"
    if fault:
        return Skipped(Path(image.path), record["record_id"], fault)
    # ASSUME: official formats belong to the stored pixels, as their own tools ignore EXIF; pairs to what viewers show.
    on_stored = size != viewed or (size == stored and not upright)
    if on_stored and orientation != UPRIGHT:
        record = record | _turned_region(record, orientation)
    # Where a path is the id of an image, two spellings of it are one image.
    ids = {"image_id": image.name} if record["image_id"] == record["file_name"] else {}
    return record | ids | {"file_name": image.path, "height": viewed[0], "width": viewed[1]}


def _turned_region(record: Record, orientation: int) -> Record:
    """The masks and the box of a record, turned with its image."""
    height, width = record["height"], record["width"]

    def turn(mask: str | None) -> str | None:
        if mask is None:
            return None
        pixels = Image.fromarray(decode_mask(mask, height, width))
        return encode_mask(np.asarray(turned(pixels, orientation)))

    box = record["box"] and turned_box(record["box"], height, width, orientation)
    return {"mask": turn(record["mask"]), "ignore": turn(record["ignore"]), "box": box}
