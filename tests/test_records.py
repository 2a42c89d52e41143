"""Files of records and their provenance; masks are compared with pycocotools."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask

from tseg.provenance import MasksProvenance, ModelProvenance, PredictionsProvenance, Provenance, RecordsProvenance
from tseg.records import (
    RECORDS,
    TableWriter,
    decode_mask,
    encode_mask,
    read,
    read_columns,
    read_pieces,
    read_provenance,
    read_records,
    write,
    write_tables,
)

from .provenances import masks_provenance, model_provenance, predictions_provenance, records_provenance, write_records

CHANGES: dict[str, Any] = {"split": "val", "sources": ["drawn"], "published": {"expressions": 2, "images": None}}


def row(number: int, **changed: Any) -> dict[str, Any]:
    usual = {
        "record_id": f"r{number}",
        "image_id": "i0",
        "file_name": "images/ä b.jpg",
        "height": 4,
        "width": 6,
        "expression": "the café's “red” circle",
        "group_id": "g",
        "mask": encode_mask(np.eye(4, 6, dtype=bool)),
        "box": [0.5, 1, 2, 3],
        "ignore": None if number % 2 else encode_mask(np.zeros((4, 6), bool)),
        "tags": ["s_small", "c20"][: number % 3],
        "coco_id": None if number % 2 else "9",
    }
    return usual | changed


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (40, 3), (64, 64)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_run_lengths_are_those_of_pycocotools_and_decode_to_the_mask(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(shape) < share
    theirs: Any = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    assert encode_mask(mask) == theirs["counts"].decode()
    assert coco_mask.area({"counts": encode_mask(mask).encode(), "size": list(shape)}) == mask.sum()
    decoded = decode_mask(encode_mask(mask), *shape)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)


def test_a_view_of_a_mask_is_encoded_like_its_copy() -> None:
    mask = np.random.default_rng(0).random((8, 10)) < 0.5
    assert encode_mask(mask[::2, ::-1]) == encode_mask(mask[::2, ::-1].copy())


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [row(number) for number in range(5)]
    write_records(tmp_path / "records.parquet", rows, **CHANGES)
    assert pq.read_table(tmp_path / "records.parquet").to_pylist() == rows
    records, _ = read_records(tmp_path / "records.parquet")
    assert list(records.columns) == RECORDS.names
    assert records["expression"].tolist() == [written["expression"] for written in rows]
    assert records["ignore"].isna().tolist() == [written["ignore"] is None for written in rows]
    assert read_records(tmp_path / "records.parquet")[1] == records_provenance(**CHANGES)


def test_a_record_may_have_no_mask_and_no_box(tmp_path: Path) -> None:
    rows = [row(0), row(1, mask=None, box=None), row(2, mask=None, box=None)]
    write_records(tmp_path / "records.parquet", rows, **CHANGES)
    assert pq.read_table(tmp_path / "records.parquet").to_pylist() == rows
    records, _ = read_records(tmp_path / "records.parquet")
    assert records["mask"].isna().tolist() == records["box"].isna().tolist() == [False, True, True]


@pytest.mark.parametrize("at_a_time", [1, 7, 60])
def test_a_file_of_records_does_not_depend_on_the_number_of_records_per_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr("tseg.records.ROWS_HELD", 20)
    rows = [row(number) for number in range(47)]
    for name, step in (("whole", len(rows)), ("parts", at_a_time)):
        with TableWriter(tmp_path / f"{name}.parquet", RECORDS) as writer:
            for start in range(0, len(rows), step):
                writer.write(pa.Table.from_pylist(rows[start : start + step], schema=RECORDS))
            writer.finish(records_provenance(**CHANGES))
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    file = pq.ParquetFile(tmp_path / "parts.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [20, 20, 7]
    assert file.read().to_pylist() == rows


def test_the_same_records_are_the_same_bytes(tmp_path: Path) -> None:
    for name, changes in (("a", CHANGES), ("b", dict(reversed(CHANGES.items())))):
        write_records(tmp_path / name, [row(number) for number in range(5)], **changes)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_records_that_cannot_be_used_are_refused_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    with pytest.raises(ValueError, match=r"records\.parquet does not exist; make it with `tseg prepare`"):
        read_records(path)
    write_records(path, [])
    with pytest.raises(ValueError, match=r"records\.parquet holds no record"):
        read_records(path)
    for column in ("mask", "coco_id"):  # the second is missing in records of an earlier version
        table = pa.Table.from_pylist([row(0)], schema=RECORDS).drop_columns(column)
        write(path, table, records_provenance())
        with pytest.raises(ValueError, match=rf"lacks the column '{column}'; make it again with `tseg prepare`"):
            read_records(path)


def test_a_foreign_table_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"record_id": ["r0"]}), tmp_path / "theirs.parquet")
    with pytest.raises(ValueError, match=r"theirs\.parquet is of another kind; give a file that `tseg prepare` wrote"):
        read_provenance(tmp_path / "theirs.parquet", RecordsProvenance)
    with pytest.raises(ValueError, match=r"absent\.parquet does not exist"):
        read_provenance(tmp_path / "absent.parquet", RecordsProvenance)
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ValueError, match=r"text\.parquet is .*; .* `tseg prepare`"):
        read_records(tmp_path / "text.parquet")


@pytest.mark.parametrize(
    "provenance", [records_provenance(), predictions_provenance(), masks_provenance()], ids=lambda kind: kind.kind
)
def test_a_file_records_its_kind_and_is_refused_as_another(tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "file.parquet"
    write(path, pa.table({"record_id": ["r0"]}), provenance)
    rows, found = read(path, type(provenance))
    assert (rows["record_id"].tolist(), found) == (["r0"], provenance)
    for kind in {RecordsProvenance, PredictionsProvenance, MasksProvenance} - {type(provenance)}:
        with pytest.raises(ValueError, match=rf"file\.parquet is of another kind; .*`tseg {kind.command}`"):
            read_provenance(path, kind)


def test_a_provenance_of_another_version_is_refused_with_the_command_that_makes_it_again(tmp_path: Path) -> None:
    text = model_provenance().to_json().replace('"seed"', '"another"')
    with pytest.raises(ValueError, match=r"model is of another version; make it again with `tseg train`"):
        ModelProvenance.from_json(text, tmp_path / "model")


def test_a_file_with_a_damaged_page_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    write_records(path, [row(number) for number in range(200)])
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    damaged = pytest.raises(ValueError, match=r"records\.parquet is damaged \(.*\); make it again with `tseg prepare`")
    with damaged:
        read_records(path)
    with damaged:
        read_columns(path, ["record_id"])
    with damaged:
        list(read_pieces(path, RecordsProvenance, ["record_id"]))


def test_a_damaged_byte_of_the_rows_is_found_wherever_they_are_read(tmp_path: Path) -> None:
    path, damaged = tmp_path / "records.parquet", tmp_path / "damaged.parquet"
    write_records(path, [row(number) for number in range(200)])
    content = path.read_bytes()
    columns = pq.read_metadata(path).row_group(0)
    masks = columns.column(RECORDS.get_field_index("mask"))
    start, size = masks.dictionary_page_offset or masks.data_page_offset, masks.total_compressed_size
    found = 0
    for offset in range(start, start + size, 3):
        changed = bytearray(content)
        changed[offset] ^= 1
        damaged.write_bytes(changed)
        try:
            table, _ = read_records(damaged)
        except ValueError as error:
            assert re.search(r"damaged\.parquet is damaged", str(error))
            found += 1
        else:  # a byte of a page's header that says nothing of the rows
            pd.testing.assert_frame_equal(table, read_records(path)[0])
    assert found > size // 6


@pytest.mark.parametrize("at_a_time", [1, 7, 20, 47])
def test_a_file_written_in_tables_does_not_depend_on_their_sizes_and_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr("tseg.records.ROWS_HELD", 20)
    rows = [row(number) for number in range(47)]
    tables = [pa.Table.from_pylist(rows[start : start + at_a_time], RECORDS) for start in range(0, 47, at_a_time)]
    write_tables(tmp_path / "parts.parquet", RECORDS, iter(tables), records_provenance())
    write_tables(tmp_path / "whole.parquet", RECORDS, [pa.Table.from_pylist(rows, RECORDS)], records_provenance())
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    pieces = list(read_pieces(tmp_path / "parts.parquet", RecordsProvenance, RECORDS.names))
    assert max(map(len, pieces)) <= 20
    assert [found for piece in pieces for found in piece.to_pylist()] == rows
    assert read_provenance(tmp_path / "parts.parquet", RecordsProvenance) == records_provenance()


def test_a_file_without_rows_can_be_written_and_read(tmp_path: Path) -> None:
    write_tables(tmp_path / "empty.parquet", RECORDS, [], records_provenance())
    assert read(tmp_path / "empty.parquet", RecordsProvenance)[0].columns.tolist() == RECORDS.names


def test_columns_are_those_of_the_records(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    write_records(path, [row(number) for number in range(5)])
    found, provenance = read_columns(path, ["image_id", "height"])
    expected, same = read_records(path)
    pd.testing.assert_frame_equal(found, expected[["image_id", "height"]])
    assert provenance == same
    with pytest.raises(ValueError, match=r"records\.parquet lacks the column 'heights'; make it again with `tseg prep"):
        read_columns(path, ["heights"])
    write_records(path, [])
    with pytest.raises(ValueError, match=r"records\.parquet holds no record"):
        read_columns(path, ["image_id"])
