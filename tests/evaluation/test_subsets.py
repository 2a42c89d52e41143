"""Scores of subsets against means computed record by record."""

import numpy as np
import pandas as pd
import pytest

from tseg.evaluation.subsets import summarise_subsets

TAGS = [["c20", "i_single"], ["c20"], [], ["i_single", "p_att"], ["c20", "p_att"]]
IOUS = [0.1, 0.7, 0.9, 0.4, 0.2]


def records(tags: list[list[str]]) -> pd.DataFrame:
    """Records as read from a file: tags are arrays."""
    return pd.DataFrame({"record_id": [f"r{i}" for i in range(len(tags))], "tags": [np.array(t, object) for t in tags]})


def scores() -> pd.DataFrame:
    """Scores in another order than the records."""
    return pd.DataFrame({"record_id": [f"r{i}" for i in range(len(IOUS))], "iou": IOUS}).iloc[::-1]


def test_a_subset_is_scored_on_the_records_with_its_tag() -> None:
    found = summarise_subsets(scores(), records(TAGS))
    assert set(found) == {tag for tags in TAGS for tag in tags}
    for tag, subset in found.items():
        ious = [iou for iou, tags in zip(IOUS, TAGS, strict=True) if tag in tags]
        assert subset == {"mIoU": pytest.approx(sum(ious) / len(ious)), "num_records": len(ious)}


def test_a_record_without_a_score_is_in_no_subset() -> None:
    unscored = scores().assign(iou=lambda rows: rows["iou"].where(rows["record_id"] != "r0"))
    assert summarise_subsets(unscored, records(TAGS)) == summarise_subsets(scores()[:-1], records(TAGS))


def test_records_without_tags_have_no_subsets() -> None:
    assert summarise_subsets(scores(), records([[] for _ in TAGS])) == {}
