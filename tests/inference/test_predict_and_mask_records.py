"""Tables of predictions and masks against results computed one image at a time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from tseg.images import open_image
from tseg.inference import predict
from tseg.inference.masks import MaskRules, segment_masks
from tseg.inference.predict import Seen, predict_views
from tseg.model.tseg import TSEG
from tseg.records import MASKS, PREDICTIONS, decode_mask

from ..tables import mask_records, predict_records

VIEWS: dict[str, Any] = {"words": None, "resolution": 48, "scales": (1.0, 1.5), "flip": True, "flip_words": "swap"}


Maps = dict[tuple[str, str], list[np.ndarray]]  # image and expression to the similarities of each view


def maps(table: pa.Table) -> Maps:
    found: Maps = {}
    for row in table.to_pylist():
        values = np.reshape(row["similarities"], (row["grid_height"], row["grid_width"]))
        found.setdefault((row["image_id"], row["expression"]), []).append(values)
    return found


def questions(records: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(records["image_id"], records["expression"], strict=True))


def masks(table: pa.Table, records: pd.DataFrame) -> dict[str, np.ndarray]:
    sizes = records.set_index("record_id")[["height", "width"]]
    return {row["record_id"]: decode_mask(row["mask"], *sizes.loc[row["record_id"]]) for row in table.to_pylist()}


def assert_predicted(predicted: Maps, model: TSEG, records: pd.DataFrame, words: list[str] | None) -> None:
    views = {key: value for key, value in VIEWS.items() if key != "words"}
    views |= {"flip_words": "keep"} if words else {}  # names of classes keep their words
    for record in records.drop_duplicates("image_id" if words else "record_id").itertuples():
        for expression in words or [record.expression]:
            expected = predict_views(model, open_image(record.file_name), [expression], Seen(**views))
            for found, view in zip(predicted[record.image_id, expression], expected, strict=True):
                np.testing.assert_allclose(found, view.similarities[0], rtol=2**-10, atol=1e-4)  # float16


def test_every_image_is_compared_to_its_own_expressions_once(model: TSEG, records: pd.DataFrame) -> None:
    twice = pd.concat([records, records.assign(record_id=records["record_id"] + "again")])
    table = predict_records(model, twice, **VIEWS)
    assert table.schema == PREDICTIONS
    assert len(table) == 4 * len(set(questions(records)))  # views
    assert set(maps(table)) == set(questions(records))
    assert_predicted(maps(table), model, records, None)


def test_with_words_every_image_is_compared_to_all_of_them(model: TSEG, records: pd.DataFrame) -> None:
    words = ["green square", "square on the left", "star"]
    table = predict_records(model, records, **VIEWS | {"words": [*words, "star"]})
    assert len(table) == 4 * 4 * len(words)  # images, views
    assert set(maps(table)) == {(image, word) for image in "abcd" for word in words}
    assert_predicted(maps(table), model, records, words)


@pytest.mark.parametrize("pooling", ["gap", "gmp", "spa", "mpa"])
def test_every_record_has_the_mask_of_its_expression_among_those_of_its_image(
    model: TSEG, records: pd.DataFrame, pooling: str
) -> None:
    predictions = predict_records(model, records, **VIEWS)
    table = mask_records(records, predictions.to_pandas(), MaskRules(pooling))
    assert table.schema == MASKS
    found, similarities = masks(table, records), maps(predictions)
    assert set(found) == set(records["record_id"])
    for file_name, of_image in records.groupby("file_name"):
        by_view = zip(*(similarities[question] for question in questions(of_image)), strict=True)
        views = [torch.from_numpy(np.stack(of_view).astype(np.float32)) for of_view in by_view]
        expected = segment_masks(views, open_image(str(file_name)), MaskRules(pooling))
        for record_id, mask in zip(of_image["record_id"], expected, strict=True):
            np.testing.assert_array_equal(found[record_id], mask)


def test_a_repeated_expression_does_not_compete_with_itself(model: TSEG, records: pd.DataFrame) -> None:
    twice = pd.concat([records, records.assign(record_id=records["record_id"] + "again")], ignore_index=True)
    once, both = (
        masks(mask_records(table, predict_records(model, table, **VIEWS).to_pandas(), MaskRules("spa")), table)
        for table in (records, twice)
    )
    for record_id, mask in once.items():
        np.testing.assert_array_equal(both[record_id], mask)
        np.testing.assert_array_equal(both[record_id + "again"], mask)


def test_the_order_of_records_does_not_matter(model: TSEG, records: pd.DataFrame) -> None:
    shuffled = records.sample(frac=1, random_state=0)
    ours = mask_records(records, predict_records(model, records, **VIEWS).to_pandas(), MaskRules("mpa"))
    theirs = mask_records(shuffled, predict_records(model, shuffled, **VIEWS).to_pandas(), MaskRules("mpa"))
    assert sorted(ours.to_pylist(), key=str) == sorted(theirs.to_pylist(), key=str)


def test_masks_do_not_depend_on_other_predicted_expressions(model: TSEG, records: pd.DataFrame) -> None:
    words, views = [*records["expression"], "star"], VIEWS | {"flip_words": "keep"}
    own, all_words = (predict_records(model, records, **views | {"words": compared}) for compared in (None, words))
    found, expected = (mask_records(records, table.to_pandas(), MaskRules("spa")) for table in (all_words, own))
    different = [(masks(found, records)[key] != mask).mean() for key, mask in masks(expected, records).items()]
    assert max(different) < 0.01  # pixels whose similarity float16 rounds to the other side


def test_the_order_of_predictions_does_not_matter(model: TSEG, records: pd.DataFrame) -> None:
    predictions = predict_records(model, records, **VIEWS).to_pandas()
    shuffled = predictions.sample(frac=1, random_state=0)
    ours, theirs = (mask_records(records, rows, MaskRules("spa")) for rows in (predictions, shuffled))
    assert ours.to_pylist() == theirs.to_pylist()


def test_the_oracle_cuts_at_the_area_of_the_expressions_true_masks(model: TSEG, records: pd.DataFrame) -> None:
    """Of the union, if an expression has two masks. A record without a true mask has an empty one, and no score."""
    predictions = predict_records(model, records, **VIEWS).to_pandas()
    red, _, blue, on_the_right = records["record_id"][:4]
    another = records.iloc[:1].assign(record_id="another", mask=records.set_index("record_id").at[blue, "mask"])
    some = pd.concat([records, another], ignore_index=True)
    some["mask"] = some["mask"].where(some["record_id"] != on_the_right)
    areas = dict.fromkeys(some["record_id"], 14 * 14) | {red: 2 * 14 * 14, "another": 2 * 14 * 14, on_the_right: 0}
    found = masks(mask_records(some, predictions, MaskRules("mpa", threshold="oracle")), some)
    assert {record_id: mask.sum() for record_id, mask in found.items()} == areas
    with pytest.raises(ValueError, match=r"none of the \d+ records has a true mask, which the threshold oracle needs"):
        mask_records(records.assign(mask=None), predictions, MaskRules("mpa", threshold="oracle"))


def test_a_record_without_prediction_is_refused_by_name(model: TSEG, records: pd.DataFrame) -> None:
    """Other images have a prediction of its expression."""
    predictions = predict_records(model, records, **VIEWS).to_pandas()
    image_id, expression = questions(records)[2]
    others = (predictions["image_id"] != image_id) | (predictions["expression"] != expression)
    absent = records["record_id"].iloc[2]
    with pytest.raises(ValueError, match=rf"1 of {len(records)} records have no prediction, {absent}"):
        mask_records(records, predictions[others], MaskRules("mpa"))


def test_a_missing_image_is_an_error_and_is_never_replaced_by_another(model: TSEG, records: pd.DataFrame) -> None:
    gone = records.assign(file_name=[f"{name}.gone" for name in records["file_name"]])
    with pytest.raises(ValueError, match=r"\.png\.gone cannot be read"):
        predict_records(model, gone, **VIEWS)


@pytest.mark.parametrize("name", ["PATCHES_AT_ONCE_ON_CPU", "EXPRESSIONS_AT_ONCE", "IMAGES_AT_ONCE"])
def test_predictions_do_not_depend_on_what_is_computed_together(
    model: TSEG, records: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    expected = maps(predict_records(model, records, **VIEWS))
    monkeypatch.setattr(predict, name, 1)
    seen: list[int] = []

    def counting(encode: Callable[[Any], Any], batch: Any) -> Any:
        seen.append(len(batch))
        return encode(batch)

    for encode in ("embed_patches", "embed_expressions"):
        monkeypatch.setattr(model, encode, partial(counting, getattr(model, encode)))
    found = maps(predict_records(model, records, **VIEWS))
    assert found.keys() == expected.keys()
    for question, views in found.items():
        for ours, theirs in zip(views, expected[question], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2**-9, atol=1e-4)
    assert seen.count(1) >= 4  # images, or expressions, alone
