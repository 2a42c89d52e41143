"""Figures from files of the workflow. Each function reads files and draws them with its namesake in `figures`.

`options` are the keyword arguments of that namesake; the titles of figures of records end with the name of the data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tseg.files import require_file
from tseg.provenance import MasksProvenance, PredictionsProvenance, RecordsProvenance
from tseg.records import read, read_records
from tseg.reporting.figures.assignment import draw_assignment
from tseg.reporting.figures.classes import draw_classes
from tseg.reporting.figures.curves import draw_learning_curves
from tseg.reporting.figures.masks import draw_expressions, draw_masks
from tseg.reporting.tables.notes import name_with_sources


def mask_figure(
    files: Sequence[Path], labels: Sequence[str], records: Path, output: Path, *, title: str, **options: Any
) -> None:
    """Draw files that `tseg refine` wrote, a column each under one of the `labels`."""
    rows, split = read_records(records)
    draw_masks(rows, _columns(files, labels), output, title=_title(title, split), **options)


def expression_figure(file: Path, records: Path, output: Path, *, title: str, **options: Any) -> None:
    """Draw a file that `tseg refine` wrote."""
    rows, split = read_records(records)
    masks, _ = read(file, MasksProvenance)
    draw_expressions(rows, masks, output, title=_title(title, split), **options)


def class_figure(
    files: Sequence[Path], labels: Sequence[str], records: Path, output: Path, *, title: str, **options: Any
) -> None:
    """Draw files that `tseg refine` wrote, a column each. Raises ValueError for a data set without classes."""
    rows, split = read_records(records)
    if not split.classes:
        raise ValueError(f"{records} has no classes; draw masks or expressions instead")
    draw_classes(rows, _columns(files, labels), split.classes, output, title=_title(title, split), **options)


def assignment_figure(file: Path, records: Path, output: Path, *, title: str, caption: str) -> None:
    """Draw a file that `tseg predict` wrote."""
    rows, split = read_records(records)
    predictions, _ = read(file, PredictionsProvenance)
    draw_assignment(rows, predictions, output, title=_title(title, split), caption=caption)


def curve_figure(panels: Mapping[Path, str], output: Path, *, title: str, caption: str) -> None:
    """Draw files <run>/seed<k>/history.csv, each in the panel with its title. Raises ValueError if there is none."""
    if not panels:
        raise ValueError("there is no history to draw; name files history.csv")
    labels = {path: "/".join(path.resolve().parts[-3:-1]) for path in panels}
    hint = "make it with `tseg train`"
    histories = {label: pd.read_csv(require_file(path, hint)) for path, label in labels.items()}
    names = {label: panels[path] for path, label in labels.items()}
    draw_learning_curves(histories, output, panels=names, title=title, caption=caption)


def _columns(files: Sequence[Path], labels: Sequence[str]) -> dict[str, pd.DataFrame]:
    if len(set(labels)) != len(files) or len(labels) != len(files):
        raise ValueError(f"{len(files)} files need {len(files)} different labels (--label), not {', '.join(labels)}")
    return {label: read(path, MasksProvenance)[0] for label, path in zip(labels, files, strict=True)}


def _title(title: str, split: RecordsProvenance) -> str:
    return f"{title}: {name_with_sources(split)}"
