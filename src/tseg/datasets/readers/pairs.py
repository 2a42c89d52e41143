"""Pairs of an image and a phrase, masks optional, read into records: one's own data."""

import re
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from tseg.datasets.leakage import coco_id_of
from tseg.datasets.readers.annotations import OpenSplit, Record, RecordError, Skipped, make_record
from tseg.datasets.readers.pair_files import NEEDED, OPTIONAL, READERS, PairRow
from tseg.images import MAX_PIXELS
from tseg.records import encode_mask

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""What no file name, Parquet file or tokenizer takes: a null character, half of a surrogate pair."""


def open_pairs(annotations: Path, split: str) -> OpenSplit:
    """A record for each row of `<split>.csv`, `.parquet` or `.json` in the folder `annotations`; `train+more` is both.

    The columns are image, a path below the folders of images; phrase; and at will mask, a PNG below `annotations`
    (see `read_region`), and id. A JSON file has COCO's captions. A record without a mask has no box either. `file_name`
    and `image_id` are the image's path. Raises ValueError for a split that there is not or of which there are two
    files, and while items are drawn for a file that is damaged or has other columns.
    """
    paths = [split_path(annotations, part) for part in split.split("+")]
    rows = chain.from_iterable(READERS[path.suffix](path) for path in paths)
    return OpenSplit(rows, partial(read_pair, annotations), upright=True)


def split_path(annotations: Path, split: str) -> Path:
    """The file of one split. Raises ValueError that lists the splits there are."""
    paths = [annotations / f"{split}{suffix}" for suffix in READERS]
    there = [path for path in paths if path.is_file()]
    if len(there) > 1:
        raise ValueError(f"{there[0]} and {there[1]} are of one split; keep one of them")
    if not there:
        splits = sorted({path.stem for path in annotations.glob("*.*") if path.suffix in READERS})
        hint = f"choose among the splits there are: {', '.join(splits)}" if splits else "write one with image,phrase"
        raise ValueError(f"{paths[0]} does not exist, nor one of {', '.join(READERS)}; {hint}")
    return there[0]


def read_pair(annotations: Path, row: PairRow) -> Iterator[Record | Skipped]:
    """The record of one row, or why there is none."""
    file, number, values = row
    place = f"{Path(file).name}:{number}"
    try:
        if isinstance(values, str):
            raise RecordError(values)
        yield make_pair(annotations, place, values)
    except RecordError as reason:
        yield Skipped(Path(file), place, str(reason))


def make_pair(annotations: Path, place: str, values: Record) -> Record:
    """The record of the row at `place`, which is its id where it has no other. Raises RecordError."""
    image, phrase, mask, record_id = (text(values, column) for column in (*NEEDED, *OPTIONAL))
    for column, value in (("image", image), ("phrase", phrase)):
        if not value:
            raise RecordError(f"its {column} is missing; write it there")
    # The whole path: cats/1.jpg, dogs/1.jpg and cats/1.png are three images.
    image_id = below("image", image)
    region = read_region(annotations / below("mask", mask)) if mask else None
    return make_record(
        record_id=record_id or place,
        image_id=image_id,
        file_name=image_id,
        size=None if region is None else region.shape,
        expression=phrase,
        group_id=record_id or place,
        mask=None if region is None else encode_mask(region),
        tags=[],
        coco_id=coco_id_of(image_id),
    )


def text(values: Record, column: str) -> str:
    """What a row says in a column, '' where it says nothing. Raises RecordError for what is no text."""
    value = values.get(column)
    if type(value) is int and column == "id":
        return str(value)
    if value is None:
        return ""
    if not isinstance(value, str) or _NO_TEXT.search(value):
        raise RecordError(f"its {column} is not plain text; fix it")
    return value.strip()


def below(column: str, name: str) -> str:
    """The path `name`, unless it leads out of the folder that it starts in. Raises RecordError."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise RecordError(f"its {column} {name[:99]!r} leads out of its folder; write the path from there, without ..")
    if len(name.encode()) > 1000 or any(len(part.encode()) > 255 for part in path.parts):
        raise RecordError(f"its {column} {name[:99]!r} is too long for the name of a file; fix it")
    return str(path)


def read_region(path: Path) -> np.ndarray:
    """The pixels of a PNG that are not black, bool (H, W): black and white, greyscale or palette, of 8 bits at most.

    Raises RecordError.
    """
    if not path.is_file():
        raise RecordError(f"its mask {path} does not exist; put it there")
    try:
        with Image.open(path, formats=["PNG"]) as mask:
            if mask.width * mask.height > MAX_PIXELS or getattr(mask, "n_frames", 1) > 1:
                raise RecordError(f"its mask {path} is animated or of more than {MAX_PIXELS} pixels; fix it")
            mask.verify()  # the check sums, which decoding passes over
        with Image.open(path, formats=["PNG"]) as mask:
            if mask.mode not in ("1", "L", "P"):
                raise RecordError(f"its mask {path} has Pillow's mode {mask.mode}; save it black and white")
            values, seen = np.array(mask) > 0, np.array(mask.convert("RGB")).any(axis=2)
    except RecordError:
        raise
    except Exception as error:  # Pillow's decoders let many kinds through
        raise RecordError(f"its mask {path} cannot be read as a PNG ({error}); save it again") from error
    if (values != seen).any():  # an image editor has numbered the palette anew
        raise RecordError(f"its mask {path} has a palette in which 0 is not black, or another is; save it as greyscale")
    return values
