"""The loss during training."""

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from tseg.reporting.figures.page import line_styles, page, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 3.0, 2.1  # of the axes, inches
NUM_COLUMNS = 2
SMOOTHING = 30  # a curve is smoothed over 1/SMOOTHING of its length
MAX_CURVES = 24  # in a panel: as many looks as lines have


def draw_learning_curves(
    histories: dict[str, pd.DataFrame], output: Path, *, panels: dict[str, str], title: str, caption: str
) -> None:
    """Write a PNG of the loss over the iterations, a curve per label, smoothed over 1/`SMOOTHING` of its length.

    A history has the columns iteration and loss; a pale line behind the curve is the unsmoothed loss. `panels` names
    the panel of each label: losses with different meanings, as in weak and full supervision, need separate panels.
    """
    names = list(dict.fromkeys(panels[label] for label in histories))
    shown = {name: [label for label in histories if panels[label] == name][:MAX_CURVES] for name in names}
    if num_left_out := len(histories) - sum(map(len, shown.values())):
        caption += f" Of each panel, the first {MAX_CURVES} curves are drawn; {num_left_out} others are left out."
    widths, heights = [WIDTH] * min(NUM_COLUMNS, len(names)), [HEIGHT] * ceil(len(names) / NUM_COLUMNS)
    caption = f"{caption} Curves are smoothed over 1/{SMOOTHING} of the training; pale lines are not smoothed."
    with page(output, widths=widths, heights=heights, title=title, caption=caption) as grid:
        for axes in grid.flat[len(names) :]:
            axes.set_axis_off()
        for axes, name in zip(grid.flat, names, strict=False):
            axes.set_title(wrap(name, WIDTH))
            _draw_curves(axes, {label: histories[label] for label in shown[name]})


def _draw_curves(axes: "Axes", histories: dict[str, pd.DataFrame]) -> None:
    for (label, history), line in zip(histories.items(), line_styles(), strict=False):
        smooth = history["loss"].ewm(span=max(1, len(history) / SMOOTHING)).mean()
        axes.plot(history["iteration"], history["loss"], color=line["color"], alpha=0.12, linewidth=0.8, zorder=1)
        axes.plot(history["iteration"], smooth, **line, label=wrap(label, WIDTH))
    axes.set(xlabel="iteration", ylabel="loss")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
