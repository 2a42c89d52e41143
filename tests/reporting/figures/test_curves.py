"""Learning curves have a panel per kind of loss and the same bytes every time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tseg.reporting.figures.curves import draw_learning_curves

HOW = {"title": "Learning curves", "caption": "Loss of every run."}


@pytest.fixture
def histories() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    labels = ["GAP $1", *(f"run {number}" for number in range(18)), "full"]
    return {
        label: pd.DataFrame({"iteration": range(1, 51), "loss": rng.random(50), "learning_rate": 0.1})
        for label in labels
    }


def test_curves_are_drawn_the_same_twice(histories: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    panels = dict.fromkeys(histories, "weak") | {"full": "full"}
    for name in ("first.png", "second.png"):
        draw_learning_curves(histories, tmp_path / name, panels=panels, **HOW)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_every_run_has_a_distinct_curve_in_its_panel(
    histories: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: (figures.append(figure), path.touch()))
    panels = dict.fromkeys(histories, "weak") | {"full": "full"}
    draw_learning_curves(histories, tmp_path / "curves.png", panels=panels, **HOW)
    weak, full = figures[0].axes
    assert [axes.get_title(loc="left") for axes in (weak, full)] == ["weak", "full"]
    assert [text.get_text() for text in weak.get_legend().get_texts()] == list(histories)[:-1]
    assert [text.get_text() for text in full.get_legend().get_texts()] == ["full"]
    curves = weak.lines[1::2]
    assert len({(curve.get_color(), curve.get_linestyle()) for curve in curves}) == 19
    np.testing.assert_array_equal(full.lines[0].get_ydata(), histories["full"]["loss"])


def test_a_history_of_one_iteration_can_be_drawn(histories: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    short = {"full": histories["full"].head(1)}
    draw_learning_curves(short, tmp_path / "curves.png", panels={"full": "full"}, **HOW)
    assert Image.open(tmp_path / "curves.png").width > 0


def test_curves_beyond_those_that_can_be_told_apart_are_counted(
    histories: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: (figures.append(figure), path.touch()))
    many = {f"run {number}": histories["full"] for number in range(200)}
    draw_learning_curves(many, tmp_path / "curves.png", panels=dict.fromkeys(many, "weak"), **HOW)
    (axes,) = figures[0].axes
    assert len(axes.get_legend().get_texts()) == 24
    texts = " ".join(text.get_text() for text in figures[0].texts).replace("\n", " ")
    assert "the first 24 curves are drawn; 176 others are left out" in texts
