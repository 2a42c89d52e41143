"""The reference of a run: its settings, first losses and score over several seeds. Git versions it."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from tseg.evaluation.score import read_summary
from tseg.files import atomic_write, hash_file, require_file
from tseg.lineage import Note, read_note
from tseg.reporting.conditions import Conditions, conditions_of
from tseg.settings.run_schema import RunSettings
from tseg.settings.schema import StrictModel
from tseg.settings.validation import prefix_errors

NUM_LOSSES = 200
"""First rows of a history that are compared."""
DIGITS = 6
"""Significant digits of a loss."""


class VerifiedFiles(StrictModel):
    """The files of a run and seed that are compared."""

    history: Path
    summary: Path | None = None


class Reference(Conditions):
    """A run over several seeds, and what made it. Its losses are in a CSV file beside it, a column per seed."""

    settings: RunSettings
    records: dict[str, str]
    """Path of the records that the run was trained on, and of those that it excluded, to SHA-256."""
    summary: str | None
    """Name of the summary whose mIoU is the score; None if no table shows the run."""
    scores: dict[int, float]
    """Seed to mIoU in percent."""


def write_reference(settings: RunSettings, seeds: Mapping[int, VerifiedFiles], output: Path) -> Reference:
    """Write the reference of a run as JSON, and its first losses as CSV beside it.

    Raises ValueError if a history or a summary has no note of what made it, or was changed since.
    """
    notes: list[Note] = []
    for path in (path for files in seeds.values() for path in (files.history, files.summary) if path):
        note = read_note(path)
        if note is None or note.sha256 != hash_file(path):
            what = "has no note of what made it" if note is None else "was changed after it was made"
            raise ValueError(f"{path} {what}; remove it, and the same command makes it again")
        notes.append(note)
    summaries = {seed: files.summary for seed, files in seeds.items() if files.summary}
    reference = Reference(
        **conditions_of(notes).model_dump(),
        settings=settings,
        records={path: hash_file(Path(path)) for path in records_of(settings)},
        summary=next((summary.name for summary in summaries.values()), None),
        scores={seed: score_of(summary) for seed, summary in summaries.items()},
    )
    with atomic_write(output.with_suffix(".csv")) as partial:
        losses = pd.DataFrame({seed: first_losses(files.history) for seed, files in seeds.items()})
        losses.to_csv(partial, float_format=f"%.{DIGITS}g")
    with atomic_write(output) as partial:
        partial.write_text(reference.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return reference


def read_reference(path: Path) -> tuple[Reference, pd.DataFrame]:
    """A reference, and its losses: index iteration, a column per seed (int). Raises ValueError if one is damaged."""
    try:
        reference = Reference.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is no reference of this version; make it again with `make reference`") from error
    losses = pd.read_csv(require_file(path.with_suffix(".csv"), "make it with `make reference`"), index_col="iteration")
    return reference, losses.rename(columns=int)


def records_of(settings: RunSettings) -> list[str]:
    """The files of records that decide on what a run is trained."""
    return [settings.records, *settings.excluded_records]


def first_losses(history: Path) -> pd.Series:
    """The first losses of a history; index iteration. Raises ValueError, which names the file, if it is none."""
    with prefix_errors(f"{history} is no history"):
        rows = pd.read_csv(history, usecols=["iteration", "loss"]).head(NUM_LOSSES)
    return pd.Series(rows["loss"].to_numpy(), index=pd.Index(rows["iteration"], name="iteration"))


def score_of(summary: Path) -> float:
    """The mIoU in a summary, in percent."""
    return round(100 * read_summary(summary).metrics["mIoU"], 4)
