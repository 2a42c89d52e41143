"""Tables of predictions and masks against the same computed one picture at a time."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from tseg.data.transforms import open_picture
from tseg.inference.masks import MASKS, mask_records, segment
from tseg.inference.predict import PREDICTIONS, predict_records, predict_similarities
from tseg.model.tseg import TSEG
from tseg.records import decode_mask

VIEWS: dict[str, Any] = {"resolution": 48, "scales": (1.0, 1.5), "flip": True}
RULES: dict[str, Any] = {"background": 0.2, "crf": None}


def maps(table: pa.Table) -> dict[str, np.ndarray]:
    rows = table.to_pylist()
    return {row["record_id"]: np.reshape(row["similarities"], (row["grid_height"], row["grid_width"])) for row in rows}


def masks(table: pa.Table, records: pd.DataFrame) -> dict[str, np.ndarray]:
    sizes = records.set_index("record_id")[["height", "width"]]
    return {row["record_id"]: decode_mask(row["mask"], *sizes.loc[row["record_id"]]) for row in table.to_pylist()}


def test_every_record_has_its_expressions_similarities(model: TSEG, records: pd.DataFrame) -> None:
    table = predict_records(model, records, **VIEWS)
    assert table.schema == PREDICTIONS
    predicted = maps(table)
    assert set(predicted) == set(records["record_id"])
    for record in records.itertuples():
        expected = predict_similarities(model, open_picture(record.file_name), [record.expression], **VIEWS)[0]
        assert predicted[record.record_id].shape == expected.shape
        np.testing.assert_allclose(predicted[record.record_id], expected, rtol=2**-10, atol=1e-4)  # float16


@pytest.mark.parametrize("pooling", ["gap", "gmp", "spa", "mpa"])
def test_every_record_has_the_mask_of_its_expression_beside_those_of_its_picture(
    model: TSEG, records: pd.DataFrame, pooling: str
) -> None:
    predictions = predict_records(model, records, **VIEWS)
    table = mask_records(records, predictions.to_pandas(), pooling=pooling, **RULES)
    assert table.schema == MASKS
    found, similarities = masks(table, records), maps(predictions)
    assert set(found) == set(records["record_id"])
    for file_name, of_picture in records.groupby("file_name"):
        stacked = np.stack([similarities[record_id] for record_id in of_picture["record_id"]]).astype(np.float32)
        expected = segment(torch.from_numpy(stacked), open_picture(str(file_name)), pooling=pooling, **RULES)
        for record_id, mask in zip(of_picture["record_id"], expected, strict=True):
            np.testing.assert_array_equal(found[record_id], mask)


def test_an_expression_said_twice_does_not_compete_with_itself(model: TSEG, records: pd.DataFrame) -> None:
    twice = pd.concat([records, records.assign(record_id=records["record_id"] + "again")], ignore_index=True)
    once, both = (
        masks(mask_records(table, predict_records(model, table, **VIEWS).to_pandas(), pooling="spa", **RULES), table)
        for table in (records, twice)
    )
    for record_id, mask in once.items():
        np.testing.assert_array_equal(both[record_id], mask)
        np.testing.assert_array_equal(both[record_id + "again"], mask)


def test_the_order_of_records_does_not_matter(model: TSEG, records: pd.DataFrame) -> None:
    shuffled = records.sample(frac=1, random_state=0)
    ours = mask_records(records, predict_records(model, records, **VIEWS).to_pandas(), pooling="mpa", **RULES)
    theirs = mask_records(shuffled, predict_records(model, shuffled, **VIEWS).to_pandas(), pooling="mpa", **RULES)
    assert sorted(ours.to_pylist(), key=str) == sorted(theirs.to_pylist(), key=str)


def test_a_record_without_prediction_is_refused_by_name(model: TSEG, records: pd.DataFrame) -> None:
    predictions = predict_records(model, records, **VIEWS).to_pandas()
    absent = records["record_id"].iloc[2]
    with pytest.raises(ValueError, match=rf"1 of {len(records)} records have no prediction, {absent}"):
        mask_records(records, predictions[predictions["record_id"] != absent], pooling="mpa", **RULES)


def test_pictures_without_prediction_cannot_be_read_in_place_of_others(model: TSEG, records: pd.DataFrame) -> None:
    gone = records.assign(file_name=[f"{name}.gone" for name in records["file_name"]])
    with pytest.raises(ValueError, match=r"\.png\.gone cannot be read"):
        predict_records(model, gone, **VIEWS)
