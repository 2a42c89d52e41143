"""Tables of predictions and masks against results computed one image at a time."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from tseg.images import open_image
from tseg.inference.masks import MASKS, mask_records, segment_masks
from tseg.inference.predict import PREDICTIONS, predict_records, predict_similarities
from tseg.model.tseg import TSEG
from tseg.records import decode_mask

VIEWS: dict[str, Any] = {"words": None, "resolution": 48, "scales": (1.0, 1.5), "flip": True, "flip_words": "swap"}
RULES: dict[str, Any] = {"background": 0.2, "crf": None}


def maps(table: pa.Table) -> dict[tuple[str, str], np.ndarray]:
    return {
        (row["image_id"], row["expression"]): np.reshape(row["similarities"], (row["grid_height"], row["grid_width"]))
        for row in table.to_pylist()
    }


def questions(records: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(records["image_id"], records["expression"], strict=True))


def masks(table: pa.Table, records: pd.DataFrame) -> dict[str, np.ndarray]:
    sizes = records.set_index("record_id")[["height", "width"]]
    return {row["record_id"]: decode_mask(row["mask"], *sizes.loc[row["record_id"]]) for row in table.to_pylist()}


def assert_predicted(
    predicted: dict[tuple[str, str], np.ndarray], model: TSEG, records: pd.DataFrame, words: list[str] | None
) -> None:
    views = {key: value for key, value in VIEWS.items() if key != "words"}
    views |= {"flip_words": "keep"} if words else {}  # names of classes keep their words
    for record in records.drop_duplicates("image_id" if words else "record_id").itertuples():
        for expression in words or [record.expression]:
            expected = predict_similarities(model, open_image(record.file_name), [expression], **views)[0]
            found = predicted[record.image_id, expression]
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=2**-10, atol=1e-4)  # float16


def test_every_image_is_compared_to_its_own_expressions_once(model: TSEG, records: pd.DataFrame) -> None:
    twice = pd.concat([records, records.assign(record_id=records["record_id"] + "again")])
    table = predict_records(model, twice, **VIEWS)
    assert table.schema == PREDICTIONS
    assert len(table) == len(set(questions(records)))
    assert set(maps(table)) == set(questions(records))
    assert_predicted(maps(table), model, records, None)


def test_with_words_every_image_is_compared_to_all_of_them(model: TSEG, records: pd.DataFrame) -> None:
    words = ["green square", "square on the left", "star"]
    table = predict_records(model, records, **VIEWS | {"words": [*words, "star"]})
    assert len(table) == 4 * len(words)
    assert set(maps(table)) == {(image, word) for image in "abcd" for word in words}
    assert_predicted(maps(table), model, records, words)


@pytest.mark.parametrize("pooling", ["gap", "gmp", "spa", "mpa"])
def test_every_record_has_the_mask_of_its_expression_among_those_of_its_image(
    model: TSEG, records: pd.DataFrame, pooling: str
) -> None:
    predictions = predict_records(model, records, **VIEWS)
    table = mask_records(records, predictions.to_pandas(), pooling=pooling, **RULES)
    assert table.schema == MASKS
    found, similarities = masks(table, records), maps(predictions)
    assert set(found) == set(records["record_id"])
    for file_name, of_image in records.groupby("file_name"):
        stacked = np.stack([similarities[question] for question in questions(of_image)]).astype(np.float32)
        expected = segment_masks(torch.from_numpy(stacked), open_image(str(file_name)), pooling=pooling, **RULES)
        for record_id, mask in zip(of_image["record_id"], expected, strict=True):
            np.testing.assert_array_equal(found[record_id], mask)


def test_a_repeated_expression_does_not_compete_with_itself(model: TSEG, records: pd.DataFrame) -> None:
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


def test_masks_do_not_depend_on_other_predicted_expressions(model: TSEG, records: pd.DataFrame) -> None:
    words, views = [*records["expression"], "star"], VIEWS | {"flip_words": "keep"}
    own, all_words = (predict_records(model, records, **views | {"words": compared}) for compared in (None, words))
    found, expected = (mask_records(records, table.to_pandas(), pooling="spa", **RULES) for table in (all_words, own))
    different = [(masks(found, records)[key] != mask).mean() for key, mask in masks(expected, records).items()]
    assert max(different) < 0.01  # pixels whose similarity float16 rounds to the other side


def test_a_record_without_prediction_is_refused_by_name(model: TSEG, records: pd.DataFrame) -> None:
    """Other images have a prediction of its expression."""
    predictions = predict_records(model, records, **VIEWS).to_pandas()
    image_id, expression = questions(records)[2]
    others = (predictions["image_id"] != image_id) | (predictions["expression"] != expression)
    absent = records["record_id"].iloc[2]
    with pytest.raises(ValueError, match=rf"1 of {len(records)} records have no prediction, {absent}"):
        mask_records(records, predictions[others], pooling="mpa", **RULES)


def test_a_missing_image_is_an_error_and_is_never_replaced_by_another(model: TSEG, records: pd.DataFrame) -> None:
    gone = records.assign(file_name=[f"{name}.gone" for name in records["file_name"]])
    with pytest.raises(ValueError, match=r"\.png\.gone cannot be read"):
        predict_records(model, gone, **VIEWS)
