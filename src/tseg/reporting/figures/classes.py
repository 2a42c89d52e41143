"""Label maps of images, one class per pixel, next to the truth (Figures 6 and 7)."""

from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from tseg.images import open_image
from tseg.records import BACKGROUND_LABEL, decode_mask
from tseg.reporting.figures.overlay import LOOKS, VOID_LOOK, Look, overlay, pale, working_mask, working_size
from tseg.reporting.figures.panels import Panel, PanelRow, write_panels

SMALLEST_NAMED = 0.01  # fraction of the image; smaller regions are named in the legend only
VOID_TEXT = "not counted"

Masks = dict[str, np.ndarray]  # class to its pixels, bool (height, width)


def draw_classes(
    records: pd.DataFrame,
    labels: dict[str, pd.DataFrame],
    classes: Sequence[str],
    output: Path,
    *,
    only: Sequence[str] | None,
    num_panels: int,
    seed: int,
    title: str,
    caption: str,
) -> None:
    """Write a PNG with a row per image: each model's label map and the truth, classes by colour, pattern and name.

    The expression of each of the `records` is a class, and its mask holds the pixels of the class. `labels` maps a
    column's name to a frame of image_id, label and mask. Images are drawn at random with `seed`, from those that have a
    class in `only`, or from all. Raises ValueError if there is none, if a label is not a class, or if a label map is
    missing.
    """
    selected = records if only is None else records.loc[records["expression"].isin(only)]
    if selected.empty:
        raise ValueError(f"no image has any of these classes: {', '.join(only or [])}; choose other classes")
    _check_labels(records, labels, classes)
    looks = dict(zip([*classes, VOID_TEXT], [*islice(cycle(LOOKS), len(classes)), VOID_LOOK], strict=True))
    found = {column: dict(list(frame.groupby("image_id"))) for column, frame in labels.items()}
    rows, present = [], set()
    for image_id in selected["image_id"].drop_duplicates().sample(frac=1, random_state=seed).head(num_panels):
        of_image = records.loc[records["image_id"] == image_id]
        shown = _label_maps(of_image, found)
        present |= {label for masks in shown for label in masks}
        width, height = of_image[["width", "height"]].iloc[0].tolist()
        image = working_size(open_image(of_image["file_name"].iloc[0], size=(width, height)))
        rows.append(PanelRow([Panel(image), *(_panel(image, masks, looks) for masks in shown)]))
    chosen = f" with {' or '.join(only)}" if only else ""
    caption = f"{caption} Images{chosen} were drawn at random; grey is background."
    keys = {label: look for label, look in looks.items() if label in present}
    write_panels(rows, ["image", *labels, "truth"], output, title=title, caption=caption, keys=keys)


def _check_labels(records: pd.DataFrame, labels: dict[str, pd.DataFrame], classes: Sequence[str]) -> None:
    named = pd.concat([records["expression"], *(frame["label"] for frame in labels.values())])
    unknown = set(named) - {BACKGROUND_LABEL, *classes}
    if unknown:
        raise ValueError(f"the label {min(unknown)!r} is not one of the classes; predict the classes of the records")


def _label_maps(of_image: pd.DataFrame, found: dict[str, Any]) -> list[Masks]:
    """Decode the masks of an image: one set per column, then the truth with its void pixels."""
    image_id, *size = of_image[["image_id", "height", "width"]].iloc[0]
    maps = []
    for column, by_image in found.items():
        if image_id not in by_image:
            raise ValueError(f"{column} has no label map of the image {image_id}; predict it too")
        maps.append(_decoded(by_image[image_id], "label", size))
        maps[-1].pop(BACKGROUND_LABEL, None)
    ignored = [decode_mask(ignore, *size) for ignore in of_image["ignore"].dropna()]
    void = {VOID_TEXT: np.any(ignored, axis=0)} if ignored else {}
    return [*maps, _decoded(of_image, "expression", size) | void]


def _decoded(rows: pd.DataFrame, column: str, size: list[int]) -> Masks:
    return {label: decode_mask(mask, *size) for label, mask in zip(rows[column], rows["mask"], strict=True)}


def _panel(image: Image.Image, masks: Masks, looks: dict[str, Look]) -> Panel:
    resized = {label: working_mask(mask, image.size) for label, mask in masks.items()}
    names = [
        (*_middle(mask), label)
        for label, mask in resized.items()
        if label != VOID_TEXT and mask.mean() > SMALLEST_NAMED
    ]
    drawn = overlay(pale(image), list(resized.values()), [looks[label] for label in resized])
    return Panel(drawn, names=names)


def _middle(mask: np.ndarray) -> tuple[float, float]:
    """Find the position (x, y) with most of the mask around it, and move it away from the sides of the image."""
    margin = max(mask.shape) // 8
    padded = Image.fromarray(np.pad(mask, margin)).convert("L").filter(ImageFilter.GaussianBlur(margin / 2))
    around = np.asarray(padded)[margin:-margin, margin:-margin]
    y, x = np.unravel_index(np.argmax(np.where(mask, around, -1.0)), mask.shape)
    height, width = mask.shape
    return float(np.clip(x, margin, width - margin)), float(np.clip(y, margin / 4, height - margin / 4))
