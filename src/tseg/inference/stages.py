"""The two stages of inference, from files to files: predict similarities, then make masks from them."""

from collections.abc import Sequence
from pathlib import Path

import torch

from tseg.encoding.encode import open_tokens
from tseg.inference.masks import MaskRules, comparison, mask_records
from tseg.inference.predict import predict_records
from tseg.inference.refinement import check_refinement
from tseg.inference.semantic import LabelRules, label_records
from tseg.inference.semantic import comparison as label_comparison
from tseg.model.tseg import load_model
from tseg.parts import in_parts
from tseg.provenance import MasksProvenance, PredictionsProvenance
from tseg.records import read, read_records, write
from tseg.settings.encodings import WholeViews


def predict_file(
    model: Path,
    records: Path,
    output: Path,
    *,
    resolution: int,
    scales: Sequence[float],
    flip: bool,
    window: int | None,
    labels: dict[str, list[str]] | None,
    patches: Path | None = None,
    device: torch.device,
) -> None:
    """Write the similarities, float16, of every image of `records` to its expressions or to the words of `labels`.

    `labels` maps each class to its words; None for a data set without classes, and to ask each image for its own
    classes alone. `patches` are the tokens of the images, if the image encoder is frozen. For `resolution`, `scales`,
    `flip` and `window` see `predict_views`. Raises ValueError if the data set has no classes to label, or if the tokens
    belong to another encoder or other views.
    """
    loaded, trained = load_model(model)
    rows, evaluated_on = read_records(records)
    if labels is not None and evaluated_on.classes is None:
        raise ValueError(f"{records}: the data set has no classes; leave out --labels")
    views = WholeViews(resolution=resolution, scales=list(scales), flip=flip)
    if patches and window:
        raise ValueError("--window: tokens are of whole images; leave out --patches")
    words = None if labels is None else list(dict.fromkeys(word for of_class in labels.values() for word in of_class))
    provenance = PredictionsProvenance(
        model=trained,
        evaluated_on=evaluated_on,
        resolution=resolution,
        scales=list(scales),
        flip=flip,
        window=window,
        labels=labels,
    )
    with in_parts(
        output, f"{__name__}.predict_file", model, records, patches, how=provenance.to_json(), device=device.type
    ) as parts:
        similarities = predict_records(
            loaded.to(device),
            rows,
            words=words,
            resolution=resolution,
            scales=scales,
            flip=flip,
            flip_words=trained.flip_words,
            window=window,
            patches=open_tokens(patches, loaded.image_encoder, views) if patches else None,
            parts=parts,
        )
        write(output, similarities, provenance)


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
    crf_background: float | None,
) -> None:
    """Write the mask of every record, or the label map of every image, at the image's own resolution.

    For the options see `masks.MaskRules` and `semantic.LabelRules`. Raises ValueError for a data set with classes and a
    model without a pooling, and for a refinement that cannot be computed here.
    """
    check_refinement(crf)
    similarities, predicted = read(predictions, PredictionsProvenance)
    rows, _ = read_records(records)
    model, labels = predicted.model, predicted.labels
    if labels is not None and model.pooling is None:
        raise ValueError(
            f"{predictions}: a model of {model.supervision} supervision cannot score classes; use a weakly trained one"
        )
    provenance = MasksProvenance(
        predictions=predicted,
        crf=crf,
        crf_background=crf_background,
        background=background,
        exclusive_activations=exclusive_activations,
        threshold=threshold,
        comparison=comparison(threshold) if labels is None else label_comparison(confidence, threshold),
    )
    rules = MaskRules(model.mask_pooling, background, exclusive_activations, threshold, crf)
    with in_parts(output, f"{__name__}.refine_file", predictions, records, how=provenance.to_json()) as parts:
        if labels is None:
            masks = mask_records(rows, similarities, rules, parts)
        else:
            # ASSUME: a student's label maps are made as its teacher's, whose pooling scores the words.
            rules = rules._replace(pooling=model.pooling)
            of_words = LabelRules(rules, model.pooling_options, confidence, crf_background)
            masks = label_records(rows, similarities, labels=labels, rules=of_words, parts=parts)
        write(output, masks, provenance)
