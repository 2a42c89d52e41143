"""Self-training: the masks that a weak run makes of its training images teach a second run. No true mask is read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tseg.datasets.readers.annotations import mask_box
from tseg.images import open_image
from tseg.inference.masks import (
    FOREGROUND,
    MaskRules,
    check_predicted,
    refined_probabilities,
    similarity_maps,
    stack_maps,
)
from tseg.inference.thresholds import FIXED, RULES
from tseg.provenance import PredictionsProvenance
from tseg.records import RECORDS, encode_mask, images_of, read, read_records, write
from tseg.settings.validation import check_known


def pseudo_label_file(
    predictions: Path,
    records: Path,
    output: Path,
    *,
    background: float,
    exclusive_activations: bool,
    threshold: str,
    crf: str | None,
    ignore_band: float,
) -> None:
    """Write `records` with the teacher's masks in place of their own; leave out, and count, those with an empty mask.

    `predictions` are those of the teacher for the same records. For the other arguments see `masks.MaskRules` and
    `pseudo_label_records`.
    Raises ValueError for the oracle, if a record has no prediction, and if no record is left.
    """
    check_known(threshold, [FIXED, *RULES], "threshold: there is no label-free rule")
    similarities, predicted = read(predictions, PredictionsProvenance)
    rows, provenance = read_records(records)
    rules = MaskRules(predicted.model.pooling, background, exclusive_activations, threshold, crf)
    labelled = pseudo_label_records(rows, similarities, rules, ignore_band)
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
    records: pd.DataFrame, predictions: pd.DataFrame, rules: MaskRules, ignore_band: float
) -> pd.DataFrame:
    """The records whose predicted mask is not empty, with that mask, its box, and the pixels to ignore.

    Ignored are pixels whose probability, after the refinement, is closer to 1/2 than `ignore_band`.
    """
    maps = similarity_maps(predictions)
    check_predicted(records, maps)
    found: dict[tuple[str, str], tuple[str, list[float], str | None]] = {}
    for file_name, of_image, expressions in images_of(records, "pseudo-label"):
        image, image_id = open_image(file_name), of_image["image_id"].iloc[0]
        probabilities = refined_probabilities(stack_maps(maps, image_id, expressions), image, rules)
        for expression, probability in zip(expressions, probabilities, strict=True):
            mask, unsure = probability > FOREGROUND, np.abs(probability - FOREGROUND) < ignore_band
            if mask.any():
                counts = encode_mask(mask)
                found[image_id, expression] = (
                    counts,
                    mask_box(counts, probability.shape),
                    encode_mask(unsure) if unsure.any() else None,
                )
    keys = list(zip(records["image_id"], records["expression"], strict=True))
    labelled = records.loc[[key in found for key in keys]].reset_index(drop=True)
    masks = pd.DataFrame([found[key] for key in keys if key in found], columns=["mask", "box", "ignore"])
    return labelled.assign(**{name: masks[name] for name in masks})
