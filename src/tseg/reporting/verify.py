"""Whether the trainings of an installation are inside the envelope of the reference: each run over several seeds.

Three things are compared. The first losses of the same seed: rounding hardly moves them, and another seed, setting,
computation or image does. The course, by the logarithms of the mean losses of equal blocks. The score. For course and
score, of which the reference's seeds have the mean m and the standard deviation s, the envelope is

    m ± WIDTH · max(s, median of s over all runs) · sqrt(1 + 1/n),

as n seeds estimate s of one run badly.
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
from tseg.lineage import machine_name, read_note
from tseg.reporting.changes import differences
from tseg.reporting.reference import Reference, first_losses, read_reference, records_of, score_of
from tseg.settings.run_schema import RunSettings
from tseg.settings.validation import parse, read_yaml

NUM_START = 10
"""Rows of a history that must be the same seed's."""
START_TOLERANCE = 1e-3
"""Largest relative difference of these."""
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
    """A run and seed, compared with the reference."""

    run: str
    seed: int
    start: float | None
    """The largest relative difference of the first losses; None if the reference lacks the seed."""
    course: float
    """The largest distance of a block, in half-widths of the envelope."""
    score: str
    """The score and its envelope; empty without a score."""
    faults: list[str]
    """What is outside."""
    differences: list[str]
    """Settings and records that are not the reference's."""


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

    Returns whether all are inside. Raises ValueError if the folder has no reference, if no finished training has one,
    or for a damaged file.
    """
    references = {path.stem: read_reference(path) for path in sorted(reference.glob("*.json"))}
    if not references:
        raise ValueError(f"{reference} has no reference; git has it, `git checkout {reference}`")
    expected = envelopes({run: _measures(*each) for run, each in references.items()})
    console = Console(highlight=False, soft_wrap=True)
    histories = [path for path in sorted(results.glob("runs/*/seed*/history.csv")) if path.parts[-2][4:].isdigit()]
    known = [path for path in histories if path.parts[-3] in references]
    if not known:
        raise ValueError(f"{results}/runs has no finished training of a run of {reference}; `make table3` makes some")
    _print_conditions(console, known, references)
    verified = [_verify(path, *references[path.parts[-3]], expected[path.parts[-3]], results) for path in known]
    _print_verified(console, verified)
    left = len(references) - len({each.run for each in verified})
    others = len(histories) - len(known)
    console.print(
        f"{sum(not each.faults for each in verified)} of {len(verified)} trainings are inside the envelope"
        + (f"; {left} runs of the reference are not trained here" if left else "")
        + (f"; {others} trainings of other runs have no reference" if others else "")
    )
    return not any(each.faults for each in verified)


def _measures(reference: Reference, losses: pd.DataFrame) -> NDArray[np.float64]:
    return np.stack([measure(losses[seed].to_numpy(), reference.scores.get(seed)) for seed in losses])


def _verify(history: Path, reference: Reference, losses: pd.DataFrame, envelope: Envelope, results: Path) -> Verified:
    run, seed = history.parts[-3], int(history.parts[-2][4:])
    found, faults, start, course, shown = first_losses(history), [], None, np.nan, ""
    summary = results / f"scores/{run}/seed{seed}/{reference.summary}"
    score = score_of(summary) if reference.summary and summary.exists() else None
    if not found.index.equals(losses.index):
        faults.append("its history has other iterations than the reference's")
    else:
        distance = envelope.distance(measure(found.to_numpy(), score))
        course = float(distance[:-1].max())
        if not course <= 1:  # also if it is not a number
            faults.append("the course of its losses is outside")
        if seed in losses:
            start = float(np.abs(found.to_numpy() / losses[seed].to_numpy() - 1)[:NUM_START].max())
            if not start <= START_TOLERANCE:
                faults.append(f"its first losses are not those of seed {seed}")
    if score is not None:
        low, high = envelope.centre[-1] - envelope.width[-1], envelope.centre[-1] + envelope.width[-1]
        shown = f"{score:.2f} ({max(low, 0):.2f} to {high:.2f})"
        if not low <= score <= high:
            faults.append("its score is outside")
    return Verified(run, seed, start, course, shown, faults, _differences(history.parents[1], reference))


def _differences(folder: Path, reference: Reference) -> list[str]:
    """The settings of a run, and the records they name, that are not those of the reference."""
    config = folder / "config.yaml"
    settings: RunSettings = parse(RunSettings, read_yaml(config, "make it with `tseg configure`"), str(config))
    lines = list(differences(reference.settings.model_dump(mode="json"), settings.model_dump(mode="json")))
    for path in records_of(settings):
        if Path(path).exists() and reference.records.get(path, "") != hash_file(Path(path)):
            lines.append(f"{path} has other records")
    return lines


def _print_conditions(
    console: Console, histories: Sequence[Path], references: Mapping[str, tuple[Reference, pd.DataFrame]]
) -> None:
    lines: dict[str, None] = {}
    for path in histories:
        if note := read_note(path):
            reference, _ = references[path.parts[-3]]
            lines |= dict.fromkeys(reference.differences(note.versions, machine_name(note.machine)))
    if lines:
        console.print("[bold]Not as the reference was made[/]")
    for line in lines:
        console.print(f"  {escape(line)}")


def _print_verified(console: Console, verified: Sequence[Verified]) -> None:
    table = Table("run", title="Trainings, compared with the reference", title_justify="left", title_style="bold")
    for column in ("seed", "first losses", "course", "mIoU (envelope)"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    for each in verified:
        start = "" if each.start is None else f"{each.start:.1e}"
        course = "" if np.isnan(each.course) else f"{each.course:.0%}"
        verdict = "[red]outside[/]" if each.faults else "inside"
        table.add_row(escape(each.run), str(each.seed), start, course, each.score, verdict)
    console.print(table)
    reasons: list[str] = []
    for each in verified:
        reasons += [f"{each.run}, seed {each.seed}: {fault}" for fault in each.faults]
        reasons += [f"{each.run}: {difference}" for difference in each.differences]
        if each.faults and not each.differences:
            reasons.append(f"{each.run}: settings and records are the reference's; `tseg audit` names changed code")
    for reason in dict.fromkeys(reasons):
        console.print(f"  {escape(reason)}")
