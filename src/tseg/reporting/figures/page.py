"""The page that all figures share: a grid of axes between a title and a caption."""

import textwrap
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from tseg.files import atomic_write
from tseg.reporting.figures.overlay import COLOURS

GAP = 0.06  # inches
TITLE: dict[str, Any] = {"size": 12, "weight": "bold"}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.borderpad": 0,
    "legend.labelspacing": 0.35,
    "figure.labelsize": 9,
    "figure.dpi": 150,
    "text.parse_math": False,  # an expression may contain a dollar sign
}


def line_styles() -> Iterator[dict[str, Any]]:
    """Yield the look of each line of an axes: colours first, then line styles, without end."""
    return cycle({"linestyle": style, "color": colour} for style, colour in product(("-", "--", ":"), COLOURS))


@contextmanager
def page(
    output: Path, *, widths: Sequence[float], heights: Sequence[float], title: str, caption: str
) -> Generator[np.ndarray]:
    """Yield a grid of axes to draw on, then write the page as a PNG. The same drawing gives the same bytes.

    The axes have `widths` and `heights` in inches, and the page is as large as they and their decorations need. A row
    is at least as high as its legends.
    """
    across = sum(widths)
    with rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=GAP, h_pad=GAP, wspace=0, hspace=0)
        figure = Figure(figsize=(across + 10, 4 * sum(heights) + 40), layout=layout)  # large enough for any text
        heading = figure.suptitle(wrap(title, across, **TITLE), ha="left", **TITLE)
        footer = figure.supxlabel(wrap(caption, across), ha="left")
        body: Any = figure.subfigures()  # its legend stays clear of the caption
        grid = body.subplots(len(heights), len(widths), squeeze=False)
        yield grid
        legends = [[axes.get_legend() for axes in line if axes.get_legend()] for line in grid]
        needed = [max((each.get_window_extent().height for each in line), default=0) for line in legends]
        heights = np.maximum(heights, np.array(needed) / figure.dpi).tolist()
        grid[0, 0].get_gridspec().set_width_ratios(widths)
        grid[0, 0].get_gridspec().set_height_ratios(heights)
        # Decorations keep their size, so a layout at any size tells how large the figure must be.
        layout.execute(figure)
        inner = np.array([_extent(grid[0], "width"), _extent(grid[:, 0], "height")]) * body.bbox.size / figure.dpi
        figure.set_size_inches(figure.get_size_inches() - inner + [across, sum(heights)])
        for text in (heading, footer):
            text.set_x(GAP / figure.get_figwidth())
        with atomic_write(output) as partial:
            figure.savefig(partial, format="png", metadata={"Software": None})


def wrap(text: str, inches: float, **font: Any) -> str:
    """Break a text into lines of at most `inches`, as measured in the font."""
    properties, text = FontProperties(**font), " ".join(text.split())

    def width(line: str) -> float:
        return text_to_path.get_text_width_height_descent(line, properties, ismath=False)[0] / 72

    longest = int(len(text) * inches / width(text)) if text else 0  # characters of a line of average letters
    filled = (textwrap.fill(text, characters) for characters in range(longest, 0, -1))
    return next((lines for lines in filled if all(width(line) <= inches for line in lines.splitlines())), text)


def _extent(cells: Sequence[Any], side: str) -> float:
    return sum(getattr(axes.get_position(original=True), side) for axes in cells)
