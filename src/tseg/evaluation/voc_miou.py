"""mIoU of label maps from one confusion matrix of all images, as Pascal VOC defines it (section 4.1, "Metrics")."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tseg.evaluation.bootstrap import interval, resample
from tseg.parts import Parts
from tseg.records import BACKGROUND_LABEL, CONFUSIONS, ImageRecords, decode_mask, tables_of_images


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int, counted: np.ndarray) -> np.ndarray:
    """Count pixels by true class (row) and predicted class (column): int64 (num_classes, num_classes).

    `truth` and `prediction`, int64 (H, W), hold the class of each pixel, 0 to num_classes - 1. Only pixels of the mask
    `counted`, bool (H, W), count.
    """
    pairs = num_classes * truth[counted] + prediction[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def score_labels(
    records: pd.DataFrame, labels: pd.DataFrame, classes: Sequence[str], parts: Parts | None = None
) -> pd.DataFrame:
    """Score label maps against records, one row per image: image_id and confusion, (K + 1)^2 pixel counts, row-major.

    Each record has one of the K `classes` as its expression and the pixels of that class as its mask. Pixels without a
    mask are background; pixels in any `ignore` mask of an image are excluded. `labels` are the rows of `label_records`.
    Raises ValueError if they are not of exactly the records' images, if a class is unknown, or if two masks overlap.
    """
    predicted, images = dict(list(labels.groupby("image_id"))), set(records["image_id"])
    if set(predicted) != images:
        raise ValueError(
            f"there are label maps for {len(images & set(predicted))} of the {len(images)} images to score, and "
            f"{len(set(predicted) - images)} for other images; predict these records again"
        )

    def rows_of(image: ImageRecords) -> list[dict[str, Any]]:
        size = image.records[["height", "width"]].iloc[0].tolist()
        found = predicted[image.image_id]
        truth = _label_map(image.image_id, image.records["expression"], image.records["mask"], size, classes)
        prediction = _label_map(image.image_id, found["label"], found["mask"], size, classes)
        ignored = [decode_mask(ignore, *size) for ignore in image.records["ignore"].dropna()]
        counted = ~np.any([np.zeros(size, bool), *ignored], axis=0)
        confusion = confusion_matrix(truth, prediction, len(classes) + 1, counted)
        return [{"image_id": image.image_id, "confusion": confusion.ravel()}]

    tables = tables_of_images(records, partial(map, rows_of), CONFUSIONS, what="evaluate", parts=parts)
    return pa.concat_tables(tables).to_pandas()


def summarise_labels(scores: pd.DataFrame, classes: Sequence[str], num_bootstrap: int, seed: int) -> dict[str, Any]:
    """Summarise the rows of `score_labels`: metrics, in [0, 1], and the number of images.

    - mIoU: mean over the background and the classes of the IoU, computed from the confusion matrix of all images; with
      its 95% interval over `num_bootstrap` resamplings of the images. A class that neither truth nor prediction has is
      excluded.
    - pixel_accuracy: share of pixels with the right class
    - classes: IoU by name, None for an excluded class
    """
    names = [BACKGROUND_LABEL, *classes]
    confusions = np.array(scores["confusion"].tolist(), dtype=np.int64)
    total = confusions.sum(axis=0).reshape(len(names), len(names))
    ious = _ious(total)
    resampled = resample(confusions, num_bootstrap, seed).reshape(-1, len(names), len(names))
    low, high = interval(np.nanmean(_ious(resampled), axis=1))
    metrics = {
        "mIoU": float(np.nanmean(ious)),
        "mIoU_low": low,
        "mIoU_high": high,
        "pixel_accuracy": float(total.trace() / total.sum()),
    }
    return {
        "metrics": metrics,
        "classes": {name: None if np.isnan(iou) else float(iou) for name, iou in zip(names, ious, strict=True)},
        "num_images": len(scores),
    }


def _label_map(
    image_id: str, labels: Iterable[str], masks: Iterable[str], size: list[int], classes: Sequence[str]
) -> np.ndarray:
    """The class index of each pixel, int64 (H, W), 0 where there is no mask; `size` is H, W."""
    names = [BACKGROUND_LABEL, *classes]
    found = np.zeros(size, np.int64)
    covered = np.zeros(size, bool)
    for label, counts in zip(labels, masks, strict=True):
        if label not in names:
            raise ValueError(f"image {image_id}: {label!r} is not one of the classes; prepare the records with it")
        mask = decode_mask(counts, *size)
        if (mask & covered).any():
            raise ValueError(f"image {image_id}: the mask of {label!r} overlaps another's; each pixel has one class")
        found[mask] = names.index(label)
        covered |= mask
    return found


def _ious(confusions: np.ndarray) -> np.ndarray:
    """IoU of each class, float64 (..., C), from confusion matrices (..., C, C); NaN for a class that does not occur."""
    hits = np.diagonal(confusions, axis1=-2, axis2=-1)
    unions = confusions.sum(axis=-1) + confusions.sum(axis=-2) - hits
    return np.where(unions > 0, hits / np.maximum(unions, 1), np.nan)
