"""The files by which `tseg verify` judges a run, and of which its reference is made."""

from pathlib import Path

from tseg.settings.plan import Plan
from tseg.settings.schema import StrictModel

SEEDS = range(5)
"""Of the reference, whatever the seeds of the configuration are."""


class VerifiedFiles(StrictModel):
    """The files of a run and seed."""

    history: Path
    summary: Path | None
    """The first that a table shows; None for a run without one."""


def verified_files(plan: Plan, run: str) -> dict[int, VerifiedFiles]:
    """Seed to files of a run."""
    cells = [cell for cells in plan.tables.values() for cell in cells if cell.run.run == run]
    return {
        seed: VerifiedFiles(
            history=Path(plan.seed_dir(run, seed), "history.csv"),
            summary=Path(plan.cell_file(cells[0], "scores", seed)) if cells else None,
        )
        for seed in SEEDS
    }
