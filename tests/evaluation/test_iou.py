"""IoU against pycocotools and NumPy; the interval against its nominal coverage."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as coco_mask

from tseg.evaluation.iou import PRECISION_THRESHOLDS, compare, summarise_records
from tseg.records import encode_mask

from ..tables import score_records

SIZES = [(20, 31), (31, 20), (7, 7), (1, 40), (25, 25), (12, 50)]  # height, width


def blobs(seed: int) -> list[np.ndarray]:
    """A random mask of each size; about a third of its pixels, in horizontal runs of 3, are True."""
    generator = np.random.default_rng(seed)
    return [np.repeat(generator.random((height, width)) < 0.35, 3, axis=1)[:, :width] for height, width in SIZES]


def table(masks: list[np.ndarray], ignore: list[np.ndarray | None] | None = None) -> pd.DataFrame:
    """Records, two per image."""
    rows = [
        {
            "record_id": f"r{number}",
            "image_id": f"i{number // 2}",
            "height": mask.shape[0],
            "width": mask.shape[1],
            "mask": encode_mask(mask),
            "ignore": None if ignored is None else encode_mask(ignored),
        }
        for number, (mask, ignored) in enumerate(zip(masks, ignore or [None] * len(masks), strict=True))
    ]
    return pd.DataFrame(rows)


def scores_of(ious: list[float], image_ids: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"iou": ious, "image_id": image_ids, "intersection": 1, "union": 2, "empty": False})


def test_iou_is_that_of_pycocotools() -> None:
    truths, predictions = table(blobs(0)), table(blobs(1))
    scores = score_records(truths, predictions[["record_id", "mask", "height", "width"]])
    for truth, prediction, iou in zip(blobs(0), blobs(1), scores["iou"], strict=True):
        theirs: Any = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in (prediction, truth)]
        assert iou == pytest.approx(coco_mask.iou(theirs[:1], theirs[1:], [0]).item(), rel=1e-12)


def test_intersection_and_union_are_those_of_numpy() -> None:
    scores = score_records(table(blobs(0)), table(blobs(1)))
    pairs = list(zip(blobs(0), blobs(1), strict=True))
    assert scores["intersection"].tolist() == [np.logical_and(*pair).sum() for pair in pairs]
    assert scores["union"].tolist() == [np.logical_or(*pair).sum() for pair in pairs]
    assert scores["record_id"].tolist() == table(blobs(0))["record_id"].tolist()
    assert scores["image_id"].tolist() == table(blobs(0))["image_id"].tolist()


def test_ignored_pixels_do_not_change_the_iou() -> None:
    """Some records ignore nothing."""
    ignored = [mask if number % 2 else None for number, mask in enumerate(blobs(2))]
    scores = score_records(table(blobs(0), ignored), table(blobs(1)))
    for truth, prediction, mask, iou in zip(blobs(0), blobs(1), ignored, scores["iou"], strict=True):
        counted = np.ones_like(truth) if mask is None else ~mask
        expected = (truth & prediction)[counted].sum() / (truth | prediction)[counted].sum()
        assert iou == pytest.approx(expected, rel=1e-12)


def test_an_empty_ignore_mask_changes_nothing() -> None:
    for masks in zip(blobs(0), blobs(1), strict=True):
        pair, nothing = map(encode_mask, masks), encode_mask(np.zeros_like(masks[0]))
        truth, prediction = pair
        size = masks[0].shape
        assert compare(truth, prediction, None, size) == compare(truth, prediction, nothing, size)


def test_the_truth_scores_one_and_an_empty_prediction_scores_zero() -> None:
    empty = [np.zeros_like(mask) for mask in blobs(0)]
    assert (score_records(table(blobs(0)), table(blobs(0)))["iou"] == 1).all()
    assert (score_records(table(blobs(0)), table(empty))["iou"] == 0).all()


def test_an_empty_union_scores_zero() -> None:
    everything = [np.ones_like(mask) for mask in blobs(0)]
    scores = score_records(table(blobs(0), list(everything)), table(blobs(1)))
    assert (scores[["iou", "intersection", "union"]] == 0).all(axis=None)


def test_the_order_of_masks_does_not_matter() -> None:
    shuffled = table(blobs(1)).sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        score_records(table(blobs(0)), shuffled), score_records(table(blobs(0)), table(blobs(1)))
    )


def without_masks(truths: pd.DataFrame, numbers: list[int]) -> pd.DataFrame:
    """The records; those at the given indices have no true mask."""
    return truths.assign(mask=[None if k in numbers else mask for k, mask in enumerate(truths["mask"])])


def test_records_without_a_mask_are_counted_and_change_no_score_of_the_others() -> None:
    some, predictions = without_masks(table(blobs(0)), [0, 3]), table(blobs(1))
    with_masks = some["mask"].notna().tolist()
    found = summarise_records(score_records(some, predictions), num_bootstrap=50, seed=0)
    expected = summarise_records(
        score_records(table(blobs(0))[with_masks], predictions[with_masks]), num_bootstrap=50, seed=0
    )
    assert (found.pop("num_without_mask"), expected.pop("num_without_mask")) == (2, 0)
    assert found == expected
    assert found["num_records"] == 4


def test_records_without_any_mask_are_refused() -> None:
    with pytest.raises(ValueError, match="none of the 6 records has a mask to score against; add masks"):
        score_records(without_masks(table(blobs(0)), list(range(6))), table(blobs(1)))


@pytest.mark.parametrize("wrong", ["missing", "unknown", "twice"])
def test_masks_that_do_not_match_the_records_one_to_one_are_refused(wrong: str) -> None:
    masks = table(blobs(1))[["record_id", "mask", "height", "width"]]
    if wrong == "missing":
        masks = masks.iloc[1:]
    elif wrong == "unknown":
        masks = masks.replace({"record_id": {"r3": "r99"}})
    else:
        masks = pd.concat([masks, masks.iloc[:1]])
    with pytest.raises(ValueError, match="predict these records again"):
        score_records(table(blobs(0)), masks)


def test_a_mask_of_another_size_is_refused() -> None:
    """pycocotools would compare run lengths of different sizes for ever."""
    masks = table(blobs(1)).replace({"height": {31: 30}})
    with pytest.raises(ValueError, match="the mask of the record r1 has 20 x 30 pixels, and its image now has 20 x 31"):
        score_records(table(blobs(0)), masks)


def test_summary_is_the_mean_over_records_and_the_ratio_of_sums() -> None:
    scores = score_records(table(blobs(0)), table([*blobs(0)[:3], *blobs(1)[3:]]))
    summary = summarise_records(scores, num_bootstrap=50, seed=0)
    pairs = list(zip(blobs(0), [*blobs(0)[:3], *blobs(1)[3:]], strict=True))
    ious = [(a & b).sum() / (a | b).sum() for a, b in pairs]
    assert summary["metrics"]["mIoU"] == pytest.approx(np.mean(ious))
    overall = sum((a & b).sum() for a, b in pairs) / sum((a | b).sum() for a, b in pairs)
    assert summary["metrics"]["overall_IoU"] == pytest.approx(overall)
    assert (summary["num_records"], summary["num_images"]) == (6, 3)


def test_empty_is_the_share_of_records_with_an_empty_prediction() -> None:
    """A mask that lies completely in ignored pixels is not empty."""
    predictions = [*blobs(1)[:4], *(np.zeros_like(mask) for mask in blobs(1)[4:])]
    ignored = [np.ones_like(predictions[0]), *[None] * 5]
    summary = summarise_records(score_records(table(blobs(0), ignored), table(predictions)), num_bootstrap=5, seed=0)
    assert summary["metrics"]["empty"] == pytest.approx(2 / 6)


def test_precision_counts_records_strictly_above_the_threshold() -> None:
    ious = [0.5, 0.55, 0.6, 0.7, 0.95]
    summary = summarise_records(scores_of(ious, list("abcde")), num_bootstrap=5, seed=0)
    precisions = {threshold: summary["metrics"][f"precision_{threshold}"] for threshold in PRECISION_THRESHOLDS}
    assert precisions == pytest.approx({0.5: 4 / 5, 0.6: 2 / 5, 0.7: 1 / 5, 0.8: 1 / 5, 0.9: 1 / 5})


def clustered(seed: int) -> pd.DataFrame:
    """40 images of six records with similar IoUs; the expected IoU is 0.5."""
    generator = np.random.default_rng(seed)
    ious = np.repeat(generator.uniform(0.2, 0.8, 40), 6) + generator.uniform(-0.05, 0.05, 240)
    return scores_of(list(ious), [f"i{number // 6}" for number in range(240)])


def test_interval_is_a_function_of_the_seed() -> None:
    first, again, other = (summarise_records(clustered(0), num_bootstrap=200, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["metrics"]["mIoU_low"] != other["metrics"]["mIoU_low"]


def test_interval_does_not_depend_on_the_order_of_records() -> None:
    shuffled = clustered(0).sample(frac=1, random_state=0)
    found, expected = (summarise_records(scores, 200, seed=1)["metrics"] for scores in (shuffled, clustered(0)))
    assert found == pytest.approx(expected)


def test_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    """Resampling records, which are not independent within an image, would cover it about 60 times."""
    covered = 0
    for seed in range(200):
        summary = summarise_records(clustered(seed), num_bootstrap=200, seed=seed)
        assert summary["metrics"]["mIoU_low"] <= summary["metrics"]["mIoU"] <= summary["metrics"]["mIoU_high"]
        covered += summary["metrics"]["mIoU_low"] <= 0.5 <= summary["metrics"]["mIoU_high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_interval_of_one_image_is_a_point() -> None:
    metrics = summarise_records(scores_of([0.2, 0.4], ["a", "a"]), num_bootstrap=20, seed=0)["metrics"]
    assert metrics["mIoU_low"] == metrics["mIoU"] == metrics["mIoU_high"] == pytest.approx(0.3)
