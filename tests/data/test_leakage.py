import pandas as pd
import pytest

from tseg.data.leakage import coco_ids, without_pictures


def table(*pictures: tuple[str, str | None]) -> pd.DataFrame:
    """Two records per picture, given by its id and its id in COCO."""
    rows = [{"image_id": image_id, "coco_id": coco_id} for image_id, coco_id in pictures for _ in range(2)]
    return pd.DataFrame(rows).assign(record_id=[f"r{number}" for number in range(len(rows))])


def test_a_planted_overlap_is_excluded_and_counted_in_pictures():
    train = table(("vg1", "10"), ("vg2", None), ("vg3", "30"), ("vg4", "20"), ("vg5", "40"))
    evaluation = table(("20", "20"), ("10", "10"), ("99", "99"))
    kept, num_excluded = without_pictures(train, coco_ids(evaluation))
    assert num_excluded == 2
    assert list(kept["record_id"]) == ["r2", "r3", "r4", "r5", "r8", "r9"]
    assert list(kept.index) == list(range(6))
    assert not coco_ids(kept) & coco_ids(evaluation)


def test_only_known_ids_are_given():
    assert coco_ids(table(("a", "7"), ("b", None), ("c", "8"))) == {"7", "8"}
    assert coco_ids(table(("a", None))) == frozenset()


def test_pictures_without_an_id_are_never_taken_for_each_other():
    train = table(("a", None), ("b", None))
    kept, num_excluded = without_pictures(train, coco_ids(table(("c", None))))
    assert (len(kept), num_excluded) == (4, 0)


def test_exclusion_of_every_picture_is_an_error():
    with pytest.raises(ValueError, match="all 2 pictures are excluded, none is left to train on"):
        without_pictures(table(("a", "1"), ("b", "2")), {"1", "2", "3"})
