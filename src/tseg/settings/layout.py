"""The layout of a table: its labels, and the files behind its cells."""

from typing import Literal

from tseg.settings.schema import StrictModel


class CellLayout(StrictModel):
    """A cell of a table: the mean of a metric over summaries."""

    row: str
    column: str
    metric: str
    summaries: list[str]
    """Summaries of `tseg evaluate`, one per seed."""


class TableLayout(StrictModel):
    """A table as `tseg tabulate` reads it."""

    table: str
    number: str
    title: str
    corner: str
    best: Literal["column", "row", "table"]
    note: str
    rows: list[str]
    columns: list[str]
    cells: list[CellLayout]
