"""`tseg configure`: write the settings of a run."""

from typing import Annotated

import typer

from tseg.cli.options import Output, parse_text


def configure(
    settings: Annotated[str, typer.Option(help="The run's settings as YAML or JSON text.")], output: Output
) -> None:
    """Check a run's settings, add defaults and write its config.yaml."""
    import yaml

    from tseg.files import atomic_write
    from tseg.settings.schema import RunSettings

    run = parse_text(RunSettings, settings, "--settings")
    with atomic_write(output) as partial:
        partial.write_text(yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False))
