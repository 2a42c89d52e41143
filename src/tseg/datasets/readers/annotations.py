"""What the readers of annotation files share: a split, its fields and polygons, the record they make."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pycocotools import mask as coco_mask

from tseg.images import MAX_PIXELS

Record = dict[str, Any]
T = TypeVar("T")

MAX_COORDINATE = 1e5  # pixels; far outside any image, and well inside what the C rasterisers count with
MAX_OUTLINE = 1e6  # pixels along the polygons of a region; pycocotools holds several points for each


class RecordError(Exception):
    """Why one record is left out and what fixes it; the other records are kept."""


class Skipped(NamedTuple):
    """One record that was left out: a row of the `.skipped.csv` that lies beside the records."""

    file: Path
    record: str
    reason: str


class OpenSplit(NamedTuple):
    """A split as a reader of its format opens it: what to read, and how.

    A bad file raises ValueError when the split is opened or while `items` is drawn; a bad record is `Skipped`.
    """

    items: Iterable[Any]
    """In file order, each small and picklable; they are drawn one by one, never held together."""
    read: Callable[[Any], Iterator[Record | Skipped]]
    """What becomes of one item: its records, in order. Picklable and pure: worker processes run it."""
    upright: bool = False
    """Images are meant as a viewer turns them, not as they are stored: one that must be turned is refused."""


def field(item: Record, key: str, kind: type[T]) -> T:
    """`item[key]`, a `kind`. Raises RecordError when it is not that."""
    if not isinstance(item.get(key), kind):
        raise RecordError(f"its {key} is missing or not of type {kind.__name__}; fix it in the file")
    return item[key]


def image_size(image: Record | None, image_id: str, file: str) -> tuple[int, int]:
    """Height and width, in pixels, of an image as `file` describes it, None: not at all. Raises RecordError."""
    if image is None:
        raise RecordError(f"its image {image_id} is not in {file}; add its size there")
    height, width = field(image, "height", int), field(image, "width", int)
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise RecordError(f"its image cannot be {width} x {height} pixels; fix the size in {file}")
    return height, width


def polygon_points(polygon: Any) -> np.ndarray:
    """The points (P, 2), float64, x before y, of [[x, y], ...] or [x, y, x, y, ...]. Raises RecordError."""
    try:
        points = np.array(polygon, dtype=np.float64)
        points = points.reshape(-1, 2) if points.ndim == 1 else points
        if points.shape != (len(points), 2) or not (np.abs(points) <= MAX_COORDINATE).all():  # a NaN fails too
            raise ValueError(points.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecordError("one of its polygons is not a list of points x, y; fix the polygon") from error
    return points


def region_points(polygons: Iterable[Any]) -> list[np.ndarray]:
    """The `polygon_points` of all polygons of a region. Raises RecordError also when they run on and on."""
    region = [polygon_points(polygon) for polygon in polygons]
    if sum(np.abs(np.diff(points, axis=0)).max(axis=1, initial=0).sum() for points in region) > MAX_OUTLINE:
        raise RecordError(f"its polygons run for more than {MAX_OUTLINE:,.0f} pixels; fix them")
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
    """A row of `tseg.records.RECORDS`.

    `size` is (height, width) in pixels, None where only the image tells it; `mask` a compressed RLE of that size,
    or None where none is drawn; `box` the mask's own if none is given; `ignore` the RLE of the pixels that do not
    count; `coco_id` the image's id in COCO if it is known to have one.
    Raises RecordError for an expression without a word, for a mask without a pixel, and for what is no text.
    """
    words = expression.split()
    if not words:
        raise RecordError("its expression is empty; write one")
    try:
        "".join([record_id, image_id, file_name, expression, group_id]).encode()
    except UnicodeEncodeError as error:
        raise RecordError("its expression or one of its names holds half of a surrogate pair; fix it") from error
    height, width = size or (None, None)
    drawn_box = None if mask is None else mask_box(mask, size)
    return {
        "record_id": record_id,
        "image_id": image_id,
        "file_name": file_name,
        "height": height,
        "width": width,
        "expression": " ".join(words),
        "group_id": group_id,
        "mask": mask,
        "box": box or drawn_box,
        "ignore": ignore,
        "tags": tags,
        "coco_id": coco_id,
    }


def mask_box(mask: str, size: tuple[int, int] | None) -> list[float]:
    """The box x, y, width, height, in pixels, of a compressed RLE. Raises RecordError when no pixel is set."""
    assert size is not None, "run lengths mean nothing without a size"
    box = coco_mask.toBbox({"size": list(size), "counts": mask.encode("ascii")}).tolist()
    if not all(box[2:]):
        raise RecordError("its mask is empty; draw the region inside the image")
    return box
