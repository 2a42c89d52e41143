"""Pages fit their axes and texts; no text is cut off or covers another."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tseg.reporting.figures.overlay import LOOKS
from tseg.reporting.figures.page import page, wrap
from tseg.reporting.figures.panels import Panel, PanelRow, write_panels

LONG = "_a caption of $5 or $10 with averyveryveryverylongwordthatnohyphendividesandthatmustbebrokensomewhere " * 4


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a test writes, laid out."""
    figures: list[Figure] = []

    def keep(figure: Figure, path: Path, **_: object) -> None:
        figure.draw_without_rendering()
        figures.append(figure)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_axes_have_the_requested_size_whatever_surrounds_them(tmp_path: Path, drawn: list[Figure]) -> None:
    with page(tmp_path / "page.png", widths=[2, 3], heights=[1, 2], title=LONG, caption=LONG) as grid:
        for axes in grid.flat:
            axes.set(xlabel="x", ylabel="y", title="two\nlines")
    sizes = np.array([axes.get_window_extent().size for axes in drawn[0].axes]) / drawn[0].dpi
    np.testing.assert_allclose(sizes, [(2, 1), (3, 1), (2, 2), (3, 2)], rtol=0.05)


def test_a_row_is_at_least_as_high_as_its_legend(tmp_path: Path, drawn: list[Figure]) -> None:
    with page(tmp_path / "page.png", widths=[2], heights=[1, 1], title="", caption="") as grid:
        grid[0, 0].plot(np.zeros((2, 20)), label=[f"$ {number}" for number in range(20)])
        grid[0, 0].legend(loc="upper left", bbox_to_anchor=(1, 1))
    high, low = drawn[0].axes
    legend = high.get_legend()
    assert legend is not None
    assert high.get_window_extent().height >= 0.99 * legend.get_window_extent().height > drawn[0].dpi
    assert low.get_window_extent().height == pytest.approx(drawn[0].dpi, rel=0.02)


def test_long_texts_are_inside_the_page_and_apart_from_one_another(tmp_path: Path, drawn: list[Figure]) -> None:
    image = Image.new("RGB", (400, 300))
    keys = {f"{number} {LONG}": look for number, look in enumerate(LOOKS[:3])}
    rows = [PanelRow([Panel(image)] * 2, heading=LONG, keys=keys)] * 2
    write_panels(rows, ["one " + LONG, "two"], tmp_path / "page.png", title=LONG, caption=LONG, keys=keys)
    (figure,) = drawn
    texts: list[Any] = figure.findobj(lambda artist: isinstance(artist, Text) and "caption" in artist.get_text())
    assert len(texts) == 2 + 1 + 2 + 3 + 6  # title and caption, column, headings, legend, legends of rows
    boxes = [text.get_window_extent() for text in texts]
    page_box = figure.bbox
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page_box.x1 and box.y1 <= page_box.y1 for box in boxes)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_an_image_keeps_its_shape_beside_a_long_legend(tmp_path: Path, drawn: list[Figure]) -> None:
    keys = {f"{number} {LONG}": LOOKS[number] for number in range(6)}
    for size in ((400, 100), (100, 400)):
        rows = [PanelRow([Panel(Image.new("RGB", size))] * 2, keys=keys)]
        write_panels(rows, ["one", "two"], tmp_path / "page.png", title="", caption="")
        (image, _) = drawn[-1].axes[1].images
        box = image.get_window_extent()
        assert box.width / box.height == pytest.approx(size[0] / size[1], rel=0.02)


@pytest.mark.parametrize("text", ["", "short", LONG, "iiii " * 50, "W" * 200])
def test_wrapped_lines_fit_as_the_renderer_measures_them(text: str) -> None:
    canvas = FigureCanvasAgg(Figure(dpi=150))
    lines = wrap(text, 2).splitlines()
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    for line in lines:
        extent = canvas.figure.text(0, 0, line, size=10, parse_math=False).get_window_extent(canvas.get_renderer())
        assert extent.width / 150 <= 2.06
