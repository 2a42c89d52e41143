"""Pictures that two data sets share: RefCOCO's are COCO's, and so are about half of PhraseCut's."""

from collections.abc import Collection

import pandas as pd


def coco_ids(records: pd.DataFrame) -> frozenset[str]:
    """The ids in COCO of the pictures of `records`, as far as they are known."""
    return frozenset(records["coco_id"].dropna())


def without_pictures(records: pd.DataFrame, coco_ids: Collection[str]) -> tuple[pd.DataFrame, int]:
    """The records, in order, of pictures whose id in COCO is not among `coco_ids`; the number of pictures excluded.

    A picture that has no such id stays. Raises ValueError when no picture is left.
    """
    kept = records.loc[~records["coco_id"].isin(list(coco_ids))].reset_index(drop=True)
    num_excluded = len(set(records["image_id"])) - len(set(kept["image_id"]))
    if kept.empty:
        raise ValueError(f"all {num_excluded} pictures are excluded, none is left to train on; exclude fewer")
    return kept, num_excluded
