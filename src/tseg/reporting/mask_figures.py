"""Masks of expressions over their pictures, beside the truth (Figures 4, 5, 8 and 9)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from tseg.data.transforms import open_picture
from tseg.evaluation.iou import overlap
from tseg.records import decode_mask
from tseg.reporting.overlay import LOOKS, PREDICTION, TRUTH, Look, overlay, pale, working_mask, working_size
from tseg.reporting.sheet import Key, Panel, Row, write_panels

MOST_EXPRESSIONS = 6  # of one picture that can be told apart


def draw_masks(
    records: pd.DataFrame,
    masks: dict[str, pd.DataFrame],
    output: Path,
    *,
    num_panels: int,
    lot: int,
    title: str,
    caption: str,
) -> None:
    """Write a PNG with a row per record: its picture, its truth, and each method's mask with its IoU.

    `records` has the columns of `records.SCHEMA`; `masks` maps a method's label to a frame of record_id and mask (COCO
    compressed RLE). Records are drawn by `lot`, at most one of a picture: no score has a say. Of records without masks
    there is no truth and no IoU. Raises ValueError when the picture of a record drawn is missing, or a method's mask of
    it.
    """
    found = {label: _by_record(frame) for label, frame in masks.items()}
    drawn = records.sample(frac=1, random_state=lot).drop_duplicates("image_id").head(num_panels)
    with_truth = bool(drawn["mask"].notna().any())
    shown: Iterable[Any] = drawn.itertuples()
    rows = []
    for record in shown:
        picture = working_size(open_picture(record.file_name))
        panels = [Panel(picture), *([_truth_panel(picture, [record], [TRUTH])] if with_truth else [])]
        for label, by_record in found.items():
            prediction = decode_mask(_mask(by_record, record, label), record.height, record.width)
            panels.append(Panel(_laid(picture, [prediction], [PREDICTION]), corner=_iou(record, prediction)))
        rows.append(Row(panels, heading=record.expression))
    caption = f"{caption} Records were drawn by lot, at most one of a picture, whatever their score."
    columns = ["picture", *(["truth"] if with_truth else []), *masks]
    keys = [*([Key("truth", TRUTH)] if with_truth else []), Key("prediction", PREDICTION)]
    write_panels(rows, columns, output, title=title, caption=caption, keys=keys)


def draw_expressions(
    records: pd.DataFrame,
    masks: pd.DataFrame,
    output: Path,
    *,
    num_panels: int,
    lot: int,
    title: str,
    caption: str,
) -> None:
    """Write a PNG with a row per picture: the masks of its expressions, each in its colour, and their truth if any has.

    `masks` is a frame of record_id and mask. Pictures are drawn by `lot`, of a picture its first expressions, six at
    most. Raises ValueError when the picture of a record drawn is missing, or its mask in `masks`.
    """
    by_record = _by_record(masks)
    lots = records["image_id"].drop_duplicates().sample(frac=1, random_state=lot).head(num_panels)
    with_truth = bool(records.loc[records["image_id"].isin(lots), "mask"].notna().any())
    rows = []
    for image_id in lots:
        of_picture = records.loc[records["image_id"] == image_id].drop_duplicates("expression")
        shown: list[Any] = list(of_picture.head(MOST_EXPRESSIONS).itertuples())
        picture = working_size(open_picture(shown[0].file_name))
        size = shown[0].height, shown[0].width
        predictions = [decode_mask(_mask(by_record, record, "the prediction"), *size) for record in shown]
        looks = LOOKS[: len(shown)]
        panels = [Panel(picture), Panel(_laid(picture, predictions, looks))]
        panels += [_truth_panel(picture, shown, looks)] if with_truth else []
        keys = [Key(record.expression, look) for record, look in zip(shown, looks, strict=True)]
        more = len(of_picture) - len(shown)
        rows.append(Row(panels, keys=[*keys, Key(f"(and {more} more)", None)] if more else keys))
    caption = f"{caption} Where masks share pixels their colours alternate. Pictures were drawn by lot."
    columns = ["picture", "prediction", *(["truth"] if with_truth else [])]
    write_panels(rows, columns, output, title=title, caption=caption)


def _by_record(masks: pd.DataFrame) -> dict[str, str]:
    return dict(zip(masks["record_id"], masks["mask"], strict=True))


def _mask(by_record: dict[str, str], record: Any, label: str) -> str:
    if record.record_id not in by_record:
        raise ValueError(f"{label} has no mask of the record {record.record_id}; predict that record too")
    return by_record[record.record_id]


def _truth_panel(picture: Image.Image, records: list[Any], looks: list[Look]) -> Panel:
    """The masks that the records of a picture have, and how many have none."""
    masks = {number: _decoded(record, "mask") for number, record in enumerate(records)}
    there = {number: mask for number, mask in masks.items() if mask is not None}
    num_missing = len(records) - len(there)
    corner = f"{num_missing} without a mask" if num_missing else ""
    return Panel(_laid(picture, list(there.values()), [looks[number] for number in there]), corner=corner)


def _iou(record: Any, prediction: np.ndarray) -> str:
    """The IoU as a text, '' where the record has no mask."""
    truth = _decoded(record, "mask")
    if truth is None:
        return ""
    intersection, union = overlap(truth, prediction, _decoded(record, "ignore"))
    return f"IoU {intersection / max(1, union):.2f}"


def _decoded(record: Any, column: Literal["mask", "ignore"]) -> np.ndarray | None:
    counts = getattr(record, column)
    return None if pd.isna(counts) else decode_mask(counts, record.height, record.width)


def _laid(picture: Image.Image, masks: list[np.ndarray], looks: list[Look]) -> Image.Image:
    return overlay(pale(picture), [working_mask(mask, picture.size) for mask in masks], looks)
