"""`tseg configure`: write the settings of a run."""

from tseg.cli.options import Output, SettingsText, parse_text


def configure(settings: SettingsText, output: Output) -> None:
    """Check the settings of a run and write them, complete, to its config.yaml."""
    import yaml

    from tseg.files import atomic_write
    from tseg.settings.schema import RunSettings

    run = parse_text(RunSettings, settings, "--settings")
    with atomic_write(output) as partial:
        partial.write_text(yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False))
