"""The table of overlaps: how many images of each evaluation split are also in a training split."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tseg.datasets.leakage import read_records_images, shared_images
from tseg.provenance import RecordsProvenance
from tseg.records import read_provenance
from tseg.reporting.tables.formats import RowGroup, Sheet, check_distinct, sheet_texts, write_texts
from tseg.reporting.tables.notes import origins, split_name

MATCHED = (
    "Images of different data sets are matched by their COCO id, images of one data set also by their own id. A dash:"
    " one of the two data sets has no image with a COCO id."
)
DEFAULTS = (
    "By default, box pretraining leaves out the images of every evaluation split (exclude_evaluation), and an"
    " evaluation leaves out the images that its run has seen in another data set (exclude_seen). Within one data set,"
    " nothing is left out."
)


class SplitImages(NamedTuple):
    """The images of one file of records, as listed by `tseg.datasets.leakage.list_images`."""

    provenance: RecordsProvenance
    images: pd.DataFrame

    @property
    def name(self) -> str:
        """Data set and split."""
        return split_name(self.provenance)

    @property
    def num_of_coco(self) -> int:
        """Images with a known COCO id."""
        return len(self.images.dropna(subset=["coco_id"]))


def report_overlaps(train: Sequence[Path], evaluation: Sequence[Path], output: Path | None = None) -> Sheet:
    """Return the printed table of overlaps between files that `tseg prepare` wrote.

    With `output`, a CSV file, also write numbers and percentages there, with .md and .html beside it. Raises
    ValueError if a file is of another kind or a split occurs twice.
    """
    rows, columns = read_splits(train), read_splits(evaluation)
    counts = count_overlaps(rows, columns)
    percent = 100 * counts.astype(float) / [len(split.images) for split in columns]
    sheet = _sheet(counts, percent, list({split.name: split for split in (*rows, *columns)}.values()))
    if output:
        table = counts.join(percent.add_suffix(" %"))
        write_texts(sheet_texts(sheet, output, table.to_csv(index_label=sheet.corner, float_format="%.2f")))
    return sheet


def read_splits(paths: Sequence[Path]) -> list[SplitImages]:
    """Read the images of files that `tseg prepare` wrote.

    Raises ValueError if a file is of another kind or a split occurs twice.
    """
    splits = [SplitImages(read_provenance(path, RecordsProvenance), read_records_images(path)) for path in paths]
    check_distinct([split.name for split in splits])
    return splits


def count_overlaps(train: Sequence[SplitImages], evaluation: Sequence[SplitImages]) -> pd.DataFrame:
    """Count the images of each evaluation split (column) that are also in each training split (row), as Int64.

    A count is null if it cannot be known: the splits are of two data sets, and one has no image with a COCO id.
    """
    counts = {
        column.name: [
            len(shared_images(row.images, column.images)) if _comparable(row, column) else None for row in train
        ]
        for column in evaluation
    }
    return pd.DataFrame(counts, index=[row.name for row in train], dtype="Int64")


def _comparable(one: SplitImages, other: SplitImages) -> bool:
    same_dataset = set(one.images["dataset"]) == set(other.images["dataset"])
    return same_dataset or (one.num_of_coco > 0 and other.num_of_coco > 0)


def _sheet(counts: pd.DataFrame, percent: pd.DataFrame, splits: Sequence[SplitImages]) -> Sheet:
    texts = counts.astype(object).map("{:,}".format) + percent.map(" ({:.2f}%)".format)
    matched = "; ".join(f"{split.name} {split.num_of_coco:,} of {len(split.images):,}" for split in splits)
    return Sheet(
        caption="Images of evaluation splits that are training images too",
        data=origins([split.provenance for split in splits]),
        notes=["Number, and percentage of the column's images.", f"{MATCHED} Images with one: {matched}.", DEFAULTS],
        corner="Trained on",
        best="none",
        blocks=[RowGroup("Evaluated on", counts.astype(float), texts.mask(counts.isna(), "-"))],
    )
