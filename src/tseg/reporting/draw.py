"""Figures from files: what the workflow's rules leave behind, read and drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tseg.provenance import MasksProvenance, PredictionsProvenance, RecordsProvenance
from tseg.records import read, read_records
from tseg.reporting.figures.assignment import draw_assignment
from tseg.reporting.figures.classes import draw_classes
from tseg.reporting.figures.curves import draw_learning_curves
from tseg.reporting.figures.masks import draw_expressions, draw_masks
from tseg.reporting.tables.notes import data_met


def mask_figure(
    files: Sequence[Path],
    labels: Sequence[str],
    records: Path,
    output: Path,
    *,
    num_panels: int,
    seed: int,
    title: str,
    caption: str,
) -> None:
    """`draw_masks` of files that `tseg refine` wrote, a column each under one of the `labels`."""
    rows, split = read_records(records)
    masks, title = _columns(files, labels), _title(title, split)
    draw_masks(rows, masks, output, num_panels=num_panels, seed=seed, title=title, caption=caption)


def expression_figure(
    file: Path, records: Path, output: Path, *, num_panels: int, seed: int, title: str, caption: str
) -> None:
    """`draw_expressions` of a file that `tseg refine` wrote."""
    rows, split = read_records(records)
    masks, _ = read(file, MasksProvenance)
    draw_expressions(rows, masks, output, num_panels=num_panels, seed=seed, title=_title(title, split), caption=caption)


def class_figure(
    files: Sequence[Path],
    labels: Sequence[str],
    records: Path,
    output: Path,
    *,
    only: Sequence[str] | None,
    num_panels: int,
    seed: int,
    title: str,
    caption: str,
) -> None:
    """`draw_classes` of files that `tseg refine` wrote. Raises ValueError for a data set without classes."""
    rows, split = read_records(records)
    if not split.classes:
        raise ValueError(f"{records} has no classes; draw masks or expressions instead")
    draw_classes(
        rows,
        _columns(files, labels),
        split.classes,
        output,
        only=only,
        num_panels=num_panels,
        seed=seed,
        title=_title(title, split),
        caption=caption,
    )


def assignment_figure(file: Path, records: Path, output: Path, *, title: str, caption: str) -> None:
    """`draw_assignment` of a file that `tseg predict` wrote."""
    rows, split = read_records(records)
    predictions, _ = read(file, PredictionsProvenance)
    draw_assignment(rows, predictions, output, title=_title(title, split), caption=caption)


def curve_figure(files: Sequence[Path], output: Path, *, panels: Mapping[str, str], title: str, caption: str) -> None:
    """`draw_learning_curves` of files <run>/seed<k>/history.csv; `panels` maps a run to its panel. Default: one."""
    histories = {"/".join(path.resolve().parts[-3:-1]): pd.read_csv(path) for path in files}
    names = {label: panels.get(label.partition("/")[0], "loss") for label in histories}
    draw_learning_curves(histories, output, panels=names, title=title, caption=caption)


def _columns(files: Sequence[Path], labels: Sequence[str]) -> dict[str, pd.DataFrame]:
    if len(set(labels)) != len(files) or len(labels) != len(files):
        raise ValueError(f"--label: {len(files)} files need {len(files)} different labels, not {', '.join(labels)}")
    return {label: read(path, MasksProvenance)[0] for label, path in zip(labels, files, strict=True)}


def _title(title: str, split: RecordsProvenance) -> str:
    return f"{title}: {data_met(split)}"
