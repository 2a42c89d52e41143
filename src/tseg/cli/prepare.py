"""`tseg prepare`: turn a split of a data set into records."""

from typing import Annotated

import typer

from tseg.cli.options import Output, SettingsText, Threads, parse_text


def prepare(
    dataset: Annotated[str, typer.Argument(help="Name of the data set.")],
    split: Annotated[str, typer.Argument(help="Split, named as in its format; val+miniv joins two.")],
    settings: SettingsText,
    output: Output,
    threads: Threads = 1,
) -> None:
    """Turn a split of a data set in an official format into records.

    Records that cannot be used are counted, and listed with the reason in the .skipped.csv beside --output. --threads
    is the number of processes that share the work; it does not change the files.
    """
    from tseg.datasets.prepare import prepare_split
    from tseg.settings.schema import DatasetSettings

    checked = parse_text(DatasetSettings, settings, f"data set {dataset}")
    prepare_split(dataset, split, checked, output, num_workers=threads)
