"""The table of data sets: the statistics of each split next to the published counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tseg.reporting.tables.description import SplitDescription
from tseg.reporting.tables.formats import RowGroup, Sheet, check_distinct, sheet_texts, write_texts
from tseg.reporting.tables.notes import is_embedded, origins

SMALL, LARGE = 0.02, 0.2
"""Fractions of the image. As in PhraseCut's evaluator, a mask below the first is small, one above the second large."""
# Title of each printed block: label of each of its columns, and the column's name in the CSV.
BLOCKS = {
    "Images and expressions (=, ≠: whether ours are as many as published)": {
        "Images": "num_images",
        "Published images": "published_images",
        "Expressions": "num_expressions",
        "Published expressions": "published_expressions",
        "References": "num_references",
        "Left out": "num_left_out",
        "Images of COCO": "num_of_coco",
    },
    "Words": {
        "Distinct expressions": "num_distinct_expressions",
        "Distinct words": "num_distinct_words",
        "Words per expression": "words_per_expression",
        "Expressions per image": "expressions_per_image",
    },
    "Sizes of masks, in percent of the image, and how many are small or large, in percent of the masks": {
        "Masks": "num_masks",
        "Mean size": "mask_percent",
        "Lower quartile": "mask_percent_25",
        "Median": "mask_percent_50",
        "Upper quartile": "mask_percent_75",
        f"Below {SMALL:.0%}": "small_percent",
        f"Above {LARGE:.0%}": "large_percent",
    },
    "Overlap between expressions": {
        "Overlapping masks, in percent": "overlapping_percent",
        "Pairs of regions that overlap": "num_pairs",
        "Their mean IoU, in percent": "pair_iou_percent",
    },
}
PUBLISHED = {"published_images": "num_images", "published_expressions": "num_expressions"}
DEFINED = [
    "References: regions that expressions refer to; several sentences of the RefCOCOs share one.",
    "Left out: records that could not be used; the .skipped.csv beside the records names each and says why.",
    "Images of COCO: those whose id in COCO is known.",
    "Words: expressions in lower case, split at spaces.",
    "Overlapping masks share a pixel with the mask of another region of their image.",
    "A dash: not known, or no mask or pair to measure.",
]


def datasets_table(descriptions: Sequence[SplitDescription]) -> pd.DataFrame:
    """Return a row per split: dataset, split and the columns of `BLOCKS`, null if there is nothing to count."""
    columns = [column for of_block in BLOCKS.values() for column in of_block.values()]
    table = pd.DataFrame(
        [_numbers(description) for description in descriptions], columns=["dataset", "split", *columns]
    )
    counts = [column for column in columns if column.startswith(("num_", "published_"))]
    return table.astype(dict.fromkeys(counts, "Int64"))


def datasets_sheet(descriptions: Sequence[SplitDescription]) -> Sheet:
    """Return the printed table. Raises ValueError if a split occurs twice."""
    names = [description.name for description in descriptions]
    check_distinct(names)
    table = datasets_table(descriptions).set_axis(names)
    return Sheet(
        caption="Data sets",
        data=origins([description.provenance for description in descriptions]),
        notes=[*_remarks(table, descriptions), *DEFINED],
        corner="Split",
        best="none",
        blocks=[_block(title, columns, table) for title, columns in BLOCKS.items()],
    )


def write_datasets(descriptions: Sequence[SplitDescription], output: Path) -> Sheet:
    """Write the table to the CSV file `output`, with .md and .html beside it, and return the printed table."""
    sheet, table = datasets_sheet(descriptions), datasets_table(descriptions)
    write_texts(sheet_texts(sheet, output, table.to_csv(index=False, float_format="%.6g")))
    return sheet


def _numbers(description: SplitDescription) -> dict[str, Any]:
    split, sizes = description.provenance, description.sizes
    num_expressions, published = len(description.lengths), split.published or {}
    numbers = {
        "dataset": split.dataset,
        "split": split.split,
        "num_images": description.num_images,
        "published_images": published.get("images"),
        "num_expressions": num_expressions,
        "published_expressions": published.get("expressions"),
        "num_references": description.num_references,
        "num_left_out": split.num_skipped,
        "num_of_coco": description.num_of_coco,
        "num_distinct_expressions": description.num_distinct,
        "num_distinct_words": description.num_distinct_words,
        "words_per_expression": description.lengths.mean(),
        "expressions_per_image": num_expressions / description.num_images,
        "num_masks": len(sizes),
    }
    if len(sizes):
        numbers |= {f"mask_percent_{part}": 100 * np.percentile(sizes, part) for part in (25, 50, 75)} | {
            "mask_percent": 100 * sizes.mean(),
            "small_percent": 100 * np.mean(sizes < SMALL),
            "large_percent": 100 * np.mean(sizes > LARGE),
            "overlapping_percent": 100 * description.num_overlapping / len(sizes),
            "num_pairs": len(description.ious),
            "pair_iou_percent": 100 * description.ious.mean() if len(description.ious) else None,
        }
    return numbers


def _block(title: str, columns: dict[str, str], table: pd.DataFrame) -> RowGroup:
    values = pd.DataFrame({label: table[column].astype(float) for label, column in columns.items()})
    texts = {label: _texts(table, column) for label, column in columns.items()}
    return RowGroup(title, values, pd.DataFrame(texts, index=table.index))


def _texts(table: pd.DataFrame, column: str) -> list[str]:
    signs = [""] * len(table)
    if column in PUBLISHED:
        signs = ["= " if same else "≠ " for same in (table[column] == table[PUBLISHED[column]]).fillna(False)]
    return [
        "-" if pd.isna(value) else f"{sign}{value:.2f}" if isinstance(value, float) else f"{sign}{value:,}"
        for sign, value in zip(signs, table[column], strict=True)
    ]


def _remarks(table: pd.DataFrame, descriptions: Sequence[SplitDescription]) -> list[str]:
    """Name the splits whose counts differ from the published ones. Those of the embedded data set are left out."""
    differing = [(table[published] != table[ours]).fillna(False) for published, ours in PUBLISHED.items()]
    names = [
        description.name
        for description, differs in zip(descriptions, np.any(differing, axis=0), strict=True)
        if differs and not is_embedded(description.provenance)
    ]
    why = "The records are a sample or of another version, or some were left out."
    return [f"Counts differ from the published ones (≠): {'; '.join(names)}. {why}"] if names else []
