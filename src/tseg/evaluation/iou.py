"""Intersection over union (IoU) per record, and its summary (section 4.1, "Metrics")."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from pycocotools import mask as coco_mask

from tseg.evaluation.bootstrap import interval, resample
from tseg.progress import progress
from tseg.records import MASKS, SCORES

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
TRUTH = ["record_id", "image_id", "mask", "ignore", "height", "width"]
"""The columns of records that a score needs."""


Rows: TypeAlias = pa.Table | pa.RecordBatch


class Overlap(NamedTuple):
    """A true and a predicted mask compared, in pixels."""

    intersection: int
    union: int
    predicted: int
    """Pixels of the prediction, ignored ones included."""


def compare(truth: str, prediction: str, ignore: str | None, size: Sequence[int]) -> Overlap:
    """Compare two masks of `size`, height and width, without the pixels of the mask `ignore`.

    Masks are run lengths, as `tseg.records.encode_mask` writes them, and are not decoded to pixels. All must be of this
    size: pycocotools never returns if they are not.
    """
    masks: list[Any] = [{"counts": counts.encode("ascii"), "size": size} for counts in (truth, prediction)]
    masks.append(coco_mask.merge(masks, intersect=True))
    counted = areas = _areas(masks)
    if ignore is not None:
        ignored: Any = {"counts": ignore.encode("ascii"), "size": size}
        counted = areas - _areas([coco_mask.merge([mask, ignored], intersect=True) for mask in masks])
    of_truth, of_prediction, both = counted.tolist()
    return Overlap(both, of_truth + of_prediction - both, int(areas[1]))


def _areas(masks: Any) -> np.ndarray:
    """Pixels of each mask, int64."""
    return np.asarray(coco_mask.area(masks), np.int64)


def score_records(
    records: Iterable[Rows],
    masks: Iterable[Rows],
    total: int | None = None,
    excluded: frozenset[str] = frozenset(),
) -> pd.DataFrame:
    """Score masks against records, one row per record: record_id, image_id, intersection, union, iou and empty.

    `records`, with the columns `TRUTH`, and `masks` come in pieces; if both have the same order, only a few of each are
    held. `total` records are shown by a progress bar; those of the images `excluded` have no score. Intersection and
    union are in pixels, without ignored ones; `empty` is True for an empty predicted mask. An empty prediction of a
    non-empty mask scores 0; an empty union also scores 0. A record without a true mask has NaN for intersection, union
    and iou. Raises ValueError if no record has a true mask, or if `masks` does not have exactly one mask per record.
    """
    rows: list[tuple[Any, ...]] = []
    with progress((), "evaluate", "records", total) as bar:
        for number, record, prediction in _pairs(records, masks):
            bar.update()
            record_id, image_id, truth, ignore, *size = record
            if image_id in excluded:
                continue
            # A record without a true mask is compared with its own prediction, for the number of pixels.
            intersection, union, num_predicted = compare(truth or prediction, prediction, ignore, size)
            of_truth = (intersection, union, intersection / max(1, union)) if truth else (None, None, None)
            rows.append((number, record_id, image_id, *of_truth, num_predicted == 0))
    scores = pd.DataFrame(rows, columns=["number", *SCORES.names]).sort_values("number", ignore_index=True)
    if np.all(scores["iou"].isna()):
        raise ValueError(
            f"none of the {len(scores)} records has a mask to score against; add masks, or look at the predictions "
            "with `tseg draw expressions`"
        )
    return scores.drop(columns="number")


def _pairs(records: Iterable[Rows], masks: Iterable[Rows]) -> Iterator[tuple[int, tuple[Any, ...], str]]:
    """Each record, with its number, and its mask. Raises ValueError in the end unless they match one to one."""
    waiting: dict[str, tuple[int, tuple[Any, ...]]] = {}
    predicted: dict[str, list[Any]] = {}
    num_records = num_masks = num_pairs = 0
    for some, found in zip_longest(records, masks):
        new = [] if some is None else list(zip(*(some[name].to_pylist() for name in TRUTH), strict=True))
        waiting |= {record[0]: (num_records + number, record) for number, record in enumerate(new)}
        num_records += len(new)
        if found is not None:
            columns = (found[name].to_pylist() for name in MASKS.names)
            predicted |= {record_id: mask for record_id, *mask in zip(*columns, strict=True)}
            num_masks += len(found)
        for record_id in [record_id for record_id in waiting if record_id in predicted]:
            num_pairs += 1
            (number, record), (mask, *size) = waiting.pop(record_id), predicted.pop(record_id)
            if size != list(record[-2:]):
                raise ValueError(
                    f"the mask of the record {record_id} has {size[1]} x {size[0]} pixels, and its image now has "
                    f"{record[-1]} x {record[-2]}; predict these records again"
                )
            yield number, record, mask
    if not num_records == num_masks == num_pairs:
        raise ValueError(
            f"there are {num_masks} masks, for {num_pairs} of the {num_records} records to score; "
            "predict these records again"
        )


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
