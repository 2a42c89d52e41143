"""Sub-commands before training: the store, the runs' settings, files, records."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Output, SettingsText, Threads, parse_text
from tseg.files import write_json


def track(
    uri: Annotated[str, typer.Option(help="MLflow store: sqlite:///path or a server's address; empty: none.")],
    experiments: Annotated[list[str], typer.Argument(help="One experiment per data set.")],
    output: Output,
) -> None:
    """Create the MLflow store and its experiments once, before any run needs them, and note its address."""
    import warnings

    from tseg.tracking import create_store

    if uri:
        try:
            create_store(uri, experiments, output.parent / "mlflow_artifacts")
        except Exception as error:
            warnings.warn(f"MLflow store {uri}: {error}; runs will try again", stacklevel=1)
    write_json(output, {"uri": uri or None})


def configure(settings: SettingsText, output: Output) -> None:
    """Check a run's settings and write them, complete, to its config.yaml."""
    import yaml

    from tseg.files import atomic_write
    from tseg.settings.schema import RunSettings

    checked = parse_text(RunSettings, settings, "--settings")
    with atomic_write(output) as partial:
        partial.write_text(yaml.safe_dump(checked.model_dump(mode="json"), sort_keys=False))


def prepare(
    dataset: Annotated[str, typer.Argument(help="Name of the data set.")],
    split: Annotated[str, typer.Argument(help="Split, as its format calls it; val+miniv joins two.")],
    settings: SettingsText,
    output: Output,
    threads: Threads = 1,
) -> None:
    """Turn a split of a data set in an official format into records.

    What is left out is counted, and listed with the reason in the .skipped.csv beside --output. --threads is the
    number of processes that share the work; it changes nothing in the files.
    """
    from tseg.datasets.prepare import prepare
    from tseg.settings.schema import DatasetSettings

    wanted = parse_text(DatasetSettings, settings, f"data set {dataset}")
    published = wanted.published.get(split)
    prepare(
        dataset,
        split,
        format=wanted.format,
        annotations=Path(wanted.annotations),
        images=[Path(dir) for dir in wanted.images],
        split_by=wanted.split_by,
        masks=[Path(dir) for dir in wanted.masks],
        classes=wanted.classes,
        sources=wanted.sources,
        published=published.model_dump() if published else None,
        output=output,
        num_workers=threads,
    )
