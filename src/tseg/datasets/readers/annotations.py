"""What all readers share: the open split, checks of fields and polygons, and `make_record`."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pycocotools import mask as coco_mask

from tseg.expressions import clean_expression
from tseg.images import MAX_PIXELS

Record = dict[str, Any]
T = TypeVar("T")

MAX_COORDINATE = 1e5  # pixels; far outside any image, yet safe for rasterisers written in C
MAX_OUTLINE = 1e6  # pixels, total length of a region's polygons; pycocotools stores several points per pixel


class RecordError(Exception):
    """Why one record is skipped, and how to fix it. The other records are kept."""


class Skipped(NamedTuple):
    """One skipped record: a row of the `.skipped.csv` beside the records."""

    file: Path
    record: str
    reason: str


class OpenSplit(NamedTuple):
    """A split that a reader has opened: what to read, and how.

    A bad file raises ValueError, either when the split is opened or during iteration over `items`. A bad record is
    `Skipped`.
    """

    items: Iterable[Any]
    """Small, picklable items in file order; streamed, so never all in memory."""
    read: Callable[[Any], Iterator[Record | Skipped]]
    """Turn one item into its records, in order; picklable and pure, as worker processes call it."""
    upright: bool = False
    """Whether annotators saw images turned by their EXIF orientation, as viewers show them, or their stored pixels.

    It decides only if the size of an annotation fits both.
    """
    name_ranks: str | None = None
    """The file whose counts rank category names, for the subsets of PhraseCut's evaluator."""


def field(item: Record, key: str, kind: type[T]) -> T:
    """Return `item[key]`. Raises RecordError unless it is a `kind`."""
    if not isinstance(item.get(key), kind):
        raise RecordError(f"its {key} is missing or not of type {kind.__name__}; correct it in the file")
    return item[key]


def image_size(image: Record | None, image_id: str, file: str) -> tuple[int, int]:
    """Return the height and width, in pixels, of an image entry.

    Raises RecordError if the size is invalid, or if `image` is None because `file` does not list the image.
    """
    if image is None:
        raise RecordError(f"its image {image_id} is not in {file}; add the image there")
    height, width = field(image, "height", int), field(image, "width", int)
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise RecordError(f"its image cannot be {width} x {height} pixels; correct the size in {file}")
    return height, width


def polygon_points(polygon: Any) -> np.ndarray:
    """Convert [[x, y], ...] or [x, y, x, y, ...] to points x, y (P, 2), float64. Raises RecordError."""
    try:
        points = np.array(polygon, dtype=np.float64)
        points = points.reshape(-1, 2) if points.ndim == 1 else points
        if points.shape != (len(points), 2) or not (np.abs(points) <= MAX_COORDINATE).all():  # a NaN fails too
            raise ValueError(points.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecordError("one of its polygons is not a list of points x, y; correct the polygon") from error
    return points


def region_points(polygons: Iterable[Any]) -> list[np.ndarray]:
    """Apply `polygon_points` to all polygons of a region. Raises RecordError, also if they are too long in total."""
    region = [polygon_points(polygon) for polygon in polygons]
    if sum(np.abs(np.diff(points, axis=0)).max(axis=1, initial=0).sum() for points in region) > MAX_OUTLINE:
        raise RecordError(f"its polygons are longer than {MAX_OUTLINE:,.0f} pixels in total; simplify them")
    return region


def make_record(
    *,
    record_id: str,
    image_id: str,
    file_name: str,
    size: tuple[int, int] | None,
    expression: str,
    group_id: str,
    mask: str | None,
    tags: list[str],
    box: list[float] | None = None,
    ignore: str | None = None,
    coco_id: str | None = None,
) -> Record:
    """Make a row of `tseg.records.RECORDS`.

    `size`: (height, width) in pixels; None: to be read from the image file.
    `mask`: compressed RLE of that size; None: the record has no mask.
    `box`: x, y, width, height in pixels. Default: the box of the mask.
    `ignore`: RLE of the pixels to exclude from evaluation.
    `coco_id`: the image's COCO id, if known.

    The expression is cleaned (`clean_expression`). Raises RecordError for an expression or a mask that is empty and
    for text that cannot be encoded.
    """
    cleaned = clean_expression(expression)
    if not cleaned:
        fault = "has no letter, digit or symbol that can be seen" if expression.strip() else "is empty"
        raise RecordError(f"its expression {fault}; write one")
    try:
        "".join([record_id, image_id, file_name, expression, group_id]).encode()
    except UnicodeEncodeError as error:
        raise RecordError("its expression or one of its names has an unpaired surrogate; remove it") from error
    height, width = size or (None, None)
    drawn_box = None if mask is None else mask_box(mask, size)
    return {
        "record_id": record_id,
        "image_id": image_id,
        "file_name": file_name,
        "height": height,
        "width": width,
        "expression": cleaned,
        "group_id": group_id,
        "mask": mask,
        "box": box or drawn_box,
        "ignore": ignore,
        "tags": tags,
        "coco_id": coco_id,
    }


def mask_box(mask: str, size: tuple[int, int] | None) -> list[float]:
    """The box x, y, width, height, in pixels, of a compressed RLE. Raises RecordError if the mask is empty."""
    assert size is not None, "run lengths need a size"
    box = coco_mask.toBbox({"size": list(size), "counts": mask.encode("ascii")}).tolist()
    # ASSUME: left out, as its IoU is 0 whatever is predicted.
    if not all(box[2:]):
        raise RecordError("its mask is empty; draw the region inside the image")
    return box
