"""Figures of classes show label maps beside the truth."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tseg.records import encode_mask
from tseg.reporting.figures.classes import draw_classes
from tseg.reporting.figures.overlay import LOOKS, VOID_LOOK

CLASSES = ["cow", "cat", "dog"]
HOW = {"only": None, "num_panels": 4, "seed": 0, "title": "Classes", "caption": "What is seen."}
SIZE = 40, 40


def part(top: int, bottom: int) -> str:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom] = True
    return encode_mask(mask)


@pytest.fixture
def records(tmp_path: Path) -> pd.DataFrame:
    """One image with a cow above a cat and a void strip, and one with a dog."""
    for name in "ab":
        Image.new("RGB", SIZE, "#808080").save(tmp_path / f"{name}.png")
    rows = [("a", "cow", part(0, 10), part(38, 40)), ("a", "cat", part(10, 20), None), ("b", "dog", part(0, 40), None)]
    columns = ["image_id", "expression", "mask", "ignore"]
    paths = {name: str(tmp_path / f"{name}.png") for name in "ab"}
    records = pd.DataFrame(rows, columns=columns).assign(height=SIZE[0], width=SIZE[1])
    return records.assign(file_name=records["image_id"].map(paths))


@pytest.fixture
def labels() -> pd.DataFrame:
    """A dog in the lower half of one image, nothing in the other."""
    rows = [("a", "background", part(0, 20)), ("a", "dog", part(20, 40)), ("b", "background", part(0, 40))]
    return pd.DataFrame(rows, columns=["image_id", "label", "mask"])


def test_figures_are_drawn_the_same_twice(records: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        draw_classes(records, {"TSEG": labels}, CLASSES, tmp_path / name, **HOW)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_regions_are_named_and_have_the_colours_of_the_legend(
    records: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    draw_classes(records, {"TSEG": labels}, CLASSES, tmp_path / "classes.png", **HOW | {"only": ["cow"]})
    (figure,) = shown
    assert figure.columns == ["image", "TSEG", "truth"]
    assert figure.settings["keys"] == dict(zip([*CLASSES, "not counted"], [*LOOKS[:3], VOID_LOOK], strict=True))
    ((_, predicted, truth),) = (row.panels for row in figure.rows)
    assert [(name, y // 200) for _, y, name in predicted.names] == [("dog", 1)]
    assert [(name, y // 100) for _, y, name in truth.names] == [("cow", 0), ("cat", 1)]
    pixels = np.asarray(truth.image)
    assert len(np.unique(pixels[10:90, 200], axis=0)) == 1
    assert len(np.unique(np.asarray(predicted.image)[5:195].reshape(-1, 3), axis=0)) == 1  # the background


def test_only_images_with_a_requested_class_are_drawn(
    records: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    draw_classes(records, {"TSEG": labels}, CLASSES, tmp_path / "classes.png", **HOW)
    draw_classes(records, {"TSEG": labels}, CLASSES, tmp_path / "classes.png", **HOW | {"only": ["dog", "horse"]})
    assert [len(figure.rows) for figure in shown] == [2, 1]
    assert "Images with dog or horse were drawn at random" in shown[1].settings["caption"]
    with pytest.raises(ValueError, match="no image has any of these classes: horse"):
        draw_classes(records, {"TSEG": labels}, CLASSES, tmp_path / "classes.png", **HOW | {"only": ["horse"]})


def test_names_are_drawn_inside_the_image(
    records: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    narrow = np.zeros(SIZE, bool)
    narrow[:3, 32:] = True
    labels.loc[labels["label"] == "dog", "mask"] = encode_mask(narrow)
    draw_classes(records, {"TSEG": labels}, CLASSES, tmp_path / "classes.png", **HOW | {"only": ["cow"]})
    ((x, y, _),) = shown[0].rows[0].panels[1].names
    assert 300 < x <= 350
    assert 10 < y < 100


def test_a_missing_map_and_an_unknown_label_are_named(
    records: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="TSEG has no label map of the image b"):
        draw_classes(records, {"TSEG": labels[labels["image_id"] == "a"]}, CLASSES, tmp_path / "classes.png", **HOW)
    with pytest.raises(ValueError, match="the label 'dog' is not one of the classes"):
        draw_classes(records, {"TSEG": labels}, CLASSES[:2], tmp_path / "classes.png", **HOW)


def test_more_classes_than_styles_can_be_drawn(records: pd.DataFrame, labels: pd.DataFrame, tmp_path: Path) -> None:
    many = [f"class {number}" for number in range(len(LOOKS))] + CLASSES
    draw_classes(records, {"TSEG": labels}, many, tmp_path / "classes.png", **HOW)
    assert (tmp_path / "classes.png").exists()
