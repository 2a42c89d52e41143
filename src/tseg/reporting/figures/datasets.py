"""The sizes of masks and the lengths of expressions of each data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tseg.reporting.figures.page import line_styles, page, wrap
from tseg.reporting.tables.datasets import LARGE, SMALL
from tseg.reporting.tables.description import SplitDescription

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 3.2, 1.3  # of the axes, inches
# Edges of bins: percent of the image, and words.
SIZES = np.geomspace(0.01, 100, 25)
LENGTHS = np.arange(0.5, 21)
SIZE_TICKS: dict[float, str] = {0.01: "≤0.01", 0.1: "0.1", 1: "1", 10: "10", 100: "100"}
LENGTH_TICKS: dict[float, str] = {1: "1", 5: "5", 10: "10", 15: "15", 20: "≥20"}


def draw_datasets(descriptions: Sequence[SplitDescription], output: Path) -> None:
    """Write a PNG with a row per data set: the distributions of its masks' sizes and its expressions' lengths.

    A curve per split shows the percentage of masks, or of expressions, in each bin.
    """
    of_dataset: dict[str, list[SplitDescription]] = {}
    for description in descriptions:
        of_dataset.setdefault(description.provenance.dataset, []).append(description)
    title = "Sizes of masks and lengths of expressions"
    caption = f"Dotted: masks of {SMALL:.0%} and {LARGE:.0%} of their image."
    heights = [HEIGHT] * len(of_dataset)
    with page(output, widths=[WIDTH, WIDTH], heights=heights, title=title, caption=caption) as grid:
        for (left, right), (name, splits) in zip(grid, of_dataset.items(), strict=True):
            left.set_title(wrap(name, WIDTH))
            _draw_splits(left, right, splits)


def _draw_splits(left: "Axes", right: "Axes", splits: Sequence[SplitDescription]) -> None:
    for split, line in zip(splits, line_styles(), strict=False):
        look: dict[str, Any] = {"label": split.provenance.split} | line
        left.stairs(_percent(100 * split.sizes, SIZES), SIZES, **look)
        right.stairs(_percent(split.lengths, LENGTHS), LENGTHS, **look)
    left.set_xscale("log")
    left.set(xlabel="size of the mask, % of the image", ylabel="masks, %")
    right.set(xlabel="words of the expression", ylabel="expressions, %")
    for axes, ticks in ((left, SIZE_TICKS), (right, LENGTH_TICKS)):
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
    if not any(len(split.sizes) for split in splits):
        left.text(0.5, 0.5, "no masks", transform=left.transAxes, ha="center")
    for edge in (SMALL, LARGE):
        left.axvline(100 * edge, color="#888888", linestyle=":", linewidth=0.8, zorder=0)
    right.legend(loc="upper left", bbox_to_anchor=(1, 1))


def _percent(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The percentage of the values in each bin."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return 100 * counts / max(1, len(values))
