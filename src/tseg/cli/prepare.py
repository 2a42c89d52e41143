"""`tseg prepare`: turn a split of a data set into records."""

from typing import Annotated

import typer

from tseg.cli.options import Output, parse_text


def prepare(
    dataset: Annotated[str, typer.Argument(help="Name of the data set.")],
    split: Annotated[str, typer.Argument(help="Official name of the split; val+miniv joins two.")],
    settings: Annotated[
        str, typer.Option(help="The data set's entry under `datasets` in the configuration, as YAML or JSON text.")
    ],
    output: Output,
    threads: Annotated[int, typer.Option(min=1, help="Number of processes; it does not change the output.")] = 1,
) -> None:
    """Turn a split of a data set into records, from its official files.

    Unusable records are skipped; the .skipped.csv beside --output lists them
    with the reason.
    """
    from tseg.datasets.prepare import prepare_split
    from tseg.settings.schema import DatasetSettings

    checked = parse_text(DatasetSettings, settings, f"data set {dataset}")
    prepare_split(dataset, split, checked, output, num_workers=threads)
