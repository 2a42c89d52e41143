"""The assignment figure shows the pair that its rule chooses, with the weights of eq. 5 and eq. 6."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tseg.records import encode_mask
from tseg.reporting.figures.assignment import draw_assignment

SIDE, GRID = 40, 4
HOW = {"title": "Assignment", "caption": "What is seen."}
# By image and expression, the rows of patches that the expression describes.
ROWS = {
    "a": {"sky": (0, 2), "blue": (1, 3), "far": (3, 4)},
    "b": {"sky": (0, 2), "blue": (1, 3)},
    "c": {"sky": (0, 2), "blue": (0, 2)},
}


@pytest.fixture
def records(tmp_path: Path) -> pd.DataFrame:
    rows = []
    for image_id, expressions in ROWS.items():
        Image.effect_noise((SIDE, SIDE), 50).convert("RGB").save(tmp_path / f"{image_id}.png")
        for expression, (top, bottom) in expressions.items():
            mask = np.zeros((SIDE, SIDE), bool)
            mask[top * SIDE // GRID : bottom * SIDE // GRID] = True
            rows.append((image_id, expression, str(tmp_path / f"{image_id}.png"), SIDE, SIDE, encode_mask(mask)))
    return pd.DataFrame(rows, columns=["image_id", "expression", "file_name", "height", "width", "mask"])


def predict(records: pd.DataFrame, means: dict[str, float]) -> pd.DataFrame:
    """Similarities around the mean of an image."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "image_id": record.image_id,
            "expression": record.expression,
            "scale": 1.0,
            "flipped": False,
            "grid_height": GRID,
            "grid_width": GRID,
            "similarities": (means[str(record.image_id)] + rng.normal(size=GRID**2)).astype(np.float16),
        }
        for record in records.itertuples()
    )


def test_weights_are_those_of_the_equations(records: pd.DataFrame, tmp_path: Path, shown: list) -> None:
    predictions = predict(records, {"a": 5, "b": 0, "c": 9})
    draw_assignment(records, predictions, tmp_path / "assignment.png", **HOW)
    (figure,) = shown
    assert [row.heading for row in figure.rows] == ["sky", "blue"]
    assert figure.columns == ["image", "truth", "SPA weights (eq. 5)", "MPA weights (eq. 6)"]
    maps = np.stack(predictions["similarities"][:3].to_list()).astype(np.float64)
    spa = np.exp(maps) / (1 + np.exp(maps).sum(axis=0))
    mpa = np.exp(maps) / (1 + np.exp(maps))
    shared = slice(GRID, 2 * GRID)  # the second row of patches
    for number, row in enumerate(figure.rows):
        expected = [f"mean where shared {weights[number, shared].mean():.2f}" for weights in (spa, mpa)]
        assert [panel.corner for panel in row.panels[2:]] == expected


def test_the_pair_is_the_most_similar_of_those_that_are_not_contained(
    records: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    for means in ({"a": 5, "b": 0, "c": 9}, {"a": 0, "b": 5, "c": 9}):
        draw_assignment(records, predict(records, means), tmp_path / "assignment.png", **HOW)
    assert ["image's 3 expressions" in figure.settings["caption"] for figure in shown] == [True, False]
    assert all("share 20% to 95% of the smaller mask" in figure.settings["caption"] for figure in shown)


def test_a_pair_is_as_similar_as_the_lower_of_its_two_similarities(
    records: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    predictions = predict(records, {"a": 2, "b": 3, "c": 9})
    one_sided = predictions["image_id"].eq("b") & predictions["expression"].eq("blue")
    predictions.loc[one_sided, "similarities"] = predictions.loc[one_sided, "similarities"].map(lambda s: s - 20)
    draw_assignment(records, predictions, tmp_path / "assignment.png", **HOW)
    assert "image's 3 expressions" in shown[0].settings["caption"]


def test_contained_masks_are_shown_only_where_there_are_no_others(
    records: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    records = records[records["image_id"] == "c"]
    draw_assignment(records, predict(records, {"c": 1}), tmp_path / "assignment.png", **HOW)
    assert "No pair shares 20% to 95%." in shown[0].settings["caption"]


def test_a_data_set_without_overlap_and_a_missing_prediction_are_named(records: pd.DataFrame, tmp_path: Path) -> None:
    predictions = predict(records, {"a": 5, "b": 0, "c": 9})
    with pytest.raises(ValueError, match="no two expressions of an image have overlapping true masks"):
        draw_assignment(records[records["expression"] == "sky"], predictions, tmp_path / "assignment.png", **HOW)
    for expression in ("blue", "far"):  # one of the pair, and one that only the softmax needs
        others = predictions[predictions["expression"] != expression]
        with pytest.raises(ValueError, match=f"no prediction for '{expression}' in the image a"):
            draw_assignment(records, others, tmp_path / "assignment.png", **HOW)
    assert not (tmp_path / "assignment.png").exists()


def test_pairs_are_chosen_among_records_with_masks(records: pd.DataFrame, tmp_path: Path, shown: list) -> None:
    """The softmax still goes over all expressions of the image."""
    predictions = predict(records, {"a": 5, "b": 0, "c": 9})
    some = records.assign(mask=records["mask"].where(records["image_id"] != "b").where(records["expression"] != "far"))
    draw_assignment(some, predictions, tmp_path / "assignment.png", **HOW)
    draw_assignment(records, predictions, tmp_path / "assignment.png", **HOW)
    corners = [[panel.corner for row in figure.rows for panel in row.panels] for figure in shown]
    assert corners[0] == corners[1]
    with pytest.raises(ValueError, match="the records have no masks, and this figure needs true masks"):
        draw_assignment(records.assign(mask=None), predictions, tmp_path / "assignment.png", **HOW)


def test_of_several_views_the_first_is_drawn(records: pd.DataFrame, tmp_path: Path, shown: list) -> None:
    one = predict(records, {"a": 5, "b": 0, "c": 9})
    other = predict(records, {"a": 0, "b": 5, "c": 1}).assign(scale=2.0)
    several = pd.concat([one, other]).sort_values("image_id", kind="stable")
    for predictions in (one, several):
        draw_assignment(records, predictions, tmp_path / "assignment.png", **HOW)
    corners = [[panel.corner for row in figure.rows for panel in row.panels] for figure in shown]
    assert corners[0] == corners[1]


def test_the_figure_is_drawn_the_same_twice(records: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        draw_assignment(records, predict(records, {"a": 5, "b": 0, "c": 9}), tmp_path / name, **HOW)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
