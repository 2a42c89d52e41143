"""Label maps, one class per pixel, from the similarities of all class names to an image's patches (section 4.6)."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from tseg.images import open_image
from tseg.inference.masks import (
    MaskRules,
    activation,
    each_probability,
    mean_pixels,
    patch_masks,
    rule_in_words,
    shifted,
)
from tseg.inference.refinement import refine_labels
from tseg.inference.similarities import Similarities
from tseg.inference.thresholds import ORACLE
from tseg.model.pooling import POOLINGS
from tseg.parts import Parts
from tseg.records import BACKGROUND_LABEL, LABELS, ImageRecords, encode_mask, tables_of_images


class LabelRules(NamedTuple):
    """How the similarities of words become label maps."""

    masks: MaskRules
    """Their `exclusive_activations` has no effect: labels always exclude each other."""
    options: dict[str, Any]
    """Keyword arguments of the pooling."""
    confidence: float = 0.5
    """Words with at most this confidence are left out."""
    crf_background: float | None = None
    """Poolings without masks: psa's alpha, see `segment_labels`."""

    @property
    def pooling(self) -> str:
        """The pooling that trained the model."""
        assert self.masks.pooling is not None, "only weak supervision scores words"
        return self.masks.pooling


def comparison(confidence: float, threshold: str) -> str:
    """When a pixel has a label; summaries and tables state it."""
    return f"argmax of the background and the words of confidence > {confidence}{rule_in_words(threshold)}"


def label_records(
    records: pd.DataFrame,
    similarities: Similarities,
    *,
    labels: dict[str, list[str]],
    rules: LabelRules,
    parts: Parts | None = None,
    num_threads: int = 1,
) -> Iterator[pa.Table]:
    """Compute the label map of every image from its similarities to all words: tables of `LABELS`.

    `labels` maps a class to its words: its own name, or several words (label engineering). Raises ValueError if an
    image lacks the prediction of a word, a word belongs to two classes, or the rule for thresholds is the oracle.
    """
    if rules.masks.threshold == ORACLE:
        raise ValueError("the threshold oracle cuts the masks of records; a data set with classes has label maps")
    numbers = _class_of_each_word(labels)
    _check_predicted(list(set(records["image_id"])), similarities, list(numbers))
    names = [BACKGROUND_LABEL, *labels]

    def rows_of(image: ImageRecords, views: list[Tensor]) -> list[dict[str, str]]:
        found = segment_labels(views, open_image(image.file_name, size=image.size), list(numbers.values()), rules)
        # Always write the background, so that an image in which nothing was found differs from one left out.
        return [
            {"image_id": image.image_id, "label": names[number], "mask": encode_mask(found == number)}
            for number in sorted({0, *np.unique(found)})
        ]

    of_all = similarities.mapped(rows_of, num_threads, words=list(numbers))
    return tables_of_images(records, of_all, LABELS, what="refine", parts=parts)


def segment_labels(
    views: Sequence[Tensor], image: Image.Image, numbers: Sequence[int], rules: LabelRules
) -> np.ndarray:
    """Label each pixel of an RGB image of W x H pixels: class indices, int64 (H, W), 0 for the background.

    `views` holds the similarities, float32 (L, h, w), of L words in each view; `numbers` is the class index, 1 to K, of
    each word. The classes of the confident words compete for each pixel, with the probabilities of
    `label_probabilities`; they are the unary of the CRF too. With psa's alpha, `rules.crf_background`, the unary of a
    pooling without masks is its activations and, for the background, (1 - their maximum) to the power of alpha.
    """
    size = image.height, image.width
    confident = confidences(views, rules.pooling, rules.options) > rules.confidence
    if not confident.any():
        return np.zeros(size, np.int64)
    # ASSUME: exclusive masks are a softmax over the remaining words, as if the others did not exist.
    remaining, numbers_left = [view[confident] for view in views], torch.tensor(numbers)[confident]
    masks = rules.masks
    if masks.crf and rules.crf_background is not None and masks.masks is None:
        activations = torch.stack([activation(remaining, j, size=size) for j in range(len(numbers_left))])
        background = (1 - activations.amax(dim=0, keepdim=True)) ** rules.crf_background
        classes, probabilities = _strongest_words(torch.cat([background, activations]), numbers_left)
    else:
        classes, probabilities = merge_words(label_probabilities(remaining, size, masks), numbers_left)
    if masks.crf is None:
        return classes[probabilities.argmax(dim=0)].numpy()
    # ASSUME: the CRF has the remaining labels only, and takes their probabilities as its unary.
    refined = refine_labels(np.asarray(image), probabilities.float().numpy(), masks.crf, masks.crf_backend)
    return classes.numpy()[refined.argmax(axis=0)]


def confidences(views: Sequence[Tensor], pooling: str, options: dict[str, Any]) -> Tensor:
    """sigmoid(z), (L), of similarities (L, h, w), averaged over views: the probability, as trained, of each word.

    ASSUME: this is section 4.6's "confidence score"; each word of a class has its own. Ref. [3] takes the maximum over
    views, with a threshold of 0.1; a threshold of one half is meant for the probability of one view.
    """
    score = POOLINGS[pooling].score
    scores = [score(view.flatten(1).T[None], **options)[0].sigmoid() for view in views]
    return torch.stack(scores).mean(dim=0)


def label_probabilities(views: Sequence[Tensor], size: tuple[int, int], rules: MaskRules) -> Tensor:
    """Probabilities, float64 (L + 1, H, W), of the background and L words, from their similarities; they sum to 1.

    - poolings with exclusive masks, such as spa: the interpolated masks; the background has the rest.
    - other poolings: the odds f / (1 - f) of each word against the background, normalised, with f of
      `each_probability`, not exclusive. A single word has the probability f. Of several words, the one with the largest
      f is the most probable where that f exceeds 1/2; elsewhere the background is.
    """
    views = [view.double() for view in views]  # in float32, two nearly certain words would have equal probabilities
    if POOLINGS[rules.pooling or ""].exclusive:
        assert rules.masks is not None, "exclusive masks are masks"
        pixels = mean_pixels(patch_masks(shifted(views, rules.threshold), rules.masks), size)
        masks = torch.stack([pixels(j) for j in range(len(views[0]))])
        return torch.cat([(1 - masks.sum(dim=0, keepdim=True)).clamp(min=0), masks])
    independent = rules._replace(exclusive_activations=False)
    foreground = torch.stack(list(each_probability(views, size, independent)))
    log_odds = torch.logit(foreground, eps=torch.finfo(foreground.dtype).eps)
    return torch.cat([torch.zeros_like(log_odds[:1]), log_odds]).softmax(dim=0)


def merge_words(probabilities: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Merge words into classes: indices, int64 (C), background 0 first, and probabilities (C, H, W) that sum to 1.

    `probabilities` (L + 1, H, W) are those of the background and of L words; `numbers` (L) has the words' classes.

    ASSUME: a class is as probable as its most probable word, so that its mask is the union of its words' masks.
    """
    classes, merged = _strongest_words(probabilities, numbers)
    return classes, merged / merged.sum(dim=0)


def _strongest_words(values: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Class indices (C), the background's 0 first, and the maximum (C, H, W) of the values (L + 1, H, W) of a class."""
    numbers = torch.cat([torch.zeros(1, dtype=torch.int64), numbers])
    classes = numbers.unique()
    return classes, torch.stack([values[numbers == number].amax(dim=0) for number in classes])


def _class_of_each_word(labels: dict[str, list[str]]) -> dict[str, int]:
    """Map each word to the index, from 1, of its class. Raises ValueError if it belongs to two."""
    numbers: dict[str, int] = {}
    for number, (label, words) in enumerate(labels.items(), 1):
        for word in words:
            if numbers.setdefault(word, number) != number:
                raise ValueError(f"labels.{label}: {word!r} belongs to another class too; give it to one class only")
    return numbers


def _check_predicted(images: Sequence[str], similarities: Similarities, words: Sequence[str]) -> None:
    """Raise ValueError unless there is a prediction of every word for every image."""
    questions = pd.DataFrame({"image_id": images})
    missing = {
        image_id
        for word in words
        for image_id in questions.loc[similarities.unanswered(questions.assign(expression=word)), "image_id"]
    }
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(images)} images lack the prediction of a word, {min(missing)} for one; "
            "predict these records again with the same labels"
        )
