"""The loss while training."""

import textwrap
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from tseg.reporting.figures.overlay import COLOURS
from tseg.reporting.figures.sheet import LINE, MARGIN, POINTS, PageBlock, place, write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = ["-", "--", ":"]
# Inches.
WIDTH, LEAST_HEIGHT = 3.0, 2.1  # of the axes
LEFT, BELOW, LEGEND = 0.65, 0.5, 1.9
LABEL_CHARACTERS = 21
NUM_COLUMNS = 2
SMOOTHING = 30  # the part of its length over which a curve is smoothed

Histories = dict[str, pd.DataFrame]


def draw_learning_curves(
    histories: Histories, output: Path, *, panels: dict[str, str], title: str, caption: str
) -> None:
    """Write a PNG of the loss over the iterations, a curve per label, smoothed over a thirtieth of its length.

    A history has the columns iteration and loss; the loss as it was stands pale behind the curve. `panels` names the
    panel of each label: losses that mean different things, as those of weak and full supervision, need one each.
    """
    names = list(dict.fromkeys(panels[label] for label in histories))
    grouped = {name: {label: histories[label] for label in histories if panels[label] == name} for name in names}
    starts = range(0, len(names), NUM_COLUMNS)
    blocks = [_row({name: grouped[name] for name in names[start : start + NUM_COLUMNS]}) for start in starts]
    width = 2 * MARGIN + min(len(names), NUM_COLUMNS) * (LEFT + WIDTH + LEGEND)
    smoothed = f"Smoothed over a {SMOOTHING}th of the training; pale: as it was."
    write_page(blocks, output, width=width, title=title, caption=f"{caption} {smoothed}".strip())


def _row(panels: dict[str, Histories]) -> PageBlock:
    num_lines = max(sum(len(_label(label).splitlines()) for label in of_panel) for of_panel in panels.values())
    height = max(LEAST_HEIGHT, LINE * num_lines)

    def draw(figure: "Figure", top: float) -> None:
        for number, (name, histories) in enumerate(panels.items()):
            left = MARGIN + number * (LEFT + WIDTH + LEGEND) + LEFT
            axes = place(figure, left, top - 2 * LINE, WIDTH, height)
            axes.set_title(name, fontsize=POINTS + 1, parse_math=False)
            _draw_curves(axes, histories)

    return PageBlock(2 * LINE + height + BELOW, draw)


def _draw_curves(axes: "Axes", histories: Histories) -> None:
    looks = cycle(product(STYLES, COLOURS))
    for (label, history), (style, colour) in zip(histories.items(), looks, strict=False):
        smooth = history["loss"].ewm(span=max(1, len(history) / SMOOTHING)).mean()
        axes.plot(history["iteration"], history["loss"], color=colour, alpha=0.12, linewidth=0.8, zorder=1)
        axes.plot(history["iteration"], smooth, color=colour, linestyle=style, label=_label(label))
    axes.set_xlabel("iteration", fontsize=POINTS)
    axes.set_ylabel("loss", fontsize=POINTS)
    axes.tick_params(labelsize=POINTS - 1)
    axes.spines[["top", "right"]].set_visible(False)
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0, "handlelength": 1.6}
    legend = axes.legend(frameon=False, fontsize=POINTS - 1, labelspacing=0.35, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _label(label: str) -> str:
    return textwrap.fill(label, LABEL_CHARACTERS)
