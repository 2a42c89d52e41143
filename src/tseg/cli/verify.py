"""`tseg verify`: whether an installation trains as it should."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results"),
    reference: Annotated[Path, typer.Option(help="Folder of the reference.")] = Path("results/reference"),
) -> None:
    """Say whether trainings at the default scale are as those of the reference.

    The reference has every run over several seeds. Of each training that is here,
    three things are compared: its first losses with those of the same seed,
    the course of its losses, and its score, with the spread over the seeds.
    Settings, records, libraries and processors that differ are named. The exit
    code is 1 if a training is outside.

    snakemake --cores all -- results/scores/refcoco-mpa/seed0/refcoco-val-plain.json && tseg verify
    """
    from tseg.reporting.verify import verify_runs

    if not verify_runs(results, reference):
        raise typer.Exit(1)
