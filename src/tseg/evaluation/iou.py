"""Intersection over union (IoU) per record, and its summary (section 4.1, "Metrics")."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tseg.evaluation.bootstrap import interval, resample
from tseg.parts import Parts, table_of
from tseg.records import SCORES, decode_mask

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def intersection_and_union(truth: np.ndarray, prediction: np.ndarray, ignore: np.ndarray | None) -> tuple[int, int]:
    """Intersection and union, in pixels, of two boolean masks (H, W), without the pixels of the mask `ignore`."""
    if ignore is not None:
        truth, prediction = truth & ~ignore, prediction & ~ignore
    return int((truth & prediction).sum()), int((truth | prediction).sum())


def score_records(records: pd.DataFrame, masks: pd.DataFrame, parts: Parts | None = None) -> pd.DataFrame:
    """Score masks against records, one row per record: record_id, image_id, intersection, union, iou and empty.

    Intersection and union are in pixels, without ignored ones; `empty` is True for an empty predicted mask. An empty
    prediction of a non-empty mask scores 0; an empty union also scores 0. A record without a true mask has NaN for
    intersection, union and iou. Raises ValueError if no record has a true mask, or if `masks` does not have exactly one
    mask per record.
    """
    if np.all(records["mask"].isna()):
        raise ValueError(
            f"none of the {len(records)} records has a mask to score against; add masks, or look at the predictions "
            "with `tseg draw expressions`"
        )
    predicted = dict(zip(masks["record_id"], masks["mask"], strict=True))
    scored = set(records["record_id"])
    if len(predicted) != len(masks) or set(predicted) != scored:
        raise ValueError(
            f"there are {len(masks)} masks, for {len(scored & set(predicted))} of the {len(records)} records to score; "
            "predict these records again"
        )

    def rows_of(record: Sequence[Any]) -> list[dict[str, Any]]:
        record_id, image_id, mask, ignore, *size = record
        prediction = decode_mask(predicted[record_id], *size)
        intersection = union = iou = None
        if pd.notna(mask):
            ignored = decode_mask(ignore, *size) if pd.notna(ignore) else None
            intersection, union = intersection_and_union(decode_mask(mask, *size), prediction, ignored)
            iou = intersection / union if union else 0.0
        row = (record_id, image_id, intersection, union, iou, not prediction.any())
        return [dict(zip(SCORES.names, row, strict=True))]

    items = records[["record_id", "image_id", "mask", "ignore", "height", "width"]].to_numpy()
    scores = table_of(items, rows_of, SCORES, what="evaluate", unit="records", total=len(items), parts=parts)
    return scores.to_pandas()


def summarise_records(scores: pd.DataFrame, num_bootstrap: int, seed: int) -> dict[str, Any]:
    """Summarise the rows of `score_records` that have a true mask: metrics, in [0, 1], and counts.

    - mIoU: mean over records, with its 95% interval over `num_bootstrap` resamplings of the images
    - overall_IoU: sum of intersections over sum of unions
    - precision_t: share of records with an IoU above t
    - empty: share of records whose predicted mask is empty
    """
    num_rows, scores = len(scores), scores.dropna(subset="iou")
    low, high = _bootstrap_interval(scores, num_bootstrap, seed)
    ious, intersections, unions = (scores[column].to_numpy() for column in ("iou", "intersection", "union"))
    metrics = {
        "mIoU": float(ious.mean()),
        "mIoU_low": low,
        "mIoU_high": high,
        "overall_IoU": float(intersections.sum() / max(1, unions.sum())),
        **{f"precision_{t}": float((ious > t).mean()) for t in PRECISION_THRESHOLDS},
        "empty": float(np.mean(scores["empty"])),
    }
    return {
        "metrics": metrics,
        "num_records": len(scores),
        "num_images": len(set(scores["image_id"])),
        "num_without_mask": num_rows - len(scores),
    }


def _bootstrap_interval(scores: pd.DataFrame, num_bootstrap: int, seed: int) -> tuple[float, float]:
    """The 95% interval of the mIoU over resamplings of whole images."""
    images = scores.groupby("image_id", sort=True)["iou"].agg(["sum", "size"]).to_numpy()
    totals, counts = resample(images, num_bootstrap, seed).T
    return interval(totals / counts)
