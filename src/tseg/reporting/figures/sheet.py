"""The page that all figures share: blocks below one another, between a title and a caption."""

import textwrap
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from tseg.files import atomic_write
from tseg.reporting.figures.overlay import WORKING_PIXELS, Look, overlay

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150
# Inches.
MARGIN, GAP, LINE = 0.12, 0.06, 0.18
WIDEST, NARROWEST, PAGE = 2.2, 1.4, 8.0  # a panel, and all panels of a row
SWATCH_WIDTH, SWATCH_HEIGHT = 0.3, 0.15
KEYS_WIDTH = 2.7  # of a row's own legend
CHARACTER, BOLD = 0.07, 1.2  # width of text in general; bold is so many times as wide
POINTS = 9
TALLEST = 1.2  # height over width of a panel; a taller image is shown smaller
CORNER = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}


class PageBlock(NamedTuple):
    """Something `height` inches high, that is drawn with its upper edge `top` inches above the lower edge."""

    height: float
    draw: Callable[["Figure", float], None]


class Key(NamedTuple):
    """What a look stands for; a text alone has none."""

    text: str
    look: Look | None


class Panel(NamedTuple):
    """An image (RGB) with a text in its upper left corner and `names` (x, y, text) at places, in its pixels."""

    image: Image.Image
    corner: str = ""
    names: Sequence[tuple[float, float, str]] = ()


class PanelRow(NamedTuple):
    """Panels side by side, a heading above them and a legend of their own to their right."""

    panels: Sequence[Panel]
    heading: str = ""
    keys: Sequence[Key] = ()


def write_panels(
    rows: Sequence[PanelRow],
    columns: Sequence[str],
    output: Path,
    *,
    title: str,
    caption: str,
    keys: Sequence[Key] = (),
    more: Sequence[PageBlock] = (),
) -> None:
    """Write a PNG of rows of panels below the names of their columns; `keys` and `more` stand below the panels."""
    panel = min(WIDEST, max(NARROWEST, PAGE / len(columns)))
    width = 2 * MARGIN + len(columns) * (panel + GAP) + (KEYS_WIDTH if any(row.keys for row in rows) else 0)
    blocks = [_names(columns, panel)]
    for row in rows:
        blocks += [*([text_block(row.heading, width, bold=True)] if row.heading else []), _panels(row, panel)]
    legend = [_legend(keys, width)] if keys else []
    write_page([*blocks, *legend, *more], output, width=width, title=title, caption=caption)


def write_page(blocks: Sequence[PageBlock], output: Path, *, width: float, title: str, caption: str) -> None:
    """Write a PNG of the blocks, `width` inches wide. The same blocks make the same bytes."""
    from matplotlib.figure import Figure

    heading = text_block(title, width, fontsize=12, bold=True)
    blocks = [heading, space(GAP), *blocks, space(GAP), text_block(caption, width, color="#333333")]
    top = MARGIN + sum(block.height for block in blocks) + MARGIN
    figure = Figure(figsize=(width, top), dpi=DOTS_PER_INCH)
    top -= MARGIN
    for block in blocks:
        block.draw(figure, top)
        top -= block.height
    with atomic_write(output) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def space(height: float) -> PageBlock:
    """Nothing."""
    return PageBlock(height, lambda figure, top: None)


def text_block(
    text: str, width: float, *, fontsize: float = POINTS, bold: bool = False, color: str = "black"
) -> PageBlock:
    """Lines of text across the page."""
    character = CHARACTER * fontsize / POINTS * (BOLD if bold else 1)
    lines = textwrap.wrap(text, int((width - 2 * MARGIN) / character)) or [""]
    style = {"fontsize": fontsize, "weight": "bold" if bold else "normal", "color": color}
    height = LINE * fontsize / POINTS

    def draw(figure: "Figure", top: float) -> None:
        for number, line in enumerate(lines):
            _write(figure, MARGIN, top - (number + 0.5) * height, line, **style)

    return PageBlock(height * len(lines), draw)


def place(figure: "Figure", left: float, top: float, width: float, height: float) -> "Axes":
    """Axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, (top - height) / up, width / across, height / up))


def _write(figure: "Figure", left: float, middle: float, text: str, **style: Any) -> None:
    style = {"fontsize": POINTS, "va": "center", "parse_math": False} | style
    figure.text(left, middle, text, transform=figure.dpi_scale_trans, **style)


def _names(columns: Sequence[str], panel: float) -> PageBlock:
    texts = [textwrap.wrap(name, int(panel / CHARACTER)) for name in columns]
    num_lines = max(map(len, texts))

    def draw(figure: "Figure", top: float) -> None:
        for number, lines in enumerate(texts):
            middle = MARGIN + number * (panel + GAP) + panel / 2
            for up, line in enumerate(reversed(lines)):
                _write(figure, middle, top - (num_lines - up - 0.5) * LINE, line, ha="center")

    return PageBlock(LINE * num_lines + GAP, draw)


def _panels(row: PanelRow, panel: float) -> PageBlock:
    aspect = max(each.image.height / each.image.width for each in row.panels)
    texts = [textwrap.wrap(key.text, int((KEYS_WIDTH - SWATCH_WIDTH - 2 * GAP) / CHARACTER)) for key in row.keys]
    keys_height = LINE * sum(len(lines) for lines in texts) + GAP * len(texts)
    height = max(panel * min(aspect, TALLEST), keys_height)

    def draw(figure: "Figure", top: float) -> None:
        for number, each in enumerate(row.panels):
            tall = min(height, panel * each.image.height / each.image.width)
            wide = tall * each.image.width / each.image.height
            left = MARGIN + number * (panel + GAP) + (panel - wide) / 2
            _draw_panel(place(figure, left, top, wide, tall), each)
        down, left = top, MARGIN + len(row.panels) * (panel + GAP) + GAP
        for key, lines in zip(row.keys, texts, strict=True):
            _draw_key(figure, left, down, key.look, lines)
            down -= LINE * len(lines) + GAP

    return PageBlock(height + 2 * GAP, draw)


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    from matplotlib.patheffects import withStroke

    axes.imshow(panel.image, aspect="auto")
    axes.set_axis_off()
    if panel.corner:
        spot = {"transform": axes.transAxes, "va": "top", "parse_math": False, "bbox": CORNER}
        axes.text(0.03, 0.97, panel.corner, fontsize=POINTS - 1, **spot)
    for x, y, name in panel.names:
        halo = [withStroke(linewidth=2, foreground="white")]
        axes.text(x, y, name, fontsize=POINTS - 2, ha="center", va="center", parse_math=False, path_effects=halo)


def _legend(keys: Sequence[Key], width: float) -> PageBlock:
    """Swatches and what they stand for, in columns."""
    each = SWATCH_WIDTH + 4 * GAP + CHARACTER * max(len(key.text) for key in keys)
    num_columns = max(1, int((width - 2 * MARGIN) / each))

    def draw(figure: "Figure", top: float) -> None:
        for number, key in enumerate(keys):
            line, column = divmod(number, num_columns)
            _draw_key(figure, MARGIN + column * each, top - line * LINE, key.look, [key.text])

    return PageBlock(LINE * ceil(len(keys) / num_columns), draw)


def _draw_key(figure: "Figure", left: float, top: float, look: Look | None, lines: Sequence[str]) -> None:
    if look is not None:
        swatch = place(figure, left, top - (LINE - SWATCH_HEIGHT) / 2, SWATCH_WIDTH, SWATCH_HEIGHT)
        swatch.imshow(_swatch(look), aspect="auto")
        swatch.set_axis_off()
    for number, line in enumerate(lines):
        _write(figure, left + SWATCH_WIDTH + GAP, top - (number + 0.5) * LINE, line)


def _swatch(look: Look) -> Image.Image:
    """A piece of a grey image under a mask of this look."""
    mask = np.zeros((WORKING_PIXELS, WORKING_PIXELS), bool)
    mask[10:42, 10:74] = True
    return overlay(Image.new("RGB", mask.shape, "#909090"), [mask], [look]).crop((10, 10, 74, 42))
