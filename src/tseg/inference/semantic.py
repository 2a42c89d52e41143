"""Label maps, one class per pixel, from the similarities of all class names to an image's patches (section 4.6)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from tseg.images import open_image
from tseg.inference.crf import refine_labels
from tseg.inference.masks import Maps, foreground_probabilities, pixel_masks, similarity_maps, stack_maps
from tseg.model.pooling import POOLINGS
from tseg.records import BACKGROUND_LABEL, LABELS, encode_mask, images_of


def comparison(confidence: float) -> str:
    """When a pixel has a label; summaries and tables state it."""
    return f"argmax of the background and the words of confidence > {confidence}"


def label_records(
    records: pd.DataFrame,
    predictions: pd.DataFrame,
    *,
    labels: dict[str, list[str]],
    pooling: str,
    options: dict[str, Any],
    confidence: float,
    background: float,
    crf: str | None,
) -> pa.Table:
    """Compute the label map of every image from the rows of `predict_records` for all words: a table of `LABELS`.

    `labels` maps a class to its words: its own name, or several words (label engineering). For the other arguments see
    `segment_labels`. Raises ValueError if an image lacks the prediction of a word, or a word belongs to two classes.
    """
    maps = similarity_maps(predictions)
    numbers = _class_of_each_word(labels)
    _check_predicted(set(records["image_id"]), maps, list(numbers))
    names = [BACKGROUND_LABEL, *labels]
    rows = []
    for file_name, of_image, _ in images_of(records, "refine"):
        image_id = of_image["image_id"].iloc[0]
        found = segment_labels(
            stack_maps(maps, image_id, list(numbers)),
            open_image(file_name),
            list(numbers.values()),
            pooling=pooling,
            options=options,
            confidence=confidence,
            background=background,
            crf=crf,
        )
        # Always write the background, so that an image in which nothing was found differs from one left out.
        rows += [
            {"image_id": image_id, "label": names[number], "mask": encode_mask(found == number)}
            for number in sorted({0, *np.unique(found)})
        ]
    return pa.Table.from_pylist(rows, schema=LABELS)


def segment_labels(
    similarities: Tensor,
    image: Image.Image,
    numbers: Sequence[int],
    *,
    pooling: str,
    options: dict[str, Any],
    confidence: float,
    background: float,
    crf: str | None,
) -> np.ndarray:
    """Label each pixel of an RGB image of W x H pixels: class indices, int64 (H, W), 0 for the background.

    `similarities` is float32 (L, h, w) of L words, from a model trained with `pooling` and its `options`; `numbers` is
    the class index, 1 to K, of each word. Words with at most `confidence` are left out; the classes of the others
    compete for each pixel. For `background` and `crf` see `masks.segment_masks`.
    """
    size = image.height, image.width
    confident = confidences(similarities, pooling, options) > confidence
    if not confident.any():
        return np.zeros(size, np.int64)
    # ASSUME: exclusive masks are a softmax over the remaining words, as if the others did not exist.
    probabilities = label_probabilities(similarities[confident], pooling, size, background)
    classes, probabilities = merge_words(probabilities, torch.tensor(numbers)[confident])
    if crf is None:
        return classes[probabilities.argmax(dim=0)].numpy()
    # ASSUME: the CRF has the remaining labels only, and takes their probabilities as its unary.
    refined = refine_labels(np.asarray(image), probabilities.float().numpy(), crf)
    return classes.numpy()[refined.argmax(axis=0)]


def confidences(similarities: Tensor, pooling: str, options: dict[str, Any]) -> Tensor:
    """sigmoid(z), (L), of similarities (L, h, w): the probability, as trained, that each word is present.

    ASSUME: this is section 4.6's "confidence score"; each word of a class has its own.
    """
    patches = similarities.flatten(1).T
    return POOLINGS[pooling].score(patches[None], **options)[0].sigmoid()


def label_probabilities(similarities: Tensor, pooling: str, size: tuple[int, int], background: float) -> Tensor:
    """Probabilities, float64 (L + 1, H, W), of the background and L words, from similarities (L, h, w); they sum to 1.

    - poolings with exclusive masks, such as spa: the interpolated masks; the background has the rest.
    - other poolings: the odds f / (1 - f) of each word against the background, normalised, with f of
      `foreground_probabilities`. A single word has the probability f. Of several words, the one with the largest f is
      the most probable where that f exceeds 1/2; elsewhere the background is.
    """
    similarities = similarities.double()  # in float32, two nearly certain words would have equal probabilities
    if POOLINGS[pooling].exclusive:
        masks = pixel_masks(similarities, pooling, size)
        return torch.cat([(1 - masks.sum(dim=0, keepdim=True)).clamp(min=0), masks])
    foreground = foreground_probabilities(similarities, pooling, size, background)
    log_odds = torch.logit(foreground, eps=torch.finfo(foreground.dtype).eps)
    return torch.cat([torch.zeros_like(log_odds[:1]), log_odds]).softmax(dim=0)


def merge_words(probabilities: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Merge words into classes: indices, int64 (C), background 0 first, and probabilities (C, H, W) that sum to 1.

    `probabilities` (L + 1, H, W) are those of the background and of L words; `numbers` (L) has the words' classes.

    ASSUME: a class is as probable as its most probable word, so that its mask is the union of its words' masks.
    """
    numbers = torch.cat([torch.zeros(1, dtype=torch.int64), numbers])
    classes = numbers.unique()
    merged = torch.stack([probabilities[numbers == number].amax(dim=0) for number in classes])
    return classes, merged / merged.sum(dim=0)


def _class_of_each_word(labels: dict[str, list[str]]) -> dict[str, int]:
    """Map each word to the index, from 1, of its class. Raises ValueError if it belongs to two."""
    numbers: dict[str, int] = {}
    for number, (label, words) in enumerate(labels.items(), 1):
        for word in words:
            if numbers.setdefault(word, number) != number:
                raise ValueError(f"labels.{label}: {word!r} belongs to another class too; give it to one class only")
    return numbers


def _check_predicted(images: set[str], maps: Maps, words: Sequence[str]) -> None:
    """Raise ValueError unless `maps` has every word for every image."""
    missing = {image_id for image_id in images if any((image_id, word) not in maps for word in words)}
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(images)} images lack the prediction of a word, {min(missing)} for one; "
            "predict these records again with the same labels"
        )
