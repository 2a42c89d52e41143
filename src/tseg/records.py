"""The table every data set becomes: one record is one image and one expression.

All tables of the project (records, predictions, masks, scores) are Parquet files with a JSON object under the schema
key `tseg`, which says what the rows are about: the data set, the split, what the model was trained on.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from tseg.files import atomic_write, require_file
from tseg.progress import progress

SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),  # unique in the table
        ("image_id", pa.string()),  # records of one image share it
        ("file_name", pa.string()),  # path of the image, absolute or from the working directory
        ("height", pa.int32()),  # pixels
        ("width", pa.int32()),
        ("expression", pa.string()),
        ("group_id", pa.string()),  # records that describe the same region share it
        ("mask", pa.string()),  # COCO compressed RLE of (height, width), or null where none is drawn
        # x, y, width, height in pixels, or null with the mask; pyarrow cannot read a list of fixed size that is null.
        ("box", pa.list_(pa.float32())),
        ("ignore", pa.string()),  # RLE of pixels that do not count, or null
        ("tags", pa.list_(pa.string())),  # subsets that the data set's evaluator reports
        ("coco_id", pa.string()),  # the image's id in COCO, or null
    ]
)

ROWS_PER_GROUP = 10_000
"""Records that are held in memory until they are written: a row group of the file."""

BACKGROUND_LABEL = "background"
"""The label of pixels of no class."""

# What each sub-command is the first to tell of its rows.
_TELLS = {"prepare": "sources", "predict": "scales", "refine": "crf"}


def write_table(path: Path, table: pa.Table, metadata: dict[str, Any]) -> None:
    """Write `table` to `path`, whole or not at all, with `metadata` under the schema key `tseg`."""
    text = json.dumps(metadata, sort_keys=True)
    with atomic_write(path) as partial:
        pq.write_table(table.replace_schema_metadata({"tseg": text}), partial)


def read_table(path: Path, hint: str = "run the rule that makes it") -> pd.DataFrame:
    """The rows of the Parquet file `path`; `hint` is said to whoever has not got it."""
    try:
        return pq.read_table(require_file(path, hint)).to_pandas()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a whole Parquet file ({error}); {hint}") from None


def read_metadata(path: Path, maker: str = "prepare") -> dict[str, Any]:
    """What `write_table` was told of the rows in `path`.

    Raises ValueError for a file that is not of the kind that the sub-command `maker` writes.
    """
    hint = f"give a file that `tseg {maker}` wrote"
    try:
        metadata = pq.read_metadata(require_file(path, hint)).metadata or {}
    except pa.ArrowInvalid:
        metadata = {}
    told = json.loads(metadata.get(b"tseg", b"{}"))
    if _TELLS[maker] not in told:
        raise ValueError(f"{path} is of another kind; {hint}")
    return told


def write_records(path: Path, records: list[dict[str, Any]], metadata: dict[str, Any]) -> None:
    """Write rows with exactly the columns of `SCHEMA`, whole or not at all, with `metadata` as `write_table` does."""
    with atomic_write(path) as partial, RecordsWriter(partial) as writer:
        writer.write(pa.Table.from_pylist(records, schema=SCHEMA))
        writer.metadata = metadata


class RecordsWriter:
    """A file of records that is written little by little; `metadata` may be set until it is closed."""

    def __init__(self, path: Path):
        self.writer = pq.ParquetWriter(path, SCHEMA)
        self.waiting = SCHEMA.empty_table()
        self.metadata: dict[str, Any] = {}

    def write(self, records: pa.Table) -> None:
        """Append records, a table of `SCHEMA`. The file does not depend on how many come at a time."""
        self.waiting = pa.concat_tables([self.waiting, records])
        while len(self.waiting) >= ROWS_PER_GROUP:
            self.writer.write_table(self.waiting[:ROWS_PER_GROUP])
            self.waiting = self.waiting[ROWS_PER_GROUP:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is None:
            self.writer.write_table(self.waiting)
            self.writer.add_key_value_metadata({"tseg": json.dumps(self.metadata, sort_keys=True)})
        self.writer.close()


def read_records(path: Path) -> pd.DataFrame:
    """Records in file order. Raises ValueError when a column is missing or the table is empty."""
    records = read_table(path, hint="make it with `tseg prepare`")
    missing = [name for name in SCHEMA.names if name not in records.columns]
    if missing:
        raise ValueError(f"{path} lacks the column {missing[0]!r}; make it again with `tseg prepare`")
    if records.empty:
        raise ValueError(f"{path} holds no record; its .skipped.csv says why")
    return records


def images_of(records: pd.DataFrame, what: str) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """Each image's file name, records and distinct expressions, under a progress bar that says `what` is done."""
    images = records.groupby("file_name", sort=False)
    for file_name, of_image in progress(images, what, "images", images.ngroups):
        yield str(file_name), of_image, list(dict.fromkeys(of_image["expression"]))


def encode_mask(mask: np.ndarray) -> str:
    """COCO compressed run lengths of a boolean mask (H, W)."""
    counts: Any = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts.decode("ascii")


def decode_mask(counts: str, height: int, width: int) -> np.ndarray:
    """The boolean mask (height, width) of COCO compressed run lengths."""
    return coco_mask.decode({"counts": counts.encode("ascii"), "size": [height, width]}).astype(bool)
