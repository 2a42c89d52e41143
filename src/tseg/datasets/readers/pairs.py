"""Read pairs of an image and a phrase, optionally with a mask: the format for your own data."""

import re
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image

from tseg.datasets.leakage import coco_id_of
from tseg.datasets.readers.annotations import OpenSplit, Record, RecordError, Skipped, make_record
from tseg.datasets.readers.find import find_file
from tseg.datasets.readers.pair_files import OPTIONAL, READERS, REQUIRED, PairRow
from tseg.files import require_file
from tseg.images import MAX_PIXELS
from tseg.records import encode_mask

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that file names, Parquet files and tokenizers reject: null and unpaired surrogates."""


def open_pairs(annotations: Path, split: str) -> OpenSplit:
    """Open `<split>.csv`, `.parquet` or `.json` in `annotations`, one record per row; `train+more` joins two splits.

    Columns: `image`, a path below an image folder; `phrase`; optionally `mask`, a PNG below `annotations` (see
    `read_region`), and `id`. A JSON file holds captions in COCO's format. A record without a mask has no box.
    `file_name` and `image_id` are the path of the image.

    Raises ValueError if a split is missing or has two files, and during iteration if a file is damaged or has other
    columns.
    """
    paths = [split_path(annotations, part) for part in split.split("+")]
    rows = chain.from_iterable(READERS[path.suffix](path) for path in paths)
    return OpenSplit(rows, partial(read_pair, annotations), upright=True)


def split_path(annotations: Path, split: str) -> Path:
    """The file of one split. Raises ValueError that lists the existing splits."""
    paths = [annotations / f"{split}{suffix}" for suffix in READERS]
    existing = [path for path in paths if path.is_file()]
    if len(existing) > 1:
        raise ValueError(f"{existing[0]} and {existing[1]} are the same split; keep one of them")
    if not existing:
        splits = sorted({path.stem for path in annotations.glob("*.*") if path.suffix in READERS})
        hint = f"choose one of {', '.join(splits)}" if splits else "write a table with the columns image,phrase"
        raise ValueError(f"{annotations / split} does not exist with any suffix of {', '.join(READERS)}; {hint}")
    return require_file(existing[0], "restore it")


def read_pair(annotations: Path, row: PairRow) -> Iterator[Record | Skipped]:
    """The record of one row, or why it is skipped."""
    file, number, values = row
    row_id = f"{Path(file).name}:{number}"
    try:
        if isinstance(values, str):
            raise RecordError(values)
        yield make_pair(annotations, row_id, values)
    except RecordError as reason:
        yield Skipped(Path(file), row_id, str(reason))


def make_pair(annotations: Path, row_id: str, values: Record) -> Record:
    """The record of a row; `row_id` is its id unless the row has its own. Raises RecordError."""
    image, phrase, mask, record_id = (text(values, column) for column in (*REQUIRED, *OPTIONAL))
    for column, value in (("image", image), ("phrase", phrase)):
        if not value:
            raise RecordError(f"its column {column!r} is empty; fill it in")
    # The id is the whole path: cats/1.jpg, dogs/1.jpg and cats/1.png are three images.
    image_id = relative_path("image", image)
    region = read_region(find_mask(annotations, relative_path("mask", mask))) if mask else None
    return make_record(
        record_id=record_id or row_id,
        image_id=image_id,
        file_name=image_id,
        size=None if region is None else region.shape,
        expression=phrase,
        group_id=record_id or row_id,
        mask=None if region is None else encode_mask(region),
        tags=[],
        coco_id=coco_id_of(image_id),
    )


def text(values: Record, column: str) -> str:
    """The text of a row in a column, or '' if the row has none. Raises RecordError for values that are not text."""
    value = values.get(column)
    if type(value) is int and column == "id":
        return str(value)
    if value is None:
        return ""
    if not isinstance(value, str) or _NO_TEXT.search(value):
        raise RecordError(f"its {column} is not plain text; write it as text")
    return value.strip()


def relative_path(column: str, name: str) -> str:
    """Normalise the path `name`, also one of Windows. Raises RecordError if it leaves its folder or is too long."""
    of_windows = PureWindowsPath(name)
    path = PurePosixPath(of_windows.as_posix() if "\\" in name else name)
    if path.is_absolute() or (of_windows.drive and of_windows.root):
        hint = f"write only the part below its folder, such as {of_windows.name!r}"
        raise RecordError(f"its {column} {name[:99]!r} is an absolute path; {hint}")
    if ".." in path.parts:
        raise RecordError(f"its {column} {name[:99]!r} leaves its folder; write a relative path without ..")
    if len(name.encode()) > 1000 or any(len(part.encode()) > 255 for part in path.parts):
        raise RecordError(f"its {column} {name[:99]!r} is too long for a file name; shorten it")
    return str(path)


def find_mask(annotations: Path, name: str) -> Path:
    """The path of a mask, found like an image. Raises RecordError."""
    try:
        return find_file(name, [annotations], "add the file or correct its path")[0]
    except RecordError as error:
        raise RecordError(f"its mask {name[:99]!r} {error}") from None


def read_region(path: Path) -> np.ndarray:
    """Read a mask, bool (H, W): the pixels of a PNG that are not black.

    The PNG is black and white, greyscale or palette, with at most 8 bits per pixel. Raises RecordError.
    """
    try:
        with Image.open(path, formats=["PNG"]) as mask:
            if mask.width * mask.height > MAX_PIXELS or getattr(mask, "n_frames", 1) > 1:
                raise RecordError(
                    f"its mask {path} is animated or has over {MAX_PIXELS:,} pixels; save one smaller image"
                )
            mask.verify()  # checks the CRCs, which decoding ignores
        with Image.open(path, formats=["PNG"]) as mask:
            if mask.mode not in ("1", "L", "P"):
                raise RecordError(f"its mask {path} has Pillow's mode {mask.mode}; save it in black and white")
            values, seen = np.array(mask) > 0, np.array(mask.convert("RGB")).any(axis=2)
    except RecordError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise RecordError(f"its mask {path} cannot be read as a PNG ({error}); save it again") from error
    if (values != seen).any():  # some image editors renumber the palette
        raise RecordError(f"its mask {path} has a palette in which index 0 is not the only black; save it as greyscale")
    return values
