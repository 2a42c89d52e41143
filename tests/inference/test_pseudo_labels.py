"""Pseudo labels are the teacher's masks, never the true ones; unsure pixels are ignored and empty masks counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tseg.inference.masks import MaskRules, each_probability
from tseg.inference.pseudo_labels import pseudo_label_file
from tseg.records import decode_mask, encode_mask

from ..tables import mask_records, predict_records, pseudo_label_records, similarities

RULES = MaskRules("mpa", threshold="halfway")


@pytest.fixture
def predictions(model: Any, records: pd.DataFrame) -> pd.DataFrame:
    options: dict[str, Any] = {"resolution": 40, "scales": [1.0], "flip": False, "flip_words": "keep"}
    return predict_records(model, records, words=None, **options).to_pandas()


def test_a_pseudo_label_is_the_mask_that_inference_would_give(records: pd.DataFrame, predictions: pd.DataFrame) -> None:
    labelled = pseudo_label_records(records, predictions, RULES, 0.0)
    expected = mask_records(records, predictions, RULES).to_pandas().set_index("record_id")["mask"]
    for row in labelled.itertuples():
        assert row.mask == expected[row.record_id] and pd.isna(row.ignore)
        columns, rows = (np.flatnonzero(decode_mask(row.mask, row.height, row.width).any(axis=axis)) for axis in (0, 1))
        assert list(row.box) == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_no_true_mask_is_read(records: pd.DataFrame, predictions: pd.DataFrame) -> None:
    blank = records.assign(mask=None, box=None, ignore=encode_mask(np.ones((40, 48), bool)))
    pd.testing.assert_frame_equal(
        pseudo_label_records(blank, predictions, RULES, 0.1), pseudo_label_records(records, predictions, RULES, 0.1)
    )


def test_pixels_near_the_threshold_are_ignored(records: pd.DataFrame, predictions: pd.DataFrame) -> None:
    row = pseudo_label_records(records, predictions, RULES, 0.1).iloc[0]
    views = similarities(predictions).views(row["image_id"], [row["expression"]])
    (probability,) = each_probability(views, (row["height"], row["width"]), RULES)
    ignored = decode_mask(row["ignore"], row["height"], row["width"])
    np.testing.assert_array_equal(ignored, np.abs(probability.numpy() - 0.5) < 0.1)
    assert ignored.any() and not ignored.all()


def test_records_with_an_empty_mask_are_left_out_and_counted(
    records_path: Path, predictions: pd.DataFrame, records: pd.DataFrame
) -> None:
    silent = predictions["expression"] == "red square"
    predictions.loc[silent, "similarities"] = predictions.loc[silent, "similarities"].map(lambda values: 0 * values - 5)
    labelled = pseudo_label_records(records, predictions, MaskRules("mpa"), 0.0)
    assert "red square" in set(records["expression"]) and "red square" not in set(labelled["expression"])


def test_the_oracle_and_predictions_of_other_records_are_refused(
    records_path: Path, records: pd.DataFrame, predictions: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"^\d+ of \d+ records have no prediction, .*; predict these records again"):
        pseudo_label_records(records, predictions[predictions["image_id"] != "a"], RULES, 0.0)
    how = {"background": 0.2, "exclusive_activations": True, "crf": None, "ignore_band": 0.0}
    with pytest.raises(ValueError, match=r"^threshold: there is no label-free rule 'oracle'"):
        pseudo_label_file(tmp_path / "p", records_path, tmp_path / "labels.parquet", threshold="oracle", **how)
