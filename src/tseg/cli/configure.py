"""`tseg configure`: write the settings of a run."""

from typing import Annotated

import typer

from tseg.cli.options import Output, parse_text


def configure(
    settings: Annotated[str, typer.Option(help="The run's settings as YAML or JSON text.")], output: Output
) -> None:
    """Check a run's settings, add defaults and write its config.yaml."""
    from tseg.settings.run_schema import RunSettings, write_run

    write_run(parse_text(RunSettings, settings, "--settings"), output)
