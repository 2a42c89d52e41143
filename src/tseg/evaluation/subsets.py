"""mIoU of the subsets that a data set's evaluator reports, such as PhraseCut's by category, attribute and size."""

import numpy as np
import pandas as pd


def summarise_subsets(scores: pd.DataFrame, records: pd.DataFrame) -> dict[str, dict[str, float | int]]:
    """Map each tag to the mIoU, in [0, 1], and num_records of its scored records.

    `scores` are the rows of `score_records` for `records`.
    """
    tagged = scores.dropna(subset="iou").merge(records[["record_id", "tags"]], on="record_id").explode("tags")
    return {
        str(tag): {"mIoU": float(np.mean(ious)), "num_records": len(ious)}
        for tag, ious in tagged.groupby("tags")["iou"]
    }
