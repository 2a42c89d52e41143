"""The workflow's Parquet files: their schemas, and reading and writing them with their provenance.

A record is one image and one expression, with a mask or a box if the data set has one. The schema metadata of each
file holds, under the key `tseg`, its `tseg.provenance.Provenance` as JSON.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from tseg.files import atomic_write, require_file
from tseg.parts import Parts, tables_of
from tseg.provenance import Provenance, RecordsProvenance

RECORDS = pa.schema(
    [
        ("record_id", pa.string()),  # unique in the table
        ("image_id", pa.string()),  # shared by the records of one image
        ("file_name", pa.string()),  # path of the image, absolute or from the working directory
        ("height", pa.int32()),  # pixels
        ("width", pa.int32()),
        ("expression", pa.string()),
        ("group_id", pa.string()),  # shared by the records that describe one region
        ("mask", pa.string()),  # COCO compressed RLE of (height, width); null without one
        # x, y, width, height in pixels; null if the mask is. pyarrow cannot read a null list of fixed size.
        ("box", pa.list_(pa.float32())),
        ("ignore", pa.string()),  # RLE of the pixels that scores exclude; null without any
        ("tags", pa.list_(pa.string())),  # subsets that the data set's evaluator reports
        ("coco_id", pa.string()),  # the image's id in COCO, or null
    ]
)
# One row per image, expression and view of the image.
PREDICTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("expression", pa.string()),
        ("scale", pa.float64()),  # of the view; 1: the shorter side has the resolution of inference
        ("flipped", pa.bool_()),  # whether the view is the mirror image
        ("grid_height", pa.int32()),  # patches
        ("grid_width", pa.int32()),
        ("similarities", pa.list_(pa.float16())),  # row-major, in the orientation of the image
    ]
)
# The index of the tokens of an encoder; height and width are those of the grid of patches, 1 for an expression.
TOKENS = pa.schema(
    [
        ("key", pa.string()),  # image_id or expression
        ("view", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("shard", pa.int32()),
        ("start", pa.int64()),  # row in the shard
    ]
)
# RLE at the image's own resolution, and that resolution
MASKS = pa.schema([("record_id", pa.string()), ("mask", pa.string()), ("height", pa.int32()), ("width", pa.int32())])
# One row per image and class found in it, and one for its background, whose mask may be empty.
LABELS = pa.schema([("image_id", pa.string()), ("label", pa.string()), ("mask", pa.string())])
SCORES = pa.schema(
    [
        ("record_id", pa.string()),
        ("image_id", pa.string()),
        ("intersection", pa.int64()),  # pixels; null without a true mask, like union and iou
        ("union", pa.int64()),
        ("iou", pa.float64()),
        ("empty", pa.bool_()),  # whether the predicted mask is empty
    ]
)
# Pixel counts by true and predicted class, the background first: (K + 1)^2 values, row-major.
CONFUSIONS = pa.schema([("image_id", pa.string()), ("confusion", pa.list_(pa.int64()))])

ROWS_HELD = 1_000
"""Rows per row group: as many are held in memory before they are written, and while a file is read in pieces."""

BACKGROUND_LABEL = "background"
"""The label of pixels that belong to no class."""


P = TypeVar("P", bound=Provenance)


class TableWriter:
    """Writes tables of one schema to a file, one after the other, and their provenance at the end.

    The file does not depend on how the rows are divided among the tables. Its pages have checksums.
    """

    def __init__(self, path: Path, schema: pa.Schema):
        self.writer = pq.ParquetWriter(path, schema, write_page_checksum=True)
        self.pending = schema.empty_table()

    def write(self, table: pa.Table) -> None:
        """Append the rows of a table."""
        self.pending = pa.concat_tables([self.pending, table])
        while len(self.pending) >= ROWS_HELD:
            self.writer.write_table(self.pending[:ROWS_HELD].combine_chunks())
            self.pending = self.pending[ROWS_HELD:]

    def finish(self, provenance: Provenance) -> None:
        """Write the remaining rows and the provenance."""
        if len(self.pending):
            self.writer.write_table(self.pending.combine_chunks())
        self.writer.add_key_value_metadata({"tseg": provenance.to_json()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table], provenance: Provenance) -> None:
    """Write the rows of `tables` and their `provenance` to `path` atomically; only a few tables are in memory."""
    with atomic_write(path) as partial, TableWriter(partial, schema) as writer:
        for table in _computed(tables):
            writer.write(table)
        writer.finish(provenance)


def write(path: Path, table: pa.Table, provenance: Provenance) -> None:
    """Write `table` and its `provenance` to `path` atomically."""
    write_tables(path, table.schema.remove_metadata(), [table], provenance)


def _computed(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables; what the system refuses while they are computed is no error of the file that is written."""
    try:
        yield from tables
    except OSError as error:
        raise ValueError(str(error)) from error


def read(path: Path, kind: type[P]) -> tuple[pd.DataFrame, P]:
    """Read the rows and the provenance of a file. Raises ValueError like `read_provenance`."""
    provenance = read_provenance(path, kind)
    return _read(path, kind), provenance


def _read(path: Path, kind: type[Provenance], columns: Sequence[str] | None = None) -> pd.DataFrame:
    with undamaged(path, kind):
        return pq.read_table(path, columns=columns, page_checksum_verification=True).to_pandas()


def read_provenance(path: Path, kind: type[P]) -> P:
    """Read the provenance of a file. Raises ValueError if it is missing, damaged, or of another kind or version."""
    hint = f"make it with `tseg {kind.command}`"
    try:
        metadata = pq.read_metadata(require_file(path, hint)).metadata or {}
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a complete Parquet file ({error}); {hint}") from None
    return kind.from_json(metadata.get(b"tseg", b"{}"), path)


def read_records(path: Path) -> tuple[pd.DataFrame, RecordsProvenance]:
    """Read records in file order, and their provenance.

    Raises ValueError like `read_provenance`, and if a column is missing or there is no row.
    """
    return read_columns(path, RECORDS.names)


def read_columns(path: Path, columns: Sequence[str]) -> tuple[pd.DataFrame, RecordsProvenance]:
    """Some columns of the records in file order, and their provenance. Raises ValueError like `read_records`."""
    provenance = read_provenance(path, RecordsProvenance)
    check_columns(path, RecordsProvenance, columns)
    return _read(path, RecordsProvenance, columns), provenance


def read_pieces(path: Path, kind: type[Provenance], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The columns of a file, a few rows at a time."""
    with undamaged(path, kind), pq.ParquetFile(path, page_checksum_verification=True) as file:
        yield from file.iter_batches(ROWS_HELD, columns=list(columns))


def check_columns(path: Path, kind: type[Provenance], columns: Sequence[str]) -> int:
    """The number of rows of a file. Raises ValueError if there are none, or if one of the columns is missing."""
    file = pq.read_metadata(path)
    missing = [name for name in columns if name not in file.schema.to_arrow_schema().names]
    if missing:
        raise ValueError(f"{path} lacks the column {missing[0]!r}; make it again with `tseg {kind.command}`")
    if file.num_rows == 0:
        why = "its .skipped.csv says why" if kind is RecordsProvenance else f"make it again with `tseg {kind.command}`"
        raise ValueError(f"{path} holds no {'record' if kind is RecordsProvenance else 'row'}; {why}")
    return file.num_rows


@contextmanager
def undamaged(path: Path, kind: type[Provenance]) -> Generator[None]:
    """Turn the errors of a damaged file into a ValueError that names it and the command that makes it again."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is damaged ({' '.join(str(error).split())}); make it again with `tseg {kind.command}`"
        ) from None


class ImageRecords(NamedTuple):
    """The records of one image."""

    file_name: str
    image_id: str
    records: pd.DataFrame
    expressions: list[str]
    """Those of the records, each once."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return int(self.records["width"].iloc[0]), int(self.records["height"].iloc[0])


def images_of(records: pd.DataFrame) -> Iterator[ImageRecords]:
    """The images of the records, in the order of their first records."""
    for name, of_image in records.groupby("file_name", sort=False):
        expressions = list(dict.fromkeys(of_image["expression"]))
        yield ImageRecords(str(name), of_image["image_id"].iloc[0], of_image, expressions)


def tables_of_images(
    records: pd.DataFrame,
    rows_of: Callable[[Iterator[ImageRecords]], Iterable[Iterable[Mapping[str, Any]]]],
    schema: pa.Schema,
    *,
    what: str,
    parts: Parts | None = None,
    batch_size: int = 1,
) -> Iterator[pa.Table]:
    """The rows of all images of `records`; see `parts.tables_of`."""
    images, total = images_of(records), len(set(records["file_name"]))
    return tables_of(images, rows_of, schema, what=what, unit="images", total=total, parts=parts, batch_size=batch_size)


def encode_mask(mask: np.ndarray) -> str:
    """Encode a mask, bool (H, W), as COCO compressed run lengths."""
    counts: Any = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts.decode("ascii")


def decode_mask(counts: str, height: int, width: int) -> np.ndarray:
    """Decode COCO compressed run lengths to a mask, bool (height, width)."""
    return coco_mask.decode({"counts": counts.encode("ascii"), "size": [height, width]}).astype(bool)
