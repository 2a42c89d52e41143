"""Sub-commands that look at records: what they hold, and which images two splits share."""

from pathlib import Path
from typing import Annotated

import typer

Table = Annotated[
    Path | None, typer.Option("--output", help="CSV file; the others go beside it. Absent: the table is only printed.")
]


def describe(
    records: Annotated[
        list[Path], typer.Argument(help="Records that `tseg prepare` wrote, or folders of them: data/records/refcoco.")
    ],
    output: Table = None,
) -> None:
    """Print what each split of the data sets holds, beside what its authors publish.

    Images, expressions and words, sizes of masks, and how far the masks of one image overlap; = and ≠ say whether
    the counts are the published ones. --output writes the table as .csv, .md and .html, and as .png the distributions.

    tseg describe data/records/refcoco data/records/phrasecut --output datasets.csv
    """
    from tseg.reporting.figures.datasets import draw_datasets
    from tseg.reporting.tables.datasets import datasets_sheet, write_datasets
    from tseg.reporting.tables.description import describe_records
    from tseg.reporting.tables.formats import print_sheet

    descriptions = [describe_records(path) for path in _files(records)]
    sheet = datasets_sheet(descriptions) if output is None else write_datasets(descriptions, output)
    if output is not None:
        draw_datasets(descriptions, output.with_suffix(".png"))
    print_sheet(sheet)


def overlap(
    train: Annotated[list[Path], typer.Option("--train", help="Records of a training split; repeat it.")],
    evaluation: Annotated[list[Path], typer.Option("--evaluation", help="Records of an evaluation split; repeat it.")],
    output: Table = None,
) -> None:
    """Print how many images of each evaluation split a training split has too.

    RefCOCO, RefCOCO+ and RefCOCOg are parts of COCO, and so is about half of PhraseCut: a model may have been trained
    on what it is evaluated on. Images are known by their ids in COCO. --output writes the table as .csv, .md, .html.
    """
    from tseg.reporting.tables.formats import print_sheet
    from tseg.reporting.tables.overlaps import overlaps_sheet, read_splits, write_overlaps

    splits = read_splits(train), read_splits(evaluation)
    print_sheet(overlaps_sheet(*splits) if output is None else write_overlaps(*splits, output))


def _files(paths: list[Path]) -> list[Path]:
    """The files themselves, and those of the folders. Raises ValueError for a folder that has none."""
    files = []
    for path in paths:
        found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"{path} holds no records; make them with `tseg prepare`")
        files += found
    return files
