"""Printed tables: rendered in a terminal, Markdown elsewhere; the best cells are bold."""

import numpy as np
import pandas as pd
import pytest
from rich.text import Text

from tseg.reporting.tables.formats import RowGroup, Sheet, markdown, print_sheet


def make_sheet(values: np.ndarray) -> Sheet:
    numbers = pd.DataFrame(values, index=[f"row {row}" for row in range(len(values))])
    numbers = numbers.rename(columns=lambda column: f"a long name of column {column}")
    group = RowGroup("Title", numbers, numbers.map("{:.2f}".format))
    return Sheet("Caption", ["Data of shapes."], ["A note."], "Corner", "row", [group])


@pytest.fixture
def sheet() -> Sheet:
    return make_sheet(np.array([[1.0, 2.0, np.nan], [np.nan, np.nan, np.nan]]))


def test_a_pipe_receives_markdown(sheet: Sheet, capsys: pytest.CaptureFixture[str]) -> None:
    print_sheet(sheet)
    assert capsys.readouterr().out == markdown(sheet)


def test_a_terminal_receives_a_rendered_table_within_its_width(
    sheet: Sheet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    print_sheet(sheet)
    lines = Text.from_ansi(capsys.readouterr().out).plain.splitlines()
    assert ["row", "0", "1.00", "2.00", "nan"] in [line.split() for line in lines]
    assert max(map(len, lines)) <= 60


def test_the_best_cells_are_bold_and_nan_is_never_best(sheet: Sheet) -> None:
    rows = markdown(sheet).splitlines()[6:8]
    assert rows == ["| row 0 | 1.00 | **2.00** | nan |", "| row 1 | nan | nan | nan |"]
    every = make_sheet(np.array([[3.0, 3.0], [1.0, 2.0]]))
    assert markdown(every).count("**3.00**") == 2
