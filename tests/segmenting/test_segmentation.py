"""What is made of masks, against pycocotools and Pillow."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tseg import Segmenter
from tseg.segmenting.segmentation import OVERLAY_PIXELS, slug

PHRASES = ["red square", "a/b: c\n", "ein Bär 🐻"]


def photo(width: int = 70, height: int = 45) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_coco_annotations_are_those_of_pycocotools(segmenter: Segmenter) -> None:
    found = segmenter(photo(), PHRASES)
    annotations = found.to_coco(image_id=7, first_id=3)
    assert [each["id"] for each in annotations] == [3, 4, 5]
    for number, each in enumerate(annotations):
        rle = {"size": [45, 70], "counts": each["segmentation"]["counts"].encode()}
        np.testing.assert_array_equal(coco_mask.decode(rle), found.masks[number])
        assert each["area"] == found.masks[number].sum()
        rows, columns = (np.flatnonzero(found.masks[number].any(axis=axis)) for axis in (1, 0))
        expected = [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1] if len(rows) else [0, 0, 0, 0]
        assert each["bbox"] == expected
        assert (each["image_id"], each["phrase"], each["score"]) == (7, found.phrases[number], found.scores[number])


def test_files_are_named_by_number_and_phrase_and_hold_the_masks(segmenter: Segmenter, tmp_path: Path) -> None:
    found = segmenter(photo(), PHRASES)
    files = found.save_pngs(tmp_path / "out", heatmaps=True)
    names = ["1-red-square", "2-a-b-c", "3-ein-Bär"]
    expected = [*(f"{name}.png" for name in names), *(f"{name}-heatmap.png" for name in names), "overlay.png"]
    assert [file.name for file in files] == expected
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(expected)
    for mask, heatmap, name in zip(found.masks, found.heatmaps, names, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"out/{name}.png")), mask)
        grey = np.asarray(Image.open(tmp_path / f"out/{name}-heatmap.png"))
        assert np.abs(grey / 255 - heatmap).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("phrase", "name"), [("../../etc", "etc"), ("🐻", "phrase"), ("x" * 300, "x" * 40), ("-a-", "a")]
)
def test_a_phrase_is_no_path(phrase: str, name: str) -> None:
    assert slug(phrase) == name


def test_an_overlay_changes_only_the_masks_and_is_small(segmenter: Segmenter) -> None:
    found = segmenter(photo(), PHRASES)
    outside = ~found.masks.any(axis=0)
    assert outside.any() and not outside.all()
    np.testing.assert_array_equal(np.asarray(found.overlay())[outside], np.asarray(found.image)[outside])
    alone = ~found.masks[1]
    np.testing.assert_array_equal(np.asarray(found.overlay(1))[alone], np.asarray(found.image)[alone])
    large = segmenter(photo(2000, 1000), "red square").overlay()
    assert large.size == (OVERLAY_PIXELS, OVERLAY_PIXELS // 2)


def test_more_phrases_than_looks_can_be_overlaid(segmenter: Segmenter) -> None:
    found = segmenter(photo(), [f"thing {number}" for number in range(40)])
    assert found.overlay().size == (70, 45)
    assert len(found) == 40 and repr(found).startswith("Segmentation(70 x 45 pixels, 'thing 0': 0.")
