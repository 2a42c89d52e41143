"""Masks of expressions over their pictures, beside the truth (Figures 4, 5, 8 and 9)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
    compressed RLE). Records are drawn by `lot`, at most one of a picture: no score has a say. Raises ValueError when
    the picture of a record drawn is missing, or a method's mask of it.
    """
    found = {label: _by_record(frame) for label, frame in masks.items()}
    by_lot = records.sample(frac=1, random_state=lot).drop_duplicates("image_id")
    drawn: Iterable[Any] = by_lot.head(num_panels).itertuples()
    rows = []
    for record in drawn:
        picture = working_size(open_picture(record.file_name))
        size = record.height, record.width
        truth, ignore = decode_mask(record.mask, *size), _ignored(record)
        panels = [Panel(picture), Panel(_laid(picture, [truth], [TRUTH]))]
        for label, by_record in found.items():
            prediction = decode_mask(_mask(by_record, record, label), *size)
            intersection, union = overlap(truth, prediction, ignore)
            text = f"IoU {intersection / max(1, union):.2f}"
            panels.append(Panel(_laid(picture, [prediction], [PREDICTION]), corner=text))
        rows.append(Row(panels, heading=record.expression))
    caption = f"{caption} Records were drawn by lot, at most one of a picture, whatever their score."
    keys = [Key("truth", TRUTH), Key("prediction", PREDICTION)]
    write_panels(rows, ["picture", "truth", *masks], output, title=title, caption=caption, keys=keys)


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
    """Write a PNG with a row per picture: the masks of its expressions, each in its colour, and their truth.

    `masks` is a frame of record_id and mask. Pictures are drawn by `lot`, of a picture its first expressions, six at
    most. Raises ValueError when the picture of a record drawn is missing, or its mask.
    """
    by_record = _by_record(masks)
    rows = []
    for image_id in records["image_id"].drop_duplicates().sample(frac=1, random_state=lot).head(num_panels):
        of_picture = records.loc[records["image_id"] == image_id].drop_duplicates("expression")
        shown: list[Any] = list(of_picture.head(MOST_EXPRESSIONS).itertuples())
        picture = working_size(open_picture(shown[0].file_name))
        size = shown[0].height, shown[0].width
        truths = [decode_mask(record.mask, *size) for record in shown]
        predictions = [decode_mask(_mask(by_record, record, "the prediction"), *size) for record in shown]
        looks = LOOKS[: len(shown)]
        panels = [Panel(picture), Panel(_laid(picture, predictions, looks)), Panel(_laid(picture, truths, looks))]
        keys = [Key(record.expression, look) for record, look in zip(shown, looks, strict=True)]
        more = len(of_picture) - len(shown)
        rows.append(Row(panels, keys=[*keys, Key(f"(and {more} more)", None)] if more else keys))
    caption = f"{caption} Where masks share pixels their colours alternate. Pictures were drawn by lot."
    write_panels(rows, ["picture", "prediction", "truth"], output, title=title, caption=caption)


def _by_record(masks: pd.DataFrame) -> dict[str, str]:
    return dict(zip(masks["record_id"], masks["mask"], strict=True))


def _mask(by_record: dict[str, str], record: Any, label: str) -> str:
    if record.record_id not in by_record:
        raise ValueError(f"{label} has no mask of the record {record.record_id}; predict that record too")
    return by_record[record.record_id]


def _ignored(record: Any) -> np.ndarray | None:
    return None if pd.isna(record.ignore) else decode_mask(record.ignore, record.height, record.width)


def _laid(picture: Image.Image, masks: list[np.ndarray], looks: list[Look]) -> Image.Image:
    return overlay(pale(picture), [working_mask(mask, picture.size) for mask in masks], looks)
