"""The two stages of inference, from files to files: predict similarities, then make masks from them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from tseg.inference.masks import COMPARISON, mask_records
from tseg.inference.predict import predict_records
from tseg.inference.semantic import comparison, label_records
from tseg.model.tseg import load_model
from tseg.provenance import MasksProvenance, PredictionsProvenance
from tseg.records import read, read_records, write


def predict_file(
    model: Path,
    records: Path,
    output: Path,
    *,
    resolution: int,
    scales: Sequence[float],
    flip: bool,
    labels: dict[str, list[str]] | None,
    device: torch.device,
) -> None:
    """Write the similarities, float16, of every image of `records` to its expressions or to the words of `labels`.

    `labels` maps each class to its words; None for a data set without classes. For `resolution`, `scales` and `flip`,
    see `predict_similarities`. Raises ValueError if `labels` and the data set do not match.
    """
    loaded, trained = load_model(model)
    rows, evaluated_on = read_records(records)
    if (labels is None) != (evaluated_on.classes is None):
        raise ValueError(f"{records}: a data set with classes needs --labels, and any other data set takes none")
    words = None if labels is None else list(dict.fromkeys(word for of_class in labels.values() for word in of_class))
    similarities = predict_records(
        loaded.to(device),
        rows,
        words=words,
        resolution=resolution,
        scales=scales,
        flip=flip,
        flip_words=trained.flip_words,
    )
    provenance = PredictionsProvenance(
        model=trained,
        evaluated_on=evaluated_on,
        resolution=resolution,
        scales=list(scales),
        flip=flip,
        labels=labels,
    )
    write(output, similarities, provenance)


def refine_file(
    predictions: Path, records: Path, output: Path, *, background: float, confidence: float, crf: str | None
) -> None:
    """Write the mask of every record, or the label map of every image, at the image's own resolution.

    For `background`, `confidence` and `crf` see `masks.segment_masks` and `semantic.segment_labels`. Raises ValueError
    for a data set with classes and a model that was not trained with weak supervision.
    """
    similarities, predicted = read(predictions, PredictionsProvenance)
    rows, _ = read_records(records)
    model, labels = predicted.model, predicted.labels
    if labels is None:
        masks = mask_records(rows, similarities, pooling=model.pooling, background=background, crf=crf)
        compared = COMPARISON
    elif model.pooling is None:
        raise ValueError(
            f"{predictions}: a model of {model.supervision} supervision cannot score classes; use a weakly trained one"
        )
    else:
        masks = label_records(
            rows,
            similarities,
            labels=labels,
            pooling=model.pooling,
            options=model.pooling_options,
            confidence=confidence,
            background=background,
            crf=crf,
        )
        compared = comparison(confidence)
    write(output, masks, MasksProvenance(predictions=predicted, crf=crf, background=background, comparison=compared))
