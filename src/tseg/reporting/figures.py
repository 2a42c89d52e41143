"""Figures for looking: masks on pictures (as Figure 4 of the paper) and the loss while training."""

import textwrap
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from tseg.data.transforms import open_picture
from tseg.files import whole_file
from tseg.records import decode_mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people tell apart.
COLOURS = ["#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00"]
TRUTH, PREDICTION = COLOURS[:2]
STYLES = ["-", "--", ":"]
OPACITY = 0.5
PANEL_INCHES = 2.0
TALLEST = 1.2  # height over width; a taller picture is shown smaller
LINE_INCHES = 0.16  # of text at 9 points
LINE_CHARACTERS = 28  # that fit into a panel
DOTS_PER_INCH = 120
CORNER = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}


def overlay(picture: Image.Image, mask: np.ndarray, colour: str) -> Image.Image:
    """`picture` (RGB) with the boolean `mask` (height, width) laid over it in `colour`, its rim opaque.

    Pixels outside the mask stay as they are. `colour` is a name or #rrggbb, as Pillow reads it.
    """
    assert mask.shape == (picture.height, picture.width), "a mask is as large as its picture"
    shape = Image.fromarray(mask.astype(np.uint8) * 255)
    rim_pixels = 2 * max(1, round(max(mask.shape) / 200)) + 1
    inside = np.asarray(shape.filter(ImageFilter.MinFilter(rim_pixels))) > 0
    opacity = Image.fromarray(np.where(inside, round(255 * OPACITY), 255 * mask).astype(np.uint8))
    return Image.composite(Image.new("RGB", picture.size, colour), picture, opacity)


def draw_masks(
    records: pd.DataFrame,
    masks: dict[str, pd.DataFrame],
    output: Path,
    *,
    num_panels: int = 6,
    seed: int = 0,
    title: str = "",
) -> None:
    """Write a PNG with a row per record: expression, picture, truth, and each method's mask with its IoU.

    `records` has the columns of `records.SCHEMA`; `masks` maps a method's label to a frame of record_id and
    mask (COCO compressed RLE). Records are drawn by lot, at most one of a picture: no score has a say.
    Raises ValueError when the picture of a record drawn is missing, or a method's mask of it.
    """
    from matplotlib.patches import Patch

    drawn = records.sample(frac=1, random_state=seed).drop_duplicates("image_id").head(num_panels)
    columns = ["expression", "picture", "truth", *masks]
    texts = [textwrap.wrap(expression, LINE_CHARACTERS) for expression in drawn["expression"]]
    pictures = PANEL_INCHES * np.minimum(drawn["height"] / drawn["width"], TALLEST)
    heights = [max(picture, LINE_INCHES * len(text)) for picture, text in zip(pictures, texts, strict=True)]

    figure, axes = _grid(heights, len(columns), above=0.6, below=0.3)
    for panels, record, text in zip(axes, drawn.itertuples(), texts, strict=True):
        _draw_row(panels, record, "\n".join(text), masks)
    for panel, column in zip(axes[0], columns, strict=True):
        panel.set_title(column, fontsize=10)
    inch = 1 / figure.get_figheight()
    figure.suptitle(title, fontsize=12, y=1 - 0.1 * inch)
    handles = [Patch(color=TRUTH, label="truth"), Patch(color=PREDICTION, label="prediction")]
    figure.legend(handles=handles, loc="lower left", ncols=2, frameon=False, fontsize=9)
    figure.text(0.99, 0.1 * inch, "Records drawn by lot, never by score.", fontsize=9, ha="right")
    _save(figure, output)


def draw_learning_curves(histories: dict[str, pd.DataFrame], output: Path) -> None:
    """Write a PNG of the loss over the iterations, a curve a label, smoothed over a thirtieth of its length.

    A history has the columns iteration and loss; the loss as it was stands pale behind the curve.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    looks = cycle(product(STYLES, COLOURS))
    for (label, history), (style, colour) in zip(histories.items(), looks, strict=False):
        smooth = history["loss"].ewm(span=max(1, len(history) / 30)).mean()
        axes.plot(history["iteration"], history["loss"], color=colour, alpha=0.2, linewidth=0.8)
        axes.plot(history["iteration"], smooth, color=colour, linestyle=style, label=label)
    axes.set(xlabel="iteration", ylabel="loss")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    _save(figure, output)


def _grid(heights: list[float], num_columns: int, above: float, below: float) -> tuple["Figure", np.ndarray]:
    """A figure and its axes (row, column): rows of these heights, room above and below, all in inches."""
    from matplotlib.figure import Figure

    total = above + sum(heights) + below
    figure = Figure(figsize=(PANEL_INCHES * num_columns, total), dpi=DOTS_PER_INCH)
    edges = {"left": 0.005, "right": 0.995, "top": 1 - above / total, "bottom": below / total}
    grid = {"height_ratios": heights, "wspace": 0.03, "hspace": 0.06, **edges}
    return figure, figure.subplots(len(heights), num_columns, squeeze=False, gridspec_kw=grid)


def _draw_row(panels: np.ndarray, record: Any, text: str, masks: dict[str, pd.DataFrame]) -> None:
    size = record.height, record.width
    picture = open_picture(record.file_name)
    grey = picture.convert("L").convert("RGB")  # against which the overlays stand out
    truth = decode_mask(record.mask, *size)
    counted = np.ones(size, bool) if pd.isna(record.ignore) else ~decode_mask(record.ignore, *size)
    panels[0].text(0.02, 0.5, text, fontsize=9, va="center", parse_math=False)
    panels[1].imshow(picture)
    panels[2].imshow(overlay(grey, truth, TRUTH))
    for panel, (label, frame) in zip(panels[3:], masks.items(), strict=True):
        found = frame.loc[frame["record_id"] == record.record_id, "mask"]
        if found.empty:
            raise ValueError(f"{label} has no mask of the record {record.record_id}; predict that record too")
        prediction = decode_mask(found.iloc[0], *size)
        union = np.sum((prediction | truth) & counted)
        iou = np.sum(prediction & truth & counted) / max(1, union)
        panel.imshow(overlay(grey, prediction, PREDICTION))
        panel.text(0.03, 0.96, f"IoU {iou:.2f}", transform=panel.transAxes, fontsize=8, va="top", bbox=CORNER)
    for panel in panels:
        panel.set_axis_off()


def _save(figure: "Figure", output: Path) -> None:
    """Write a PNG that is the same, byte for byte, whenever the same figure is drawn."""
    with whole_file(output) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})
