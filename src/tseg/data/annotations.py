"""What the readers of official annotation files share: JSON, fields, polygons, the record they make."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from tseg.files import existing

Record = dict[str, Any]
T = TypeVar("T")

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**27  # beyond this Pillow takes a picture for an attack
MAX_COORDINATE = 1e5  # pixels; far outside any picture, and well inside what the C rasterisers count with


class RecordError(Exception):
    """Why one record is left out and what mends it; the other records are kept."""


class Skipped(NamedTuple):
    """One record that was left out: a row of the `.skipped.csv` that lies beside the records."""

    file: Path
    record: str
    reason: str


def read_json(path: Path, kind: type[T], object_hook: Callable[[Record], Record] | None = None) -> T:
    """The content of `path`, a `kind`: a dict, or a list of dicts. Raises ValueError when it is not that."""
    text = existing(path, "place the annotation files of the data set there").read_bytes()
    try:
        content = json.loads(text, object_hook=object_hook)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); fetch it again") from error
    items = content if isinstance(content, list) else []
    if not isinstance(content, kind) or not all(isinstance(item, dict) for item in items):
        wanted = "a list of objects" if kind is list else "an object"
        raise ValueError(f"{path} does not hold {wanted}; place the official file there")
    return content


def field(item: Record, key: str, kind: type[T]) -> T:
    """`item[key]`, a `kind`. Raises RecordError when it is not that."""
    if not isinstance(item.get(key), kind):
        raise RecordError(f"its {key} is missing or not of type {kind.__name__}; mend it in the file")
    return item[key]


def index(items: Iterable[Record], key: str) -> dict[str, Record]:
    """The items by their `key`, an id: the official files write ids as numbers, records as strings."""
    return {str(item[key]): item for item in items if key in item}


def picture_size(pictures: dict[str, Record], image_id: str, file: str) -> tuple[int, int]:
    """Height and width, in pixels, that `pictures` (read from `file`) gives a picture. Raises RecordError."""
    if image_id not in pictures:
        raise RecordError(f"its picture {image_id} is not in {file}; add its size there")
    height, width = field(pictures[image_id], "height", int), field(pictures[image_id], "width", int)
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise RecordError(f"its picture cannot be {width} x {height} pixels; mend the size in {file}")
    return height, width


def polygon_points(polygon: Any) -> np.ndarray:
    """The points (P, 2), float64, x before y, of [[x, y], ...] or [x, y, x, y, ...]. Raises RecordError."""
    try:
        points = np.array(polygon, dtype=np.float64)
        points = points.reshape(-1, 2) if points.ndim == 1 else points
        if points.shape != (len(points), 2) or not (np.abs(points) <= MAX_COORDINATE).all():  # a NaN fails too
            raise ValueError(points.shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise RecordError("one of its polygons is not a list of points x, y; mend the polygon") from error
    return points


def make_record(
    *,
    record_id: str,
    image_id: str,
    file_name: str,
    size: tuple[int, int],
    expression: str,
    group_id: str,
    mask: str,
    tags: list[str],
    box: list[float] | None = None,
    ignore: str | None = None,
    coco_id: str | None = None,
) -> Record:
    """A row of `tseg.records.SCHEMA`.

    `size` is (height, width) in pixels, `mask` a compressed RLE, `box` the mask's own if none is given, `ignore`
    the RLE of the pixels that do not count, `coco_id` the picture's id in COCO if it is known to have one.
    Raises RecordError for an expression without a word and for a mask without a pixel.
    """
    words = expression.split()
    if not words:
        raise RecordError("its expression is empty; write one")
    mask_box = coco_mask.toBbox({"size": list(size), "counts": mask.encode("ascii")}).tolist()
    if not all(mask_box[2:]):
        raise RecordError("its mask is empty; draw the region inside the picture")
    return {
        "record_id": record_id,
        "image_id": image_id,
        "file_name": file_name,
        "height": size[0],
        "width": size[1],
        "expression": " ".join(words),
        "group_id": group_id,
        "mask": mask,
        "box": box or mask_box,
        "ignore": ignore,
        "tags": tags,
        "coco_id": coco_id,
    }
