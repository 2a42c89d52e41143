"""Images that two data sets share are found by their COCO ids, and no others are."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from tseg.datasets.leakage import (
    coco_id_of,
    coco_ids,
    list_images,
    read_images,
    read_records_images,
    shared_images,
    without_images,
    write_images,
)
from tseg.records import write

from ..provenances import masks_provenance, records_provenance, write_records


def table(*images: tuple[str, str | None]) -> pd.DataFrame:
    """Two records per image, given by image id and COCO id."""
    rows = [{"image_id": image_id, "coco_id": coco_id} for image_id, coco_id in images for _ in range(2)]
    return pd.DataFrame(rows).assign(record_id=[f"r{number}" for number in range(len(rows))])


def test_a_planted_overlap_is_excluded_and_counted_in_images():
    train = table(("vg1", "10"), ("vg2", None), ("vg3", "30"), ("vg4", "20"), ("vg5", "40"))
    evaluation = table(("20", "20"), ("10", "10"), ("99", "99"))
    kept, num_excluded = without_images(train, coco_ids(evaluation))
    assert num_excluded == 2
    assert list(kept["record_id"]) == ["r2", "r3", "r4", "r5", "r8", "r9"]
    assert list(kept.index) == list(range(6))
    assert not coco_ids(kept) & coco_ids(evaluation)


def test_only_known_coco_ids_are_returned():
    assert coco_ids(table(("a", "7"), ("b", None), ("c", "8"))) == {"7", "8"}
    assert coco_ids(table(("a", None))) == frozenset()


def test_images_without_a_coco_id_never_match():
    train = table(("a", None), ("b", None))
    kept, num_excluded = without_images(train, coco_ids(table(("c", None))))
    assert (len(kept), num_excluded) == (4, 0)


def test_exclusion_of_every_image_is_an_error():
    with pytest.raises(
        ValueError, match="all 2 images are excluded and none is left to train on; exclude fewer images"
    ):
        without_images(table(("a", "1"), ("b", "2")), {"1", "2", "3"})


@pytest.mark.parametrize(
    ("file_name", "coco_id"),
    [
        ("COCO_train2014_000000123456.jpg", "123456"),
        ("COCO_val2014_000000000009.jpg", "9"),
        ("data/raw/train2017/000000123456.jpg", "123456"),
        ("000000123456_1.jpg", None),
        ("0000000123456.jpg", None),
        ("COCO_train2014_123456.jpg", None),
        ("000000123456.png", None),
        ("my_COCO_train2014_000000123456.jpg", None),
        ("123456.jpg", None),
        ("000000123456.jpg/own.jpg", None),
        ("", None),
    ],
)
def test_a_coco_id_is_read_only_from_coco_file_names(file_name: str, coco_id: str | None):
    assert coco_id_of(file_name) == coco_id


def test_a_data_set_lists_each_image_once_and_in_order():
    listed = list_images(table(("vg2", None), ("vg1", "10")), "phrasecut")
    assert list(listed.columns) == ["dataset", "image_id", "coco_id"]
    assert listed[["dataset", "image_id"]].to_numpy().tolist() == [["phrasecut", "vg2"], ["phrasecut", "vg1"]]
    assert listed["coco_id"].isna().tolist() == [True, False]


def test_a_planted_leak_between_data_sets_is_found_by_coco_ids_alone():
    train = list_images(table(("7", "10"), ("8", None), ("20", "30")), "phrasecut")
    evaluation = list_images(table(("10", "10"), ("20", "20"), ("8", None), ("30", "30")), "refcoco")
    assert shared_images(train, evaluation) == {"10", "30"}
    assert shared_images(evaluation, train) == {"7", "20"}


def test_a_leak_within_a_data_set_is_also_found_by_image_ids():
    train = list_images(table(("1", None), ("2", "20"), ("3", "30")), "phrasecut")
    evaluation = list_images(table(("1", None), ("9", "20"), ("4", None), ("5", "50")), "phrasecut")
    assert shared_images(train, evaluation) == {"1", "9"}
    assert shared_images(train.assign(dataset="another"), evaluation) == {"9"}


def test_of_several_training_sets_each_is_compared_by_its_own_ids():
    stages = pd.concat([list_images(table(("1", None)), name) for name in ("own", "phrasecut")])
    assert shared_images(stages, list_images(table(("1", None)), "own")) == {"1"}
    assert shared_images(stages, list_images(table(("1", None)), "voc")) == frozenset()


def test_a_list_of_images_is_read_back_as_written_without_repetitions(tmp_path: Path):
    first = list_images(table(("NA", None), ("007", "7"), ('a,"b"', "8")), "refcoco+")
    second = list_images(table(("null", None), ("007", "7")), "phrasecut")
    write_images(tmp_path / "images.csv", pd.concat([first, second, first]))
    listed = read_images(tmp_path / "images.csv")
    assert listed.astype(object).where(listed.notna(), None).to_numpy().tolist() == [
        ["refcoco+", "NA", None],
        ["refcoco+", "007", "7"],
        ["refcoco+", 'a,"b"', "8"],
        ["phrasecut", "null", None],
        ["phrasecut", "007", "7"],
    ]


@pytest.mark.parametrize(
    "content", [None, b"", b"a,b\n1,2\n", b"dataset,image_id,coco_id\n1,2,3\n1,2,3,4\n", b"\xff\xfe\x00"]
)
def test_a_file_that_is_not_a_list_of_images_is_refused_by_name(tmp_path: Path, content: bytes | None):
    path = tmp_path / "images.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"images\.csv .*`tseg train` writes"):
        read_images(path)


def test_the_images_of_a_records_file_are_those_of_its_records(tmp_path: Path):
    rows = [{"image_id": image_id, "coco_id": coco_id} for image_id, coco_id in 2 * [("a", "1"), ("b", None)]]
    path = tmp_path / "train.parquet"
    write_records(path, rows, dataset="own")
    images = read_records_images(path)
    assert images[["dataset", "image_id"]].to_numpy().tolist() == [["own", "a"], ["own", "b"]]
    assert images["coco_id"].dropna().tolist() == ["1"]


def test_records_of_an_earlier_version_and_other_tables_are_refused_by_name(tmp_path: Path):
    path = tmp_path / "old.parquet"
    write(path, pa.table({"image_id": ["a"]}), records_provenance())
    with pytest.raises(ValueError, match=r"old\.parquet lacks the column 'coco_id'; make it again"):
        read_records_images(path)
    write(path, pa.table({"image_id": ["a"]}), masks_provenance())
    with pytest.raises(ValueError, match=r"old\.parquet is of another kind"):
        read_records_images(path)
