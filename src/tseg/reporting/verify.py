"""Whether the trainings of an installation are inside the envelope of the reference: each run over several seeds.

Three things are compared. The first losses of the same seed: rounding hardly moves them; a wrong computation, setting,
seed or image does. The course: the logarithms of the mean losses of equal blocks. The score. Course and score of
another seed, or of a training that drifted from the reference's by rounding, must be in the envelope

    m ± WIDTH · max(s, median of s over all runs) · sqrt(1 + 1/n),

with mean m and standard deviation s of the reference's n seeds. A run whose n seeds agree by chance has the median.
A score whose losses did not drift must be that of its seed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tseg.files import hash_file
from tseg.lineage import Note, machine_name, read_note
from tseg.reporting.changes import changed_keys, changes_since
from tseg.reporting.listing import print_lines
from tseg.reporting.reference import RunReference, first_losses, read_reference, records_read, score_of
from tseg.settings.run_schema import RunSettings
from tseg.settings.validation import parse, read_yaml

NUM_START = 4
"""Rows of a history that must be those of the same seed.

On another processor, a wide ResNet drifts by 2e-4 in four rows, and by 1e-2 in ten; another seed is 2e-3 away in four.
"""
LOSS_TOLERANCE = 1e-3
"""Largest relative difference of two losses that count as the same."""
SCORE_TOLERANCE = 0.5
"""Largest difference of the scores of two trainings with the same losses, in points."""
NUM_BLOCKS = 5
WIDTH = 4.0


class Envelope(NamedTuple):
    """Where the measures of a further seed are expected: those of `measure`."""

    centre: NDArray[np.float64]
    width: NDArray[np.float64]
    """Half of it."""

    def distance(self, measures: NDArray[np.float64]) -> NDArray[np.float64]:
        """The distances from the centre, in half-widths: inside up to 1."""
        return np.abs(measures - self.centre) / self.width


class Verified(NamedTuple):
    """A training, compared with the reference."""

    run: str
    seed: int
    start: float | None
    """The largest relative difference of the first losses to those of its seed; None if the reference lacks it."""
    course: float
    """The largest distance of a block from the mean, in half-widths."""
    score: str
    """The score and its envelope; empty without a score."""
    faults: list[str]
    """What is outside."""
    others: list[str]
    """Settings and records that are not the reference's, and what is unknown."""
    conditions: list[str]
    """Libraries and processor that are not the reference's."""


def measure(losses: NDArray[np.float64], score: float | None) -> NDArray[np.float64]:
    """The logarithms of the mean `losses` (rows,) of equal blocks, and the score or NaN: (NUM_BLOCKS + 1,)."""
    blocks = np.array_split(losses, NUM_BLOCKS)
    return np.array([*(np.log(block.mean()) for block in blocks), np.nan if score is None else score])


def envelopes(measures: Mapping[str, NDArray[np.float64]]) -> dict[str, Envelope]:
    """The envelope of each run from the measures of its seeds, (seeds, NUM_BLOCKS + 1)."""
    spread = {run: seeds.std(axis=0, ddof=1) for run, seeds in measures.items()}
    typical = np.nanmedian(list(spread.values()), axis=0)
    return {
        run: Envelope(seeds.mean(axis=0), WIDTH * np.fmax(spread[run], typical) * np.sqrt(1 + 1 / len(seeds)))
        for run, seeds in measures.items()
    }


def verify_runs(results: Path, reference: Path) -> bool:
    """Compare every finished training in `results` with the folder `reference`, and print verdicts and reasons.

    Returns whether all are inside. Raises ValueError if there is no reference, no finished training that has one, or
    for a damaged file.
    """
    names = sorted({path.stem for kind in ("json", "csv") for path in reference.glob(f"*.{kind}")})
    if not names:
        raise ValueError(f"{reference} has no reference; start at the root of a clone of the project")
    references = {run: read_reference(reference / f"{run}.json") for run in names}
    expected = envelopes(
        {
            run: np.stack([measure(losses[seed].to_numpy(), each.scores.get(seed)) for seed in losses])
            for run, (each, losses) in references.items()
        }
    )
    found = sorted(results.glob("runs/*/seed*/history.csv"))
    known = [path for path in found if path.parts[-3] in references and path.parts[-2][4:].isdecimal()]
    if not known:
        raise ValueError(f"{results}/runs has no finished training of a run of {reference}; `make table3` makes some")
    console = Console(highlight=False, soft_wrap=True)
    verified = [_verify(path, *references[path.parts[-3]], expected[path.parts[-3]], results) for path in known]
    conditions = [line for each in verified for line in each.conditions]
    _print_list(console, "Not as the reference was made", [*dict.fromkeys(conditions)])
    _print_verified(console, verified)
    if any(each.faults for each in verified):
        _print_changes(console, reference)
    counts = {
        "outside the envelope": sum(bool(each.faults) for each in verified),
        "without a score here": sum(not each.score for each in verified),
        "of other runs, without a reference": len(found) - len(known),
    }
    lines = [f"{count} {what}" for what, count in counts.items() if count]
    missing = len(names) - len({each.run for each in verified})
    lines += [f"{missing} of {len(names)} runs not trained here"] if missing else []
    inside = sum(not each.faults for each in verified)
    console.print("; ".join([f"Trainings: {inside} of {len(verified)} inside the envelope", *lines]))
    return inside == len(verified)


def _verify(
    history: Path, reference: RunReference, losses: pd.DataFrame, envelope: Envelope, results: Path
) -> Verified:
    run, seed = history.parts[-3], int(history.parts[-2][4:])
    summary = results / f"scores/{run}/seed{seed}/{reference.summary}"
    score = score_of(summary) if reference.summary and summary.exists() else None
    found, faults, start, course = first_losses(history), list[str](), None, np.nan
    is_first = reference.settings.pretraining is None and reference.settings.teacher is None
    if not found.index.equals(losses.index):
        faults.append("its history has other iterations than the reference's")
    else:
        course = float(envelope.distance(measure(found.to_numpy(), score))[:-1].max())
        if not course <= 1:  # also if it is not a number
            faults.append("the course of its losses is outside")
        if seed in losses:
            drift = np.abs(found.to_numpy() / losses[seed].to_numpy() - 1)
            start = float(drift[:NUM_START].max())
            if is_first and not start <= LOSS_TOLERANCE:  # otherwise the drift of an earlier training is in it
                faults.append(f"its first losses are not those of seed {seed}")
            if score is not None and drift.max() <= LOSS_TOLERANCE:
                wrong = abs(score - reference.scores[seed]) > SCORE_TOLERANCE
                faults += [f"its score is not that of seed {seed}, but its losses are"] if wrong else []
    shown = ""
    if score is not None:
        low, high = envelope.centre[-1] - envelope.width[-1], envelope.centre[-1] + envelope.width[-1]
        shown = f"{score:.2f} ({max(low, 0):.2f} to {high:.2f})"
        if not low <= score <= high:
            faults.append("its score is outside")
    note = read_note(history)
    conditions = reference.others(note.versions, machine_name(note.machine)) if note else []
    return Verified(run, seed, start, course, shown, faults, _others(history, note, reference), conditions)


def _others(history: Path, note: Note | None, reference: RunReference) -> list[str]:
    """The settings and records of a training that are not the reference's, and what is unknown of it."""
    config = history.parents[1] / "config.yaml"
    settings: RunSettings = parse(RunSettings, read_yaml(config, "make it with `tseg configure`"), str(config))
    lines = list(changed_keys(reference.settings.model_dump(mode="json"), settings.model_dump(mode="json")))
    if note is None:
        return [*lines, "no note says what trained it"]
    if note.sha256 != hash_file(history):
        lines.append("history.csv was changed after the training")
    if hash_file(config) not in note.inputs.values():
        lines.append("config.yaml was changed after the training")
    read = records_read(settings, note).items()
    return lines + [f"{path} had other bytes" for path, sha in read if reference.records.get(path, sha) != sha]


def _print_verified(console: Console, verified: Sequence[Verified]) -> None:
    table = Table(title="Trainings, compared with the reference", title_justify="left", title_style="bold")
    table.add_column("run", overflow="fold")
    for column in ("seed", "start", "course", "mIoU (envelope)"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    reasons: list[str] = []
    for each in verified:
        start = "" if each.start is None else f"{each.start:.0e}"
        course = "" if np.isnan(each.course) else f"{each.course:.0%}"
        verdict = "[red]outside[/]" if each.faults else "inside"
        table.add_row(escape(each.run), str(each.seed), start, course, each.score, verdict)
        reasons += [f"{each.run}, seed {each.seed}: {reason}" for reason in (*each.faults, *each.others)]
    console.print(table)
    _print_list(console, "Reasons", reasons)


def _print_changes(console: Console, reference: Path) -> None:
    """Print what git says has changed since the reference was committed."""
    try:
        settings, files = changes_since(str(reference))
    except ValueError as error:
        settings, files = [], [f"unknown: {error}"]
    _print_list(console, "Changed since the reference was committed", settings + files)


def _print_list(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        console.print(f"[bold]{title}[/]")
    print_lines(console, lines)
