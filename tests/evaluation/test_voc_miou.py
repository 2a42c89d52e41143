"""The confusion matrix and its IoU against scikit-learn's."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, jaccard_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from tseg.evaluation.voc_miou import confusion_matrix, score_labels, summarise_labels
from tseg.records import encode_mask

CLASSES = ["cat", "dog", "cow", "bus"]
NAMES = ["background", *CLASSES]
SIZES = [(20, 31), (31, 20), (7, 9), (25, 25)]  # height, width


def label_maps(seed: int, num_labels: int = 4) -> list[np.ndarray]:
    """A random map of each size, with the first `num_labels` names in horizontal runs. Default: all but bus."""
    generator = np.random.default_rng(seed)
    return [np.repeat(generator.integers(num_labels, size=size), 3, axis=1)[:, : size[1]] for size in SIZES]


def voids(seed: int) -> list[np.ndarray | None]:
    """Void pixels of every other image."""
    generator = np.random.default_rng(seed)
    return [generator.random(size) < 0.2 if number % 2 else None for number, size in enumerate(SIZES)]


def records(maps: list[np.ndarray], ignored: list[np.ndarray | None] | None = None) -> pd.DataFrame:
    """One record per image and class present, as VOC has them."""
    rows = []
    for image_id, (truth, void) in enumerate(zip(maps, ignored or [None] * len(maps), strict=True)):
        for number in set(truth.ravel().tolist()) - {0}:
            ids = {"image_id": f"i{image_id}", "file_name": f"i{image_id}.jpg", "expression": NAMES[number]}
            size = {"height": truth.shape[0], "width": truth.shape[1]}
            mask = {"mask": encode_mask(truth == number), "ignore": None if void is None else encode_mask(void)}
            rows.append(ids | size | mask)
    return pd.DataFrame(rows)


def labels(maps: list[np.ndarray]) -> pd.DataFrame:
    """Predictions: one row per image and label, always including the background."""
    rows = [
        {"image_id": f"i{image_id}", "label": NAMES[number], "mask": encode_mask(found == number)}
        for image_id, found in enumerate(maps)
        for number in {0, *found.ravel().tolist()}
    ]
    return pd.DataFrame(rows)


def counted(maps: list[np.ndarray], ignored: list[np.ndarray | None]) -> np.ndarray:
    """The counted pixels of all images, concatenated."""
    kept = [found if void is None else found[~void] for found, void in zip(maps, ignored, strict=True)]
    return np.concatenate([found.ravel() for found in kept])


def summary(num_bootstrap: int = 20, seed: int = 0) -> dict[str, Any]:
    scores = score_labels(records(label_maps(0), voids(2)), labels(label_maps(1)), CLASSES)
    return summarise_labels(scores, CLASSES, num_bootstrap, seed)


def test_confusion_matrix_is_that_of_scikit_learn() -> None:
    for truth, prediction, void in zip(label_maps(0), label_maps(1), voids(2), strict=True):
        kept = np.ones(truth.shape, bool) if void is None else ~void
        found = confusion_matrix(truth, prediction, 5, kept)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, sklearn_confusion(truth[kept], prediction[kept], labels=range(5)))


def test_every_image_has_the_confusion_of_its_own_pixels() -> None:
    scores = score_labels(records(label_maps(0), voids(2)), labels(label_maps(1)), CLASSES)
    assert scores["image_id"].tolist() == ["i0", "i1", "i2", "i3"]
    for confusion, *maps in zip(scores["confusion"], label_maps(0), label_maps(1), voids(2), strict=True):
        truth, prediction = (counted([found], [maps[2]]) for found in maps[:2])
        np.testing.assert_array_equal(confusion, sklearn_confusion(truth, prediction, labels=range(5)).ravel())


def test_class_ious_and_their_mean_are_jaccard_scores_of_all_counted_pixels() -> None:
    """The bus is in neither truth nor prediction: it has no IoU and does not lower the mean."""
    truth, prediction = counted(label_maps(0), voids(2)), counted(label_maps(1), voids(2))
    ious = jaccard_score(truth, prediction, labels=range(4), average=None)
    found = summary()
    assert found["metrics"]["mIoU"] == pytest.approx(np.mean(ious), rel=1e-12)
    assert found["classes"] == {"bus": None} | {name: pytest.approx(ious[k]) for k, name in enumerate(NAMES[:4])}
    assert list(found["classes"]) == NAMES
    assert found["metrics"]["pixel_accuracy"] == pytest.approx(accuracy_score(truth, prediction), rel=1e-12)
    assert found["num_images"] == 4


@pytest.mark.parametrize("which", ["truth", "prediction"])
def test_a_class_in_only_truth_or_prediction_scores_zero(which: str) -> None:
    few, many = label_maps(0), label_maps(1, num_labels=5)
    truth, prediction = (many, few) if which == "truth" else (few, many)
    found = summarise_labels(score_labels(records(truth), labels(prediction), CLASSES), CLASSES, 5, seed=0)
    assert found["classes"]["bus"] == 0
    assert found["metrics"]["mIoU"] == pytest.approx(np.mean(list(found["classes"].values())))


def test_the_truth_scores_one_and_pure_background_scores_its_share() -> None:
    truth, nothing = label_maps(0), [np.zeros_like(found) for found in label_maps(0)]
    exact = summarise_labels(score_labels(records(truth), labels(truth), CLASSES), CLASSES, 5, seed=0)
    assert set(exact["metrics"].values()) == {1}
    empty = summarise_labels(score_labels(records(truth), labels(nothing), CLASSES), CLASSES, 5, seed=0)
    share = np.mean(counted(truth, [None] * 4) == 0)
    assert empty["classes"] == pytest.approx({"background": share, "cat": 0, "dog": 0, "cow": 0, "bus": None})


def test_predictions_in_void_pixels_do_not_matter() -> None:
    void = voids(2)
    prediction = [
        found if ignored is None else np.where(ignored, 4, found)
        for found, ignored in zip(label_maps(1), void, strict=True)
    ]
    scores = score_labels(records(label_maps(0), void), labels(prediction), CLASSES)
    assert summarise_labels(scores, CLASSES, 20, seed=0) == summary()


def test_the_order_of_classes_does_not_matter() -> None:
    other = CLASSES[::-1]
    scores = score_labels(records(label_maps(0), voids(2)), labels(label_maps(1)), other)
    found, expected = summarise_labels(scores, other, 20, seed=0), summary()
    assert found["classes"] == expected["classes"]
    assert found["metrics"] == pytest.approx(expected["metrics"])


def test_interval_is_a_function_of_the_seed_and_contains_the_mean() -> None:
    first, again, other = (summary(num_bootstrap=100, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (first["metrics"]["mIoU_low"], first["metrics"]["mIoU_high"]) != (
        other["metrics"]["mIoU_low"],
        other["metrics"]["mIoU_high"],
    )
    assert first["metrics"]["mIoU_low"] < first["metrics"]["mIoU"] < first["metrics"]["mIoU_high"]


def test_interval_of_identical_images_is_a_point() -> None:
    alike = [label_maps(0)[:1] * 6, label_maps(1)[:1] * 6]
    found = summarise_labels(score_labels(records(alike[0]), labels(alike[1]), CLASSES), CLASSES, 20, seed=0)
    assert found["metrics"]["mIoU_low"] == found["metrics"]["mIoU"] == found["metrics"]["mIoU_high"]


@pytest.mark.parametrize("which", ["missing", "unknown"])
def test_label_maps_of_other_images_are_refused(which: str) -> None:
    maps = labels(label_maps(1))
    maps = maps[maps["image_id"] != "i2"] if which == "missing" else maps.replace({"image_id": {"i2": "i9"}})
    with pytest.raises(ValueError, match="3 of the 4 images to score"):
        score_labels(records(label_maps(0)), maps, CLASSES)


@pytest.mark.parametrize("which", ["truth", "prediction"])
def test_masks_of_two_classes_that_overlap_are_refused(which: str) -> None:
    truth, prediction = records(label_maps(0)), labels(label_maps(1))
    table = truth if which == "truth" else prediction
    table.loc[1, "mask"] = table.loc[0, "mask"]
    with pytest.raises(ValueError, match=r"image i0: the mask of '\w+' overlaps"):
        score_labels(truth, prediction, CLASSES)


def test_an_expression_that_is_not_a_class_is_refused() -> None:
    truth = records(label_maps(0)).replace({"expression": {"dog": "brown dog"}})
    with pytest.raises(ValueError, match="'brown dog' is not one of the classes"):
        score_labels(truth, labels(label_maps(1)), CLASSES)
