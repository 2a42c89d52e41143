"""Masks of expressions over their images, next to the truth (Figures 4, 5, 8 and 9)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from tseg.evaluation.iou import compare
from tseg.images import open_image
from tseg.records import decode_mask, encode_mask
from tseg.reporting.figures.overlay import LOOKS, PREDICTION, TRUTH, Look, overlay, pale, working_mask, working_size
from tseg.reporting.figures.panels import Panel, PanelRow, write_panels

MOST_EXPRESSIONS = 6  # of one image; more are hard to tell apart


def draw_masks(
    records: pd.DataFrame,
    masks: dict[str, pd.DataFrame],
    output: Path,
    *,
    num_panels: int,
    seed: int,
    title: str,
    caption: str,
) -> None:
    """Write a PNG with a row per record: its image, its truth, and each method's mask with its IoU.

    `records` has the columns of `records.RECORDS`; `masks` maps a method's label to a frame of record_id and mask (COCO
    compressed RLE). Records are drawn at random with `seed`, at most one per image, regardless of their score. A record
    without a mask has no truth and no IoU. Raises ValueError if a drawn record lacks its image or a method's mask.
    """
    found = {label: _by_record(frame) for label, frame in masks.items()}
    drawn = records.sample(frac=1, random_state=seed).drop_duplicates("image_id").head(num_panels)
    with_truth = bool(drawn["mask"].notna().any())
    shown: Iterable[Any] = drawn.itertuples()
    rows = []
    for record in shown:
        image = working_size(open_image(record.file_name, size=(record.width, record.height)))
        panels = [Panel(image), *([_truth_panel(image, [record], [TRUTH])] if with_truth else [])]
        for label, by_record in found.items():
            prediction = decode_mask(_mask(by_record, record, label), record.height, record.width)
            panels.append(Panel(_overlaid(image, [prediction], [PREDICTION]), corner=_iou(record, prediction)))
        rows.append(PanelRow(panels, heading=record.expression))
    caption = f"{caption} Records were drawn at random, at most one per image, regardless of their score."
    columns = ["image", *(["truth"] if with_truth else []), *masks]
    keys = ({"truth": TRUTH} if with_truth else {}) | {"prediction": PREDICTION}
    write_panels(rows, columns, output, title=title, caption=caption, keys=keys)


def draw_expressions(
    records: pd.DataFrame,
    masks: pd.DataFrame,
    output: Path,
    *,
    num_panels: int,
    seed: int,
    title: str,
    caption: str,
) -> None:
    """Write a PNG with a row per image: the masks of its expressions, each in its colour, and the true masks if any.

    `masks` is a frame of record_id and mask. Images are drawn at random with `seed`, and their first six expressions
    are shown. Raises ValueError if a shown record lacks its image or its mask in `masks`.
    """
    by_record = _by_record(masks)
    image_ids = records["image_id"].drop_duplicates().sample(frac=1, random_state=seed).head(num_panels)
    with_truth = bool(records.loc[records["image_id"].isin(image_ids), "mask"].notna().any())
    rows = []
    for image_id in image_ids:
        of_image = records.loc[records["image_id"] == image_id].drop_duplicates("expression")
        shown: list[Any] = list(of_image.head(MOST_EXPRESSIONS).itertuples())
        image = working_size(open_image(shown[0].file_name, size=(shown[0].width, shown[0].height)))
        size = shown[0].height, shown[0].width
        predictions = [decode_mask(_mask(by_record, record, "the prediction"), *size) for record in shown]
        looks = LOOKS[: len(shown)]
        panels = [Panel(image), Panel(_overlaid(image, predictions, looks))]
        panels += [_truth_panel(image, shown, looks)] if with_truth else []
        keys = {record.expression: look for record, look in zip(shown, looks, strict=True)}
        more = len(of_image) - len(shown)
        rows.append(PanelRow(panels, keys=keys | ({f"(and {more} more)": None} if more else {})))
    caption = f"{caption} Where masks overlap, their colours alternate. Images were drawn at random."
    columns = ["image", "prediction", *(["truth"] if with_truth else [])]
    write_panels(rows, columns, output, title=title, caption=caption)


def _by_record(masks: pd.DataFrame) -> dict[str, str]:
    return dict(zip(masks["record_id"], masks["mask"], strict=True))


def _mask(by_record: dict[str, str], record: Any, label: str) -> str:
    if record.record_id not in by_record:
        raise ValueError(f"{label} has no mask of the record {record.record_id}; predict it too")
    return by_record[record.record_id]


def _truth_panel(image: Image.Image, records: list[Any], looks: list[Look]) -> Panel:
    """Draw the true masks of the records of an image, and the number of records without one."""
    masks = {look: _decoded(record, "mask") for look, record in zip(looks, records, strict=True)}
    known = {look: mask for look, mask in masks.items() if mask is not None}
    num_missing = len(records) - len(known)
    corner = f"{num_missing} without a mask" if num_missing else ""
    return Panel(_overlaid(image, list(known.values()), list(known)), corner=corner)


def _iou(record: Any, prediction: np.ndarray) -> str:
    """Format the IoU; '' if the record has no mask."""
    if pd.isna(record.mask):
        return ""
    ignore = None if pd.isna(record.ignore) else record.ignore
    found = compare(record.mask, encode_mask(prediction), ignore, (record.height, record.width))
    return f"IoU {found.intersection / max(1, found.union):.2f}"


def _decoded(record: Any, column: Literal["mask", "ignore"]) -> np.ndarray | None:
    counts = getattr(record, column)
    return None if pd.isna(counts) else decode_mask(counts, record.height, record.width)


def _overlaid(image: Image.Image, masks: list[np.ndarray], looks: list[Look]) -> Image.Image:
    return overlay(pale(image), [working_mask(mask, image.size) for mask in masks], looks)
