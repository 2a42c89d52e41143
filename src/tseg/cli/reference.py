"""`tseg reference`: what `tseg verify` compares with."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Output, parse_text, read_settings


def reference(
    config: Annotated[Path, typer.Option("--config", help="The run's config.yaml, from `tseg configure`.")],
    seeds: Annotated[
        str, typer.Option(help="Each seed's history and summary (or null) as JSON, or - for standard input.")
    ],
    output: Output,
) -> None:
    """Write a run's settings, first losses and scores over several seeds.

    The losses go to a CSV file beside the output, a column per seed.
    """
    from tseg.reporting.reference import write_reference
    from tseg.settings.run_schema import RunSettings
    from tseg.settings.verified import VerifiedFiles

    files = parse_text(dict[int, VerifiedFiles], seeds, "--seeds")
    write_reference(read_settings(RunSettings, config), files, output)
