"""The table of leaks: how many images of each evaluation split a training split has too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tseg.datasets.leakage import read_records_images, shared_images
from tseg.records import read_metadata
from tseg.reporting.tables.formats import RowGroup, Sheet, check_distinct, html_page, markdown, write_texts
from tseg.reporting.tables.notes import origins, split_name

KNOWN = (
    "Between data sets an image is known by its id in COCO alone, within one by its own id too. A dash: one of the two"
    " data sets has no image with an id in COCO."
)
DEFAULTS = (
    "Left out by default: of box pretraining, the images of every evaluation split (exclude_evaluation); of an"
    " evaluation, those that its run has seen as part of another data set (exclude_seen); within one data set, nothing."
)


class SplitImages(NamedTuple):
    """The images of one file of records, as `tseg.datasets.leakage.list_images` lists them."""

    metadata: dict[str, Any]
    images: pd.DataFrame

    @property
    def name(self) -> str:
        """Data set and split."""
        return split_name(self.metadata)


def read_splits(paths: Sequence[Path]) -> list[SplitImages]:
    """The images of files that `tseg prepare` wrote.

    Raises ValueError for a file of another kind, and where two are of one split.
    """
    splits = [SplitImages(read_metadata(path), read_records_images(path)) for path in paths]
    check_distinct([split.name for split in splits])
    return splits


def count_overlaps(train: Sequence[SplitImages], evaluation: Sequence[SplitImages]) -> pd.DataFrame:
    """How many images of each evaluation split (column) are images of each training split (row), Int64.

    Null where that cannot be known: between two data sets of which one has no image with an id in COCO.
    """
    counts = {
        column.name: [
            len(shared_images(row.images, column.images)) if _comparable(row, column) else None for row in train
        ]
        for column in evaluation
    }
    return pd.DataFrame(counts, index=[row.name for row in train], dtype="Int64")


def overlaps_sheet(train: Sequence[SplitImages], evaluation: Sequence[SplitImages]) -> Sheet:
    """The same as it is printed, with the percentage of the evaluation split's images."""
    counts = count_overlaps(train, evaluation)
    texts = counts.astype(object).map("{:,}".format) + _percent(counts, evaluation).map(" ({:.2f}%)".format)
    splits = {split.name: split for split in (*train, *evaluation)}.values()
    return Sheet(
        caption="Images of evaluation splits that are training images too",
        data=origins([split.metadata for split in splits]),
        notes=[
            "Number, and percentage of the column's images.",
            f"{KNOWN} Images with one: {'; '.join(map(_how_known, splits))}.",
            DEFAULTS,
        ],
        corner="Trained on",
        best="none",
        blocks=[RowGroup("Evaluated on", counts.astype(float), texts.mask(counts.isna(), "-"))],
    )


def write_overlaps(train: Sequence[SplitImages], evaluation: Sequence[SplitImages], output: Path) -> Sheet:
    """Write `count_overlaps` and percentages to the CSV file `output`, and as .md and .html; returns the sheet."""
    sheet = overlaps_sheet(train, evaluation)
    counts = sheet.blocks[0].values.astype("Int64")
    table = counts.join(_percent(counts, evaluation).add_suffix(" %"))
    write_texts(
        {
            output: f"# {' '.join(sheet.data)}\n" + table.to_csv(index_label=sheet.corner, float_format="%.2f"),
            output.with_suffix(".md"): markdown(sheet),
            output.with_suffix(".html"): html_page(sheet),
        }
    )
    return sheet


def _comparable(one: SplitImages, other: SplitImages) -> bool:
    same_dataset = set(one.images["dataset"]) == set(other.images["dataset"])
    return same_dataset or (_num_known(one) > 0 and _num_known(other) > 0)


def _num_known(split: SplitImages) -> int:
    return len(split.images.dropna(subset=["coco_id"]))


def _how_known(split: SplitImages) -> str:
    return f"{split.name} {_num_known(split):,} of {len(split.images):,}"


def _percent(counts: pd.DataFrame, evaluation: Sequence[SplitImages]) -> pd.DataFrame:
    return 100 * counts.astype(float) / [len(split.images) for split in evaluation]
