"""The two stages of inference, from files to files: predict similarities, then make masks from them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from tseg.encoding.encode import open_tokens
from tseg.inference.masks import MaskRules, comparison, mask_records
from tseg.inference.predict import Seen, predict_records
from tseg.inference.refinement import LATTICE, check_refinement
from tseg.inference.semantic import LabelRules, label_records
from tseg.inference.semantic import comparison as label_comparison
from tseg.inference.similarities import Similarities
from tseg.inference.thresholds import ORACLE
from tseg.model.tseg import load_model
from tseg.parts import in_parts
from tseg.provenance import MasksProvenance, PredictionsProvenance
from tseg.records import LABELS, MASKS, PREDICTIONS, read_columns, read_provenance, write_tables
from tseg.settings.encodings import WholeViews
from tseg.settings.validation import check_known

PRECISIONS = ("float32", "bfloat16")
"""In which encoders can compute."""


def predict_file(
    model: Path,
    records: Path,
    output: Path,
    *,
    resolution: int,
    scales: Sequence[float],
    flip: bool,
    window: int | None,
    precision: str = "float32",
    labels: dict[str, list[str]] | None,
    patches: Path | None = None,
    device: torch.device,
    num_threads: int = 1,
) -> None:
    """Write the similarities, float16, of every image of `records` to its expressions or to the words of `labels`.

    `labels` maps each class to its words; None for a data set without classes, and to ask each image for its own
    classes alone. `patches` are the tokens of the images, if the image encoder is frozen. For `resolution`, `scales`,
    `flip`, `window` and `precision` see `predict.Seen`. Raises ValueError if the precision is unknown, if the data set
    has no classes to label, or if the tokens belong to another encoder or other views.
    """
    check_known(precision, PRECISIONS, "precision: there is no")
    loaded, trained = load_model(model)
    rows, evaluated_on = read_columns(records, ["image_id", "file_name", "expression"])
    if labels == {}:
        raise ValueError("--labels names no class; name each with its words, or leave --labels out")
    if labels is not None and evaluated_on.classes is None:
        raise ValueError(f"{records}: the data set has no classes; leave out --labels")
    views = WholeViews(resolution=resolution, scales=list(scales), flip=flip)
    if patches and window:
        raise ValueError("--window: tokens are of whole images; leave out --patches")
    words = None if labels is None else list(dict.fromkeys(word for of_class in labels.values() for word in of_class))
    seen = Seen(resolution, scales, flip, trained.flip_words, window, getattr(torch, precision))
    provenance = PredictionsProvenance(
        model=trained,
        evaluated_on=evaluated_on,
        resolution=resolution,
        scales=list(scales),
        flip=flip,
        window=window,
        precision=precision,
        labels=labels,
    )
    with in_parts(
        output, f"{__name__}.predict_file", model, records, patches, how=provenance.to_json(), device=device.type
    ) as parts:
        similarities = predict_records(
            loaded.to(device),
            rows,
            seen,
            words=words,
            patches=open_tokens(patches, loaded.image_encoder, views) if patches else None,
            parts=parts,
            num_threads=num_threads,
        )
        write_tables(output, PREDICTIONS, similarities, provenance)


def refine_file(
    predictions: Path,
    records: Path,
    output: Path,
    *,
    background: float,
    exclusive_activations: bool,
    threshold: str,
    confidence: float,
    crf: str | None,
    crf_backend: str = LATTICE,
    crf_background: float | None,
    num_threads: int = 1,
) -> None:
    """Write the mask of every record, or the label map of every image, at the image's own resolution.

    For the options see `masks.MaskRules` and `semantic.LabelRules`. Raises ValueError for a data set with classes and a
    model without a pooling, and for a refinement that cannot be computed here.
    """
    check_refinement(crf, crf_backend)
    predicted = read_provenance(predictions, PredictionsProvenance)
    of_truth = ["mask", "height", "width"] if threshold == ORACLE else []
    rows, _ = read_columns(records, ["record_id", "image_id", "file_name", "expression", *of_truth])
    model, labels = predicted.model, predicted.labels
    if labels is not None and model.pooling is None:
        raise ValueError(
            f"{predictions}: a model of {model.supervision} supervision cannot score classes; use a weakly trained one"
        )
    provenance = MasksProvenance(
        predictions=predicted,
        crf=crf,
        crf_backend=crf_backend,
        crf_background=crf_background,
        background=background,
        exclusive_activations=exclusive_activations,
        threshold=threshold,
        comparison=comparison(threshold) if labels is None else label_comparison(confidence, threshold),
    )
    rules = MaskRules(model.mask_pooling, background, exclusive_activations, threshold, crf, crf_backend)
    with in_parts(output, f"{__name__}.refine_file", predictions, records, how=provenance.to_json()) as parts:
        similarities = Similarities(predictions)
        if labels is None:
            masks = mask_records(rows, similarities, rules, parts, num_threads)
        else:
            # ASSUME: a student's label maps are made as its teacher's, whose pooling scores the words.
            rules = rules._replace(pooling=model.pooling)
            of_words = LabelRules(rules, model.pooling_options, confidence, crf_background)
            masks = label_records(
                rows, similarities, labels=labels, rules=of_words, parts=parts, num_threads=num_threads
            )
        write_tables(output, MASKS if labels is None else LABELS, masks, provenance)
