"""Self-training: the masks that a weak run makes of its training images teach a second run. No true mask is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from torch import Tensor

from tseg.datasets.readers.annotations import mask_box
from tseg.images import open_image
from tseg.inference.masks import (
    FOREGROUND,
    MaskRules,
    check_predicted,
    refined_probabilities,
)
from tseg.inference.refinement import LATTICE, check_refinement
from tseg.inference.similarities import Similarities
from tseg.inference.thresholds import FIXED, RULES
from tseg.parts import Parts, in_parts
from tseg.provenance import PredictionsProvenance
from tseg.records import RECORDS, ImageRecords, encode_mask, read_provenance, read_records, tables_of_images, write
from tseg.settings.validation import check_known

_LABELLED = ["mask", "box", "ignore"]
"""The columns of records that pseudo labels replace."""


def pseudo_label_file(
    predictions: Path,
    records: Path,
    output: Path,
    *,
    background: float,
    exclusive_activations: bool,
    threshold: str,
    crf: str | None,
    crf_backend: str = LATTICE,
    ignore_band: float,
    num_threads: int = 1,
) -> None:
    """Write `records` with the teacher's masks in place of their own; leave out, and count, those with an empty mask.

    `predictions` are those of the teacher for the same records. For the other arguments see `masks.MaskRules` and
    `pseudo_label_records`.
    Raises ValueError for the oracle, if a record has no prediction, and if no record is left.
    """
    check_known(threshold, [FIXED, *RULES], "threshold: there is no label-free rule")
    check_refinement(crf, crf_backend)
    predicted = read_provenance(predictions, PredictionsProvenance)
    rows, provenance = read_records(records)
    rules = MaskRules(predicted.model.pooling, background, exclusive_activations, threshold, crf, crf_backend)
    with in_parts(
        output, f"{__name__}.pseudo_label_file", predictions, records, rules=rules, ignore_band=ignore_band
    ) as parts:
        labelled = pseudo_label_records(rows, Similarities(predictions), rules, ignore_band, parts, num_threads)
        num_empty = len(rows) - len(labelled)
        print(f"{predicted.model.run}: {len(labelled):,} masks; {num_empty:,} records left out because theirs is empty")
        if labelled.empty:
            raise ValueError(
                f"{predictions}: every mask is empty; choose another threshold, or train the teacher for longer"
            )
        provenance = provenance.model_copy(
            update={
                "teacher": predicted.model.run,
                "num_skipped": provenance.num_skipped + num_empty,
                "num_images": labelled["file_name"].nunique(),
            }
        )
        write(output, pa.Table.from_pandas(labelled, RECORDS, preserve_index=False), provenance)


def pseudo_label_records(
    records: pd.DataFrame,
    similarities: Similarities,
    rules: MaskRules,
    ignore_band: float,
    parts: Parts | None = None,
    num_threads: int = 1,
) -> pd.DataFrame:
    """The records whose predicted mask is not empty, with that mask, its box, and the pixels to ignore.

    Ignored are pixels whose probability, after the refinement, is closer to 1/2 than `ignore_band`.
    """
    check_predicted(records, similarities)

    def rows_of(image: ImageRecords, views: list[Tensor]) -> Iterator[dict[str, Any]]:
        probabilities = refined_probabilities(views, open_image(image.file_name, size=image.size), rules)
        for expression, probability in zip(image.expressions, probabilities, strict=True):
            mask, unsure = probability > FOREGROUND, np.abs(probability - FOREGROUND) < ignore_band
            if mask.any():
                counts = encode_mask(mask)
                yield {
                    "image_id": image.image_id,
                    "expression": expression,
                    "mask": counts,
                    "box": mask_box(counts, probability.shape),
                    "ignore": encode_mask(unsure) if unsure.any() else None,
                }

    schema = pa.schema(RECORDS.field(name) for name in ("image_id", "expression", *_LABELLED))
    of_all = similarities.mapped(lambda image, views: list(rows_of(image, views)), num_threads)
    tables = tables_of_images(records, of_all, schema, what="pseudo-label", parts=parts)
    found = pa.concat_tables(tables).to_pandas()
    labelled = records.drop(columns=_LABELLED).merge(found, on=["image_id", "expression"])
    return labelled.reindex(columns=records.columns)
