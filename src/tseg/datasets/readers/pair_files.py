"""The files that pairs come in: rows of a CSV or Parquet table, or captions in COCO's format, little by little."""

import csv
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tseg.datasets.readers.annotations import Record
from tseg.datasets.readers.json_stream import stream_member
from tseg.settings.validation import check_known

NEEDED, OPTIONAL = ("image", "phrase"), ("mask", "id")
TEXT_TYPES = ("string", "large_string", "string_view", "null")
BATCH_ROWS = 1024

PairRow = tuple[str, int, Record | str]
"""A row: its file; its line, or number from 1, there; its values by column, or what is wrong with it."""


def csv_rows(path: Path) -> Iterator[PairRow]:
    """The rows of a CSV file by the line that each begins on. Raises ValueError that names the line."""
    columns: list[str] = []
    line = 1
    # Bytes that are not UTF-8 come through as surrogates, so that the line that has them can be named.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for fields in reader:
                "".join(fields).encode()
                if line == 1:
                    columns = fields
                    check_columns(path, columns)
                elif len(fields) == len(columns):
                    yield str(path), line, dict(zip(columns, fields, strict=True))
                elif fields:
                    fault = f"its line has {len(fields)} fields, the first {len(columns)}; quote a phrase with commas"
                    yield str(path), line, fault
                line = reader.line_num + 1
        except UnicodeEncodeError:
            raise ValueError(f"{path}, line {line}: it is not UTF-8; save the file as CSV in UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path}, line {line}: it is not CSV ({error}); close its quotes") from None
    check_columns(path, columns)  # of an empty file


def parquet_rows(path: Path) -> Iterator[PairRow]:
    """The rows of a Parquet file by their number. Raises ValueError."""
    numbers = count(1)
    try:
        with pq.ParquetFile(path) as file:
            check_columns(path, file.schema_arrow.names)
            for column in file.schema_arrow:
                check_type(path, column.name, column.type)
            for batch in file.iter_batches(BATCH_ROWS):
                yield from ((str(path), next(numbers), row) for row in batch.to_pylist())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as Parquet ({error}); write it again") from None


def caption_rows(path: Path) -> Iterator[PairRow]:
    """The captions of a file in COCO's format by their number. Raises ValueError."""
    images = {str(image.get("id")): image.get("file_name") for image in stream_member(path, "images")}
    for number, caption in enumerate(stream_member(path, "annotations"), 1):
        image_id = str(caption.get("image_id"))
        if image_id in images:
            row = {"image": images[image_id], "phrase": caption.get("caption"), "id": caption.get("id")}
            yield str(path), number, row
        else:
            yield str(path), number, f"its image_id {image_id[:99]} is not among the images; add the image there"


def check_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise ValueError unless these are the columns of a table of pairs."""
    if not columns:
        raise ValueError(f"{path} does not begin with the names of its columns; write image,phrase there")
    if len(columns) == 1 and not {";", "\t"}.isdisjoint(columns[0]):
        raise ValueError(f"{path} does not separate its columns with commas; save it as CSV with commas")
    for name in columns:
        check_known(name, [*NEEDED, *OPTIONAL], f"{path} has the unknown column")
    for name in NEEDED:
        if name not in columns:
            raise ValueError(f"{path} has no column {name!r}; add it")
    if len(set(columns)) < len(columns):
        raise ValueError(f"{path} has a column twice, of {', '.join(columns)}; remove one")


def check_type(path: Path, name: str, kind: pa.DataType) -> None:
    """Raise ValueError unless a column of a Parquet file has text, or of ids whole numbers."""
    of_values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if str(of_values) not in TEXT_TYPES and not (name == "id" and pa.types.is_integer(kind)):
        raise ValueError(f"{path}: its column {name!r} is of type {kind}; write it as text")


READERS = {".csv": csv_rows, ".parquet": parquet_rows, ".json": caption_rows}
"""Ending of a file to its reader."""
