"""The reference of a run: its settings, first losses and score over several seeds. Git versions it."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from tseg.evaluation.score import read_summary
from tseg.files import atomic_write, hash_file, require_file
from tseg.lineage import Note, read_note
from tseg.reporting.conditions import Conditions, check_unchanged, conditions_of
from tseg.settings.run_schema import RunSettings
from tseg.settings.validation import parse, prefix_errors
from tseg.settings.verified import VerifiedFiles

NUM_LOSSES = 200
"""First rows of a history that are compared."""
DIGITS = 9
"""Significant digits of a loss, as many as float32 has."""
_HINT = "restore it by git, or make it again with `make reference`"


class RunReference(Conditions):
    """A run over several seeds, and what made it. Its losses are in a CSV file beside it, a column per seed."""

    settings: RunSettings
    records: dict[str, str]
    """Path of the records that the run was trained on, and of those that it excluded, to SHA-256."""
    summary: str | None
    """Name of the summary whose mIoU is the score; None if no table shows the run."""
    scores: dict[int, float]
    """Seed to mIoU in percent."""


def write_reference(settings: RunSettings, seeds: Mapping[int, VerifiedFiles], output: Path) -> RunReference:
    """Write the reference of a run as JSON, and its first losses as CSV beside it.

    Raises ValueError if a history or a summary has no note of what made it, or was changed since.
    """
    histories = {seed: _unchanged(files.history) for seed, files in seeds.items()}
    summaries = {seed: files.summary for seed, files in seeds.items() if files.summary}
    notes = [*histories.values(), *map(_unchanged, summaries.values())]
    reference = RunReference(
        **conditions_of(notes).model_dump(),
        settings=settings,
        records=records_read(settings, next(iter(histories.values()))),
        summary=next((summary.name for summary in summaries.values()), None),
        scores={seed: score_of(summary) for seed, summary in summaries.items()},
    )
    with atomic_write(output.with_suffix(".csv")) as partial:
        losses = pd.DataFrame({seed: first_losses(files.history) for seed, files in seeds.items()})
        losses.to_csv(partial, float_format=f"%.{DIGITS}g")
    with atomic_write(output) as partial:
        partial.write_text(reference.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return reference


def read_reference(path: Path) -> tuple[RunReference, pd.DataFrame]:
    """A reference, and its losses: index iteration, a column per seed (int).

    Raises ValueError, which names the file, if one of the two is missing or damaged, or if they do not fit.
    """
    losses = path.with_suffix(".csv")
    with prefix_errors(f"{path} is no reference of this version ({_HINT})"):
        reference = parse(RunReference, json.loads(require_file(path, _HINT).read_bytes()), "its content")
    with prefix_errors(f"{losses} has no losses ({_HINT})"):
        table = pd.read_csv(require_file(losses, _HINT), index_col="iteration", dtype=float).rename(columns=int)
        if len(table.columns) < 2 or not np.isfinite(table.to_numpy()).all():
            raise ValueError("it needs a number for every row, of at least two seeds")
        if reference.scores.keys() not in (set(), set(table)):
            raise ValueError(f"{path.name} has scores of other seeds")
    return reference, table


def records_read(settings: RunSettings, note: Note) -> dict[str, str]:
    """The records of a run to the SHA-256 that they had when its training, which has this note, read them."""
    return {path: note.inputs.get(path, "") for path in (settings.records, *settings.excluded_records)}


def first_losses(history: Path) -> pd.Series:
    """The first losses of a history; index iteration. Raises ValueError, which names the file, if it is none."""
    with prefix_errors(f"{history} is no history"):
        rows = pd.read_csv(history, usecols=["iteration", "loss"], dtype={"iteration": "int64", "loss": "float64"})
        rows = rows.head(NUM_LOSSES)
    return pd.Series(rows["loss"].to_numpy(), index=pd.Index(rows["iteration"], name="iteration"))


def score_of(summary: Path) -> float:
    """The mIoU in a summary, in percent."""
    score = read_summary(summary).metric("mIoU")
    assert score is not None
    return round(100 * score, 4)


def _unchanged(path: Path) -> Note:
    """The note of a file. Raises ValueError if it has none, or if the file was changed since."""
    if not (note := read_note(path)):
        raise ValueError(f"{path} has no note of what made it; remove it, and the same command makes it again")
    check_unchanged(path, note, hash_file(path))
    return note
