"""One class per pixel, from the similarities of all class names to an image's patches (section 4.6)."""

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
    """What is said of label maps where they are scored."""
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
    """The label map of every image, as `LABELS`, from the rows that `predict_records` made of all words.

    `labels` maps a class to its words: its own name, or those that stand for it (label engineering). For the rest see
    `segment_labels`. Raises ValueError where a word was not asked of an image, and where it stands for two classes.
    """
    maps = similarity_maps(predictions)
    numbers = _class_of_each_word(labels)
    _check_asked(set(records["image_id"]), maps, list(numbers))
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
        # The background is always there: so an image in which nothing was found differs from one left out.
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
    """The class of each pixel, int64 (H, W), 0 for the background, in an RGB image of W x H pixels.

    `similarities` is float32 (L, h, w) of L words by a model trained with `pooling` and its `options`; `numbers` has
    the class, 1 to K, of each word. Words of no more than `confidence` are left out; the classes of the others compete
    for each pixel. `background` and `crf` are those of `masks.segment`.
    """
    size = image.height, image.width
    confident = confidences(similarities, pooling, options) > confidence
    if not confident.any():
        return np.zeros(size, np.int64)
    # ASSUME: exclusive masks are a softmax over the words that remain, as if the others had never been asked.
    probabilities = label_probabilities(similarities[confident], pooling, size, background)
    classes, probabilities = merge_words(probabilities, torch.tensor(numbers)[confident])
    if crf is None:
        return classes[probabilities.argmax(dim=0)].numpy()
    # ASSUME: the CRF knows the labels that remain, and takes their probabilities as its unary.
    refined = refine_labels(np.asarray(image), probabilities.float().numpy(), crf)
    return classes.numpy()[refined.argmax(axis=0)]


def confidences(similarities: Tensor, pooling: str, options: dict[str, Any]) -> Tensor:
    """sigmoid(z), (L), of similarities (L, h, w): the probability by which the words were trained to be present.

    ASSUME: this is section 4.6's "confidence score", each word of a class having its own.
    """
    patches = similarities.flatten(1).T
    return POOLINGS[pooling].score(patches[None], **options)[0].sigmoid()


def label_probabilities(similarities: Tensor, pooling: str, size: tuple[int, int], background: float) -> Tensor:
    """Probabilities of the background and of L words, float64 (L + 1, H, W) of sum 1, of similarities (L, h, w).

    - poolings with exclusive masks, as spa: the interpolated masks and what they leave to the background.
    - others: of each word its odds f / (1 - f) against the background, f of `foreground_probabilities`, normalised. One
      word has f itself, and of several the largest f wins where it is above 1/2, else the background.
    """
    similarities = similarities.double()  # in float32 two words that are both nearly certain would be the same
    if POOLINGS[pooling].exclusive:
        masks = pixel_masks(similarities, pooling, size)
        return torch.cat([(1 - masks.sum(dim=0, keepdim=True)).clamp(min=0), masks])
    foreground = foreground_probabilities(similarities, pooling, size, background)
    log_odds = torch.logit(foreground, eps=torch.finfo(foreground.dtype).eps)
    return torch.cat([torch.zeros_like(log_odds[:1]), log_odds]).softmax(dim=0)


def merge_words(probabilities: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The classes there are, int64 (C), background 0 first, and their probabilities (C, H, W), of sum 1.

    `probabilities` (L + 1, H, W) are those of the background and of words that stand for the classes `numbers` (L).

    ASSUME: the strongest word stands for its class, so that a class's mask is the union of its words' masks.
    """
    numbers = torch.cat([torch.zeros(1, dtype=torch.int64), numbers])
    classes = numbers.unique()
    merged = torch.stack([probabilities[numbers == number].amax(dim=0) for number in classes])
    return classes, merged / merged.sum(dim=0)


def _class_of_each_word(labels: dict[str, list[str]]) -> dict[str, int]:
    """Word to the number, from 1, of the class it stands for."""
    numbers: dict[str, int] = {}
    for number, (label, words) in enumerate(labels.items(), 1):
        for word in words:
            if numbers.setdefault(word, number) != number:
                raise ValueError(f"labels.{label}: {word!r} stands for another class too; leave it to one of them")
    return numbers


def _check_asked(images: set[str], maps: Maps, words: Sequence[str]) -> None:
    missing = {image_id for image_id in images if any((image_id, word) not in maps for word in words)}
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(images)} images were not asked for every word, {min(missing)} for one; "
            "predict these records again with the same labels"
        )
