"""Figures show records drawn by lot, and are the same bytes whenever they are drawn."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tseg.records import encode_mask
from tseg.reporting.figures import draw_learning_curves, draw_masks, overlay

HEIGHT, WIDTH = 24, 40


@pytest.fixture
def records(tmp_path: Path) -> pd.DataFrame:
    """Two records on each of four pictures, their masks a rectangle."""
    rows = []
    for number in range(8):
        path = tmp_path / f"{number // 2}.png"
        noise = np.random.default_rng(number // 2).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[4:16, number : number + 20] = True
        ignore = encode_mask(~mask) if number % 2 else None
        expression = "a note of $5 or $10 " * (1 + 8 * (number % 2))
        rows.append((f"r{number}", f"i{number // 2}", str(path), HEIGHT, WIDTH, expression, encode_mask(mask), ignore))
    columns = ["record_id", "image_id", "file_name", "height", "width", "expression", "mask", "ignore"]
    return pd.DataFrame(rows, columns=columns)


def test_overlay_leaves_pixels_outside_the_mask_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:20, 10:30] = True
    laid = np.asarray(overlay(Image.fromarray(pixels), mask, "#E69F00"))
    assert (laid[~mask] == pixels[~mask]).all()
    assert (laid[5, 10:30] == (0xE6, 0x9F, 0x00)).all()  # the rim
    inside = pixels[12, 20].astype(float) * 0.5 + np.array([0xE6, 0x9F, 0x00]) * 0.5
    assert np.abs(laid[12, 20] - inside).max() <= 2  # the picture shows through


def test_overlay_of_an_empty_mask_is_the_picture() -> None:
    picture = Image.effect_noise((WIDTH, HEIGHT), 50).convert("RGB")
    assert overlay(picture, np.zeros((HEIGHT, WIDTH), bool), "#E69F00").tobytes() == picture.tobytes()


def test_masks_are_drawn_the_same_twice(records: pd.DataFrame, tmp_path: Path) -> None:
    masks = {"TSEG": records[["record_id", "mask"]], "SPA": records[["record_id", "mask"]].iloc[::-1]}
    for name in ("first.png", "second.png"):
        draw_masks(records, masks, tmp_path / name, num_panels=3, title="$a")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert Image.open(tmp_path / "first.png").width == 5 * 240


def test_what_is_shown_does_not_depend_on_the_masks(
    records: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr("tseg.reporting.figures._draw_row", lambda _, record, *__: shown.append(record.record_id))
    for masks in (records, records.assign(mask=records["mask"].iloc[::-1].to_list())):
        draw_masks(records, {"TSEG": masks[["record_id", "mask"]]}, tmp_path / "masks.png", num_panels=4)
    assert shown[:4] == shown[4:]
    assert len({records.set_index("record_id")["image_id"][record_id] for record_id in shown}) == 4


def test_the_corner_shows_the_iou_of_the_pixels_that_count(
    records: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr("tseg.reporting.figures._save", lambda figure, _: figures.append(figure))
    shifted = records.assign(mask=records["mask"].iloc[[1, 2, 3, 4, 5, 6, 7, 0]].to_list())
    for number in (0, 1):  # a record where all pixels count, and one whose ignored pixels are those outside the truth
        draw_masks(records.iloc[[number]], {"TSEG": shifted[["record_id", "mask"]]}, tmp_path / "masks.png")
    shown = [figure.axes[3].texts[0].get_text() for figure in figures]
    sizes = [{"counts": mask.encode(), "size": [HEIGHT, WIDTH]} for mask in records["mask"][:2]]
    overlap = coco_mask.iou(sizes[1:], sizes[:1], [0]).item()
    assert shown == [f"IoU {overlap:.2f}", f"IoU {19 / 20:.2f}"]


def test_a_record_without_a_mask_is_named(records: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="TSEG has no mask of the record r"):
        draw_masks(records, {"TSEG": records[["record_id", "mask"]].head(0)}, tmp_path / "masks.png")
    assert not (tmp_path / "masks.png").exists()


def test_learning_curves_are_drawn_the_same_twice(tmp_path: Path) -> None:
    loss = np.random.default_rng(0).random(50)
    history = pd.DataFrame({"iteration": range(1, 51), "loss": loss, "learning_rate": 0.1})
    for name in ("first.png", "second.png"):
        draw_learning_curves({"GAP": history, "TSEG": history.head(1)}, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
