"""Figures of masks show randomly drawn records and have the same bytes every time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tseg.records import encode_mask
from tseg.reporting.figures.masks import draw_expressions, draw_masks
from tseg.reporting.figures.overlay import LOOKS, overlay, pale, working_mask, working_size

HOW = {"num_panels": 4, "seed": 0, "title": "$a", "caption": "What is seen."}


def test_figures_are_drawn_the_same_twice(rectangles: pd.DataFrame, tmp_path: Path) -> None:
    masks = rectangles[["record_id", "mask"]]
    for name in ("first.png", "second.png"):
        how = HOW | {"num_panels": 2}
        draw_masks(rectangles, {"TSEG": masks, "SPA": masks.iloc[::-1]}, tmp_path / f"masks-{name}", **how)
        draw_expressions(rectangles, masks, tmp_path / f"expressions-{name}", **how)
    for kind in ("masks", "expressions"):
        assert (tmp_path / f"{kind}-first.png").read_bytes() == (tmp_path / f"{kind}-second.png").read_bytes()


def test_what_is_shown_does_not_depend_on_the_masks(rectangles: pd.DataFrame, tmp_path: Path, shown: list) -> None:
    turned = rectangles.assign(mask=rectangles["mask"].iloc[::-1].to_list())
    for masks in (rectangles, turned):
        draw_masks(rectangles, {"TSEG": masks[["record_id", "mask"]]}, tmp_path / "masks.png", **HOW)
    first, second = ([row.heading for row in figure.rows] for figure in shown)
    assert first == second
    assert len({int(heading.split(":")[0]) // 2 for heading in first}) == 4


def test_another_seed_draws_other_records(rectangles: pd.DataFrame, tmp_path: Path, shown: list) -> None:
    for seed in (0, 1):
        masks = {"TSEG": rectangles[["record_id", "mask"]]}
        draw_masks(rectangles, masks, tmp_path / "masks.png", **HOW | {"seed": seed})
    first, second = ([row.heading for row in figure.rows] for figure in shown)
    assert first != second


def test_the_corner_shows_the_iou_of_the_pixels_that_count(
    rectangles: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    shifted = rectangles.assign(mask=rectangles["mask"].iloc[[1, 2, 3, 4, 5, 6, 7, 0]].to_list())
    for number in (0, 1):  # a record where all pixels count, and one whose ignored pixels are those outside the truth
        record = rectangles.iloc[[number]]
        draw_masks(record, {"TSEG": shifted[["record_id", "mask"]]}, tmp_path / "masks.png", **HOW)
    corners = [figure.rows[0].panels[2].corner for figure in shown]
    sizes = [{"counts": mask.encode(), "size": [24, 40]} for mask in rectangles["mask"][:2]]
    iou = coco_mask.iou(sizes[1:], sizes[:1], [0]).item()
    assert corners == [f"IoU {iou:.2f}", f"IoU {19 / 20:.2f}"]


def test_a_record_without_a_mask_is_named(rectangles: pd.DataFrame, tmp_path: Path) -> None:
    nothing = rectangles[["record_id", "mask"]].head(0)
    with pytest.raises(ValueError, match="TSEG has no mask of the record r"):
        draw_masks(rectangles, {"TSEG": nothing}, tmp_path / "masks.png", **HOW)
    with pytest.raises(ValueError, match="the prediction has no mask of the record r"):
        draw_expressions(rectangles, nothing, tmp_path / "masks.png", **HOW)
    assert not (tmp_path / "masks.png").exists()


def test_the_expressions_of_an_image_share_its_panels_in_distinct_styles(
    rectangles: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    draw_expressions(rectangles.head(2), rectangles[["record_id", "mask"]], tmp_path / "expressions.png", **HOW)
    (row,) = shown[0].rows
    assert list(row.keys.items()) == list(zip(rectangles["expression"][:2], LOOKS, strict=False))
    image = working_size(Image.open(rectangles["file_name"][0]).convert("RGB"))
    masks = np.zeros((2, 24, 40), bool)
    masks[0, 4:16, :20] = masks[1, 4:16, 1:21] = True
    expected = overlay(pale(image), [working_mask(mask, image.size) for mask in masks], LOOKS[:2])
    assert [panel.image.tobytes() for panel in row.panels] == [image.tobytes(), *[expected.tobytes()] * 2]


def test_at_most_six_expressions_are_shown_and_the_others_counted(
    rectangles: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    crowd = rectangles.assign(image_id="i0", mask=encode_mask(np.ones((24, 40), bool)))
    draw_expressions(crowd, crowd[["record_id", "mask"]], tmp_path / "expressions.png", **HOW)
    (row,) = shown[0].rows
    assert list(row.keys) == [*crowd["expression"][:6], "(and 2 more)"]


def test_records_without_masks_are_drawn_without_truth_and_score(
    rectangles: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    found, bare = rectangles[["record_id", "mask"]], rectangles.assign(mask=None)
    for records in (rectangles, bare):
        draw_masks(records, {"TSEG": found}, tmp_path / "masks.png", **HOW)
        draw_expressions(records, found, tmp_path / "expressions.png", **HOW)
    masks, expressions, bare_masks, bare_expressions = shown
    assert (bare_masks.columns, bare_expressions.columns) == (["image", "TSEG"], ["image", "prediction"])
    assert list(bare_masks.settings["keys"]) == ["prediction"]
    for with_truth, bare in ((masks, bare_masks), (expressions, bare_expressions)):
        for row, bare_row in zip(with_truth.rows, bare.rows, strict=True):
            left = [panel for name, panel in zip(with_truth.columns, row.panels, strict=True) if name != "truth"]
            assert [panel.image.tobytes() for panel in left] == [panel.image.tobytes() for panel in bare_row.panels]
            assert not any(panel.corner for panel in bare_row.panels)


def test_records_without_masks_are_marked_if_others_have_masks(
    rectangles: pd.DataFrame, tmp_path: Path, shown: list
) -> None:
    found = rectangles[["record_id", "mask"]]
    some = rectangles.assign(mask=[None, *rectangles["mask"][1:]])
    first, second = some.head(1), some.iloc[2:3]  # of two images
    draw_masks(pd.concat([first, second]), {"TSEG": found}, tmp_path / "masks.png", **HOW)
    draw_expressions(some.head(2), found, tmp_path / "expressions.png", **HOW)
    corners = {row.heading: [panel.corner for panel in row.panels] for row in shown[0].rows}
    assert corners == {
        first["expression"].item(): ["", "1 without a mask", ""],
        second["expression"].item(): ["", "", "IoU 1.00"],
    }
    (row,) = shown[1].rows
    image = working_size(Image.open(rectangles["file_name"][0]).convert("RGB"))
    truth = np.zeros((24, 40), bool)
    truth[4:16, 1:21] = True
    expected = overlay(pale(image), [working_mask(truth, image.size)], LOOKS[1:2])
    assert (row.panels[2].corner, row.panels[2].image.tobytes()) == ("1 without a mask", expected.tobytes())
