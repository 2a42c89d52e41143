"""Rows of panels, side by side under the names of their columns, with legends of looks."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.image import BboxImage
from matplotlib.legend_handler import HandlerBase
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox, TransformedBbox
from PIL import Image

from tseg.reporting.figures.overlay import WORKING_PIXELS, Look, overlay
from tseg.reporting.figures.page import GAP, page, wrap

# Inches.
WIDEST, NARROWEST, ROW_WIDTH = 2.2, 1.4, 8.0  # a panel, and all panels of a row
LEGEND_WIDTH, SWATCH_WIDTH = 2.3, 0.6  # of the texts beside a row, and of a swatch with the space around it
NO_HEIGHT, SCALE_HEIGHT = 1e-3, 0.1
TALLEST = 1.2  # height over width of a panel; a taller image is shown smaller
HEADING = {"weight": "bold"}
CORNER = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}

Keys = Mapping[str, Look | None]  # the looks of a legend by their texts; None for a text alone
NO_KEYS: Keys = MappingProxyType({})


class Panel(NamedTuple):
    """An image (RGB), a text in its upper left corner, and `names` (x, y, text) at positions in its pixels."""

    image: Image.Image
    corner: str = ""
    names: Sequence[tuple[float, float, str]] = ()


class PanelRow(NamedTuple):
    """Panels side by side, a heading above them and a legend to their right."""

    panels: Sequence[Panel]
    heading: str = ""
    keys: Keys = NO_KEYS


class LookHandler(HandlerBase):
    """Draw the swatch of a look in a legend."""

    def create_artists(  # noqa: D102
        self,
        legend: Any,
        orig_handle: Any,
        xdescent: float,
        ydescent: float,
        width: float,
        height: float,
        fontsize: float,
        trans: Any,
    ) -> list[Any]:
        box = TransformedBbox(Bbox.from_bounds(-xdescent, -ydescent, width, 1.4 * height), trans)
        return [BboxImage(box, data=_swatch(orig_handle))]


def write_panels(
    rows: Sequence[PanelRow],
    columns: Sequence[str],
    output: Path,
    *,
    title: str,
    caption: str,
    keys: Keys = NO_KEYS,
    scale: tuple[str, str] | None = None,
) -> None:
    """Write a PNG of rows of panels, above a legend of `keys` and a `scale` (label, colour map) from 0 to 1."""
    width = min(WIDEST, max(NARROWEST, ROW_WIDTH / len(columns)))
    lefts = [number * (width + GAP) for number in range(len(columns))]
    across = lefts[-1] + width
    heights = [width * min(TALLEST, max(each.image.height / each.image.width for each in row.panels)) for row in rows]
    all_heights = [NO_HEIGHT, *heights, *([SCALE_HEIGHT] if scale else [])]
    with page(output, widths=[across], heights=all_heights, title=title, caption=caption) as grid:
        header, *others = grid[:, 0]
        header.set_xlim(0, across)
        header.set_axis_off()
        for left, name in zip(lefts, columns, strict=True):
            header.text(left + width / 2, 0, wrap(name, width), ha="center", va="bottom")
        for axes, row, height in zip(others, rows, heights, strict=False):
            axes.set_title(wrap(row.heading, across, **HEADING), **HEADING)
            for panel, left in zip(row.panels, lefts, strict=True):
                _draw_panel(axes, panel, left, width)
            axes.set(xlim=(0, across), ylim=(height, 0), aspect="equal", anchor="NW")
            axes.set_axis_off()
            _add_legend(axes, row.keys, LEGEND_WIDTH, loc="upper left", bbox_to_anchor=(1, 1))
        _add_legend(header.figure, keys, width - SWATCH_WIDTH, loc="outside lower left", ncols=len(columns))
        if scale:
            label, colour_map = scale
            header.figure.colorbar(ScalarMappable(cmap=colour_map), others[-1], orientation="horizontal", label=label)


def _draw_panel(axes: Axes, panel: Panel, left: float, column_width: float) -> None:
    """Draw a panel at the top of its column, centred. The unit of the axes is the inch."""
    scale = min(column_width / panel.image.width, column_width * TALLEST / panel.image.height)
    width, height = scale * panel.image.width, scale * panel.image.height
    left += (column_width - width) / 2
    axes.imshow(panel.image, extent=(left, left + width, height, 0))
    if panel.corner:
        axes.text(left + GAP, GAP, panel.corner, size=8, va="top", bbox=CORNER)
    for x, y, name in panel.names:
        halo = [withStroke(linewidth=2, foreground="white")]
        axes.text(left + scale * x, scale * y, name, size=7, ha="center", va="center", path_effects=halo)


def _add_legend(parent: Any, keys: Keys, text_width: float, **where: Any) -> None:
    if keys:
        handles = [look or Line2D([], [], linestyle="none") for look in keys.values()]
        labels = [wrap(text, text_width) for text in keys]
        parent.legend(handles, labels, handler_map={Look: LookHandler()}, **where)


@cache
def _swatch(look: Look) -> np.ndarray:
    """Draw a piece of a grey image under a mask with the look."""
    mask = np.zeros((WORKING_PIXELS, WORKING_PIXELS), bool)
    mask[10:42, 10:74] = True
    return np.asarray(overlay(Image.new("RGB", mask.shape, "#909090"), [mask], [look]).crop((10, 10, 74, 42)))
