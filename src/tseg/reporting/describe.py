"""The table and the figure of data sets, from files of records."""

from collections.abc import Sequence
from pathlib import Path

from tseg.reporting.tables.datasets import datasets_sheet, write_datasets
from tseg.reporting.tables.description import describe_records
from tseg.reporting.tables.formats import Sheet


def describe_datasets(paths: Sequence[Path], output: Path | None = None) -> Sheet:
    """Return the printed table of the data sets in `paths`: files that `tseg prepare` wrote, or folders of them.

    With `output`, a CSV file, also write the table there, with .md, .html and the figure as .png beside it. Raises
    ValueError if a folder has no records or a split occurs twice.
    """
    descriptions = [describe_records(file) for path in paths for file in _files(path)]
    if output is None:
        return datasets_sheet(descriptions)
    from tseg.reporting.figures.datasets import draw_datasets

    sheet = write_datasets(descriptions, output)
    draw_datasets(descriptions, output.with_suffix(".png"))
    return sheet


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} has no records; make them with `tseg prepare`")
    return files
