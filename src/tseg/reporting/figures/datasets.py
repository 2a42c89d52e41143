"""How large masks are and how long expressions, data set by data set."""

from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tseg.reporting.figures.overlay import COLOURS
from tseg.reporting.figures.sheet import LINE, MARGIN, POINTS, PageBlock, place, write_page
from tseg.reporting.tables.datasets import LARGE, SMALL
from tseg.reporting.tables.description import SplitDescription

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = ["-", "--", ":"]
# Inches.
WIDTH, HEIGHT = 3.2, 1.3  # of the axes
LEFT, BELOW, LEGEND = 0.65, 0.5, 1.3
# Edges of bins: percent of the image, and words.
SIZES = np.geomspace(0.01, 100, 25)
LENGTHS = np.arange(0.5, 21)
SIZE_TICKS: dict[float, str] = {0.01: "≤0.01", 0.1: "0.1", 1: "1", 10: "10", 100: "100"}
LENGTH_TICKS: dict[float, str] = {1: "1", 5: "5", 10: "10", 15: "15", 20: "≥20"}


def draw_datasets(descriptions: Sequence[SplitDescription], output: Path) -> None:
    """Write a PNG: a row per data set, the distribution of its masks' sizes and of its expressions' lengths.

    A curve is a split: how many of its masks, or of its expressions, are in each bin, in percent.
    """
    of_dataset: dict[str, list[SplitDescription]] = {}
    for description in descriptions:
        of_dataset.setdefault(description.metadata["dataset"], []).append(description)
    write_page(
        [_row(name, splits) for name, splits in of_dataset.items()],
        output,
        width=2 * MARGIN + 2 * (LEFT + WIDTH) + LEGEND,
        title="Sizes of masks and lengths of expressions",
        caption=f"Dotted: masks of {SMALL:.0%} and {LARGE:.0%} of their image.",
    )


def _row(name: str, splits: Sequence[SplitDescription]) -> PageBlock:
    def draw(figure: "Figure", top: float) -> None:
        left, right = (
            place(figure, MARGIN + number * (LEFT + WIDTH) + LEFT, top - 2 * LINE, WIDTH, HEIGHT) for number in (0, 1)
        )
        left.set_title(name, fontsize=POINTS + 1, loc="left", parse_math=False)
        for split, (style, colour) in zip(splits, cycle(product(STYLES, COLOURS)), strict=False):
            look = {"linestyle": style, "color": colour, "label": split.metadata["split"]}
            left.stairs(_percent(100 * split.sizes, SIZES), SIZES, **look)
            right.stairs(_percent(split.lengths, LENGTHS), LENGTHS, **look)
        left.set_xscale("log")
        _finish(left, "size of the mask, % of the image", "masks, %", SIZE_TICKS)
        _finish(right, "words of the expression", "expressions, %", LENGTH_TICKS)
        if not any(len(split.sizes) for split in splits):
            left.text(0.5, 0.5, "no masks", transform=left.transAxes, ha="center", fontsize=POINTS)
        for edge in (SMALL, LARGE):
            left.axvline(100 * edge, color="#888888", linestyle=":", linewidth=0.8, zorder=0)
        legend = right.legend(frameon=False, fontsize=POINTS - 1, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        for text in legend.get_texts():
            text.set_parse_math(False)

    return PageBlock(2 * LINE + HEIGHT + BELOW, draw)


def _percent(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many of the values are in each bin, in percent."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return 100 * counts / max(1, len(values))


def _finish(axes: "Axes", across: str, up: str, ticks: dict[float, str]) -> None:
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel(across, fontsize=POINTS)
    axes.set_ylabel(up, fontsize=POINTS)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=POINTS - 1)
    axes.spines[["top", "right"]].set_visible(False)
