"""published.csv: numbers that others published, which the tables show below ours."""

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tseg.files import require_file
from tseg.settings.layout import TableLayout
from tseg.settings.validation import prefix_errors

MEASURES = {"subsets": "mIoU", "classes": "IoU"}
"""Group of metrics, such as classes in classes.cat, to what its members measure."""
OUR_NAMES = {"oiou": "overall_IoU", "ciou": "overall_IoU"} | {
    f"{name}@0.{digit}": f"precision_0.{digit}" for name in ("p", "pr", "prec") for digit in range(5, 10)
}
"""Other papers' name of a metric, in small letters, to ours."""
_NUMBER = re.compile(r"\d*\.?\d+", re.ASCII)


class PublishedResult(NamedTuple):
    """A line of published.csv, as text."""

    source: str
    table: str
    """The `number` of a table."""
    row: str
    column: str
    metric: str
    """What `value` measures, such as mIoU; of a table of ours, the metric of the cells beside it."""
    value: str
    """In percent, as printed by the source."""
    access: str
    """What the result had beyond images, expressions and ImageNet, such as masks."""
    note: str


def read_published(path: Path, layouts: Iterable[TableLayout]) -> list[PublishedResult]:
    """Read and check published results; those of a table of `layouts` must have its metrics.

    Raises ValueError, which names the file, the line, the column, the value and the fix.
    """
    results = _parse(path)
    tables, lines = list(layouts), dict[tuple[str, ...], int]()
    for line, result in results.items():
        with prefix_errors(f"{path}: line {line}"):
            _check_form(result)
            cell = (result.source, result.table, result.row, result.column)
            if lines.setdefault(cell, line) != line:
                labels = ", ".join(map(repr, cell))
                raise ValueError(f"source, table, row, column: {labels} are those of line {lines[cell]} too; keep one")
            for layout in tables:
                if layout.number == result.table:
                    _check_metric(result, layout)
    return list(results.values())


def _parse(path: Path) -> dict[int, PublishedResult]:
    """Number of a line to its result."""
    lines = _lines(path)
    _, header = next(lines, (1, list[str]()))
    for name in PublishedResult._fields:
        if name not in header:
            raise ValueError(f"{path} has no column {name!r}; add it, as in config/published.csv of the repository")
    results: dict[int, PublishedResult] = {}
    for number, fields in lines:
        if len(fields) != len(header):
            raise ValueError(
                f"{path}: line {number} has {len(fields)} fields, and the header has {len(header)}; leave out no "
                "column, and put double quotes around a field with a comma"
            )
        values = dict(zip(header, fields, strict=True))
        results[number] = PublishedResult(*(values[name] for name in PublishedResult._fields))
    return results


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of every line that is not empty."""
    with require_file(path, "restore it from the repository, or name an existing file").open(
        encoding="utf-8-sig", newline=""
    ) as file:
        reader, number = csv.reader(file, strict=True), 1
        try:
            for fields in reader:
                if fields:
                    yield number, [field.strip() for field in fields]
                number = reader.line_num + 1
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not UTF-8; save it as CSV in UTF-8") from None
        except csv.Error as error:
            raise ValueError(
                f"{path}: line {number}: {error}; close its double quotes, and write one inside a field twice"
            ) from None


def _check_form(result: PublishedResult) -> None:
    for name in ("source", "table", "row", "column", "metric"):
        if not getattr(result, name):
            raise ValueError(f"{name}: it is empty; fill it in")
    if not _NUMBER.fullmatch(result.value) or float(result.value) > 100:
        raise ValueError(f"value: {result.value!r} is no number from 0 to 100; write percent, such as 28.77")


def _check_metric(result: PublishedResult, layout: TableLayout) -> None:
    """Raise ValueError unless the result measures the same as our cells beside it."""
    metrics = _metrics_beside(result, layout)
    measures = list(dict.fromkeys(MEASURES.get(metric.partition(".")[0], metric) for metric in metrics))
    if result.metric not in (*metrics, *measures):
        ours = OUR_NAMES.get(result.metric.lower())
        raise ValueError(
            f"metric: {result.metric!r} would stand beside {' and '.join(measures)} in table {layout.number}; correct "
            f"it, or move the line to a table with its metric{f' ({result.metric} is our {ours})' if ours else ''}"
        )


def _metrics_beside(result: PublishedResult, layout: TableLayout) -> list[str]:
    """The metric of our cell with the row and column; without it, those of its row or column, else of the table."""
    shared = [((cell.row == result.row) + (cell.column == result.column), cell.metric) for cell in layout.cells]
    most = max((count for count, _ in shared), default=0)
    return [metric for count, metric in shared if count == most]
