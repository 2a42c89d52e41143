"""The table of leaks: how many pictures of each evaluation split a training split has too."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tseg.data.leakage import read_records_pictures, shared_pictures
from tseg.records import read_metadata
from tseg.reporting.formats import Block, Sheet, check_distinct, html_page, markdown, write_texts
from tseg.reporting.notes import origins, split_name

KNOWN = (
    "Between data sets a picture is known by its id in COCO alone, within one by its own id too. A dash: one of the two"
    " data sets has no picture with an id in COCO."
)
DEFAULTS = (
    "Left out by default: of box pretraining, the pictures of every evaluation split (exclude_evaluation); of an"
    " evaluation, those that its run has seen as part of another data set (exclude_seen); within one data set, nothing."
)


class Split(NamedTuple):
    """The pictures of one file of records, as `tseg.data.leakage.list_pictures` lists them."""

    metadata: dict[str, Any]
    pictures: pd.DataFrame

    @property
    def name(self) -> str:
        """Data set and split."""
        return split_name(self.metadata)


def read_splits(paths: Sequence[Path]) -> list[Split]:
    """The pictures of files that `tseg prepare` wrote.

    Raises ValueError for a file of another kind, and where two are of one split.
    """
    splits = [Split(read_metadata(path), read_records_pictures(path)) for path in paths]
    check_distinct([split.name for split in splits])
    return splits


def count_overlaps(train: Sequence[Split], evaluation: Sequence[Split]) -> pd.DataFrame:
    """How many pictures of each evaluation split (column) are pictures of each training split (row), Int64.

    Null where that cannot be known: between two data sets of which one has no picture with an id in COCO.
    """
    counts = {
        column.name: [
            len(shared_pictures(row.pictures, column.pictures)) if _comparable(row, column) else None for row in train
        ]
        for column in evaluation
    }
    return pd.DataFrame(counts, index=[row.name for row in train], dtype="Int64")


def overlaps_sheet(train: Sequence[Split], evaluation: Sequence[Split]) -> Sheet:
    """The same as it is printed, with the percentage of the evaluation split's pictures."""
    counts = count_overlaps(train, evaluation)
    texts = counts.astype(object).map("{:,}".format) + _percent(counts, evaluation).map(" ({:.2f}%)".format)
    splits = {split.name: split for split in (*train, *evaluation)}.values()
    return Sheet(
        caption="Pictures of evaluation splits that are training pictures too",
        data=origins([split.metadata for split in splits]),
        notes=[
            "Number, and percentage of the column's pictures.",
            f"{KNOWN} Pictures with one: {'; '.join(map(_how_known, splits))}.",
            DEFAULTS,
        ],
        corner="Trained on",
        best="none",
        blocks=[Block("Evaluated on", counts.astype(float), texts.mask(counts.isna(), "-"))],
    )


def write_overlaps(train: Sequence[Split], evaluation: Sequence[Split], output: Path) -> Sheet:
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


def _comparable(one: Split, other: Split) -> bool:
    same_dataset = set(one.pictures["dataset"]) == set(other.pictures["dataset"])
    return same_dataset or (_num_known(one) > 0 and _num_known(other) > 0)


def _num_known(split: Split) -> int:
    return len(split.pictures.dropna(subset=["coco_id"]))


def _how_known(split: Split) -> str:
    return f"{split.name} {_num_known(split):,} of {len(split.pictures):,}"


def _percent(counts: pd.DataFrame, evaluation: Sequence[Split]) -> pd.DataFrame:
    return 100 * counts.astype(float) / [len(split.pictures) for split in evaluation]
