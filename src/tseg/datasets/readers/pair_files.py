"""Files of image-phrase pairs, streamed: rows of a CSV or Parquet table, or captions in COCO's format."""

import csv
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tseg.datasets.readers.annotations import Record
from tseg.datasets.readers.json_stream import stream_member
from tseg.expressions import clean_expression
from tseg.settings.validation import check_known

REQUIRED, OPTIONAL = ("image", "phrase"), ("mask", "id")
TEXT_TYPES = ("string", "large_string", "string_view", "null")
BATCH_ROWS = 1024
TYPOGRAPHIC_QUOTES = "“”„‟«»‘’‚‛‹›"
QUOTES = f"\"'{TYPOGRAPHIC_QUOTES}"

PairRow = tuple[str, int, Record | str]
"""A row: its file; its number, from 1, or its first line in a CSV file; its values by column, or its fault."""


def csv_rows(path: Path) -> Iterator[PairRow]:
    """Yield the rows of a CSV file with the lines on which they start. Raises ValueError that names the line."""
    columns: list[str] = []
    line = 1
    # Bytes that are not UTF-8 become surrogates, so that the error can name their line.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for fields in reader:
                "".join(fields).encode()
                while len(fields) > len(columns) and not fields[-1].strip():
                    fields.pop()  # a spreadsheet ends lines in the commas of empty columns
                if line == 1:
                    check_separator(path, fields)
                    columns = [column_name(name) for name in fields]
                    check_columns(path, columns)
                elif len(fields) == len(columns):
                    yield str(path), line, dict(zip(columns, fields, strict=True))
                elif fields:
                    yield str(path), line, row_fault(fields, columns)
                line = reader.line_num + 1
        except UnicodeEncodeError:
            raise ValueError(f"{path}, line {line} is not UTF-8; save the file as UTF-8") from None
        except csv.Error as error:
            raise ValueError(f"{path}, line {line} is not CSV ({error}); check its quotes") from None
    check_columns(path, columns)  # an empty file has none


def column_name(name: str) -> str:
    """The name of a column without what spreadsheets add: capitals, spaces, quotes and invisible characters."""
    return clean_expression(name).strip(QUOTES).strip().lower()


def row_fault(fields: Sequence[str], columns: Sequence[str]) -> str:
    """Why a row with more or fewer fields than `columns` is skipped."""
    fault = f"its row has {len(fields)} fields, the header {len(columns)}"
    if any(field.strip()[:1] in set(TYPOGRAPHIC_QUOTES) for field in fields):
        return f'{fault}, and CSV knows only straight quotes; write " in place of typographic quotes'
    return f"{fault}; quote phrases with commas"


def parquet_rows(path: Path) -> Iterator[PairRow]:
    """Yield the rows of a Parquet file with their numbers. Raises ValueError."""
    numbers = count(1)
    try:
        with pq.ParquetFile(path) as file:
            columns = [column_name(name) for name in file.schema_arrow.names]
            check_columns(path, columns)
            for column in file.schema_arrow:
                check_type(path, column.name, column.type)
            for batch in file.iter_batches(BATCH_ROWS):
                rows = batch.rename_columns(columns).to_pylist()
                yield from ((str(path), next(numbers), row) for row in rows)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as Parquet ({error}); write it again") from None


def caption_rows(path: Path) -> Iterator[PairRow]:
    """Yield the captions of a file in COCO's format with their numbers. Raises ValueError."""
    images = {str(image.get("id")): image.get("file_name") for image in stream_member(path, "images")}
    for number, caption in enumerate(stream_member(path, "annotations"), 1):
        image_id = str(caption.get("image_id"))
        if image_id in images:
            row = {"image": images[image_id], "phrase": caption.get("caption"), "id": caption.get("id")}
            yield str(path), number, row
        else:
            yield str(path), number, f"its image_id {image_id[:99]} is not in the list `images`; add the image there"


def check_separator(path: Path, header: Sequence[str]) -> None:
    """Raise ValueError if the header of a CSV file is separated by something else than commas."""
    if len(header) == 1 and not {";", "\t"}.isdisjoint(header[0]):
        raise ValueError(f"{path} has columns separated by semicolons or tabs; save it with commas")


def check_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise ValueError unless `columns` are those of a table of pairs."""
    if not columns:
        raise ValueError(f"{path} has no header; start it with the line image,phrase")
    if "picture" in columns:  # the name of the column in earlier versions
        raise ValueError(f"{path} has the column 'picture'; rename it to 'image'")
    if "" in columns:
        raise ValueError(f"{path}: column {columns.index('') + 1} has no name; name it or remove it")
    for name in columns:
        check_known(name, [*REQUIRED, *OPTIONAL], f"{path} has the unknown column")
    for name in REQUIRED:
        if name not in columns:
            raise ValueError(f"{path} has no column {name!r}; add it")
    if repeated := [name for name in columns if columns.count(name) > 1]:
        raise ValueError(f"{path} has the column {repeated[0]!r} twice; remove one")


def check_type(path: Path, name: str, kind: pa.DataType) -> None:
    """Raise ValueError unless a column of a Parquet file holds text; ids may also be integers."""
    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    if str(value_type) not in TEXT_TYPES and not (name == "id" and pa.types.is_integer(kind)):
        raise ValueError(f"{path}: the column {name!r} has the type {kind}; write it as text")


READERS = {".csv": csv_rows, ".parquet": parquet_rows, ".json": caption_rows}
"""Reader of each file suffix."""
