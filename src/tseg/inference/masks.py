"""From patch-level similarities to masks at the image's own resolution (section 3.3, "Inference").

One image has one or several views: scales and mirror images, each with the similarities (L, h, w) of L expressions on
its own grid. Views are combined at full size, as in the code of refs. [2, 3]. Expressions are processed one by one, so
that memory does not grow with their number.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.images import open_image
from tseg.inference.refinement import LATTICE, refine_masks
from tseg.inference.similarities import Similarities
from tseg.inference.thresholds import FIXED, ORACLE, RULES, cut_at_area
from tseg.model.pooling import POOLINGS, mpa_masks, spa_masks
from tseg.parts import Parts
from tseg.records import MASKS, ImageRecords, decode_mask, encode_mask, tables_of_images

FOREGROUND = 0.5
"""A pixel belongs to the mask if its foreground probability is strictly above this."""


class MaskRules(NamedTuple):
    """How similarities become masks."""

    pooling: str | None
    """The pooling that trained the model; None if masks or boxes did."""
    background: float = 0.2
    """Poolings without masks (gap, gmp): the activation that a pixel must exceed."""
    exclusive_activations: bool = True
    """Poolings without masks: whether the masks of an image exclude each other."""
    threshold: str = FIXED
    """A rule of `thresholds`."""
    crf: str | None = None
    """A name in `refinement.REFINEMENTS`; None for no refinement."""
    crf_backend: str = LATTICE
    """A name in `refinement.BACKENDS`."""

    @property
    def exclusive(self) -> bool:
        """Whether each pixel belongs to at most one expression of an image. The oracle cuts each map by itself."""
        if self.pooling is None or self.threshold == ORACLE:
            return False
        pooling = POOLINGS[self.pooling]
        return pooling.exclusive if pooling.masks else self.exclusive_activations

    @property
    def masks(self) -> Callable[[Tensor], Tensor] | None:
        """m of the pooling, (..., L) to (..., L). None for full supervision, and for activations.

        ASSUME: a rule for thresholds knows no activations; the masks of poolings without masks are eq. 5 or 6 then.
        """
        own = POOLINGS[self.pooling].masks if self.pooling else None
        if own or self.pooling is None or self.threshold == FIXED:
            return own
        return spa_masks if self.exclusive else mpa_masks


def comparison(threshold: str) -> str:
    """When a pixel belongs to a mask; summaries and tables state it."""
    return f"foreground probability > {FOREGROUND}{rule_in_words(threshold)}"


def rule_in_words(threshold: str) -> str:
    """A clause that names a rule for thresholds other than the paper's."""
    if threshold == ORACLE:
        return " with each map cut at the area of its true mask (an oracle and no result)"
    return "" if threshold == FIXED else f" with a threshold per map by the rule {threshold}"


def mask_records(
    records: pd.DataFrame,
    similarities: Similarities,
    rules: MaskRules,
    parts: Parts | None = None,
    num_threads: int = 1,
) -> Iterator[pa.Table]:
    """Compute the mask of every record from the similarities of `predict_records`: tables of `MASKS`.

    With the rule oracle, a record without a true mask has an empty mask; it has no score either. Raises ValueError if a
    record has no prediction, or the oracle finds no true mask at all.
    """
    check_predicted(records, similarities)
    if rules.threshold == ORACLE and np.all(records["mask"].isna()):
        raise ValueError(f"none of the {len(records)} records has a true mask, which the threshold oracle needs")

    def rows_of(image: ImageRecords, views: list[Tensor]) -> list[dict[str, Any]]:
        areas = _true_areas(image.records, image.expressions) if rules.threshold == ORACLE else None
        pixels = open_image(image.file_name, size=image.size)
        masks = map(encode_mask, segment_masks(views, pixels, rules, areas=areas))
        encoded = dict(zip(image.expressions, masks, strict=True))
        columns = image.records["record_id"], image.records["expression"]
        size = {"height": pixels.height, "width": pixels.width}
        return [
            {"record_id": name, "mask": encoded[expression]} | size for name, expression in zip(*columns, strict=True)
        ]

    return tables_of_images(records, similarities.mapped(rows_of, num_threads), MASKS, what="refine", parts=parts)


def check_predicted(records: pd.DataFrame, similarities: Similarities) -> None:
    """Raise ValueError unless there is a prediction for the image and expression of every record."""
    missing = records.loc[similarities.unanswered(records), "record_id"]
    if len(missing):
        raise ValueError(
            f"{len(missing)} of {len(records)} records have no prediction, {min(missing)} for one; "
            "predict these records again"
        )


def _true_areas(of_image: pd.DataFrame, expressions: Sequence[str]) -> list[int]:
    """Pixels of the union of the true masks of each expression; 0 without one."""
    union: dict[str, np.ndarray] = {}
    columns = of_image.dropna(subset=["mask"])[["expression", "mask", "height", "width"]].to_numpy()
    for expression, mask, height, width in columns:
        union[expression] = decode_mask(mask, height, width) | union.get(expression, np.zeros((height, width), bool))
    return [int(union[expression].sum()) if expression in union else 0 for expression in expressions]


def segment_masks(
    views: Sequence[Tensor], image: Image.Image, rules: MaskRules, areas: Sequence[int] | None = None
) -> Iterator[np.ndarray]:
    """Segment an RGB image of W x H pixels by L expressions: masks, bool (H, W), one by one.

    `views` holds the similarities, float32 (L, h, w), of each view. `areas`: true areas in pixels, for the oracle only.
    """
    return (probability > FOREGROUND for probability in refined_probabilities(views, image, rules, areas))


def refined_probabilities(
    views: Sequence[Tensor], image: Image.Image, rules: MaskRules, areas: Sequence[int] | None = None
) -> Iterator[np.ndarray]:
    """The probabilities of `each_probability` in an RGB image of W x H pixels, (H, W), after the refinement."""
    probabilities = each_probability(views, (image.height, image.width), rules, areas)
    arrays = (probability.numpy() for probability in probabilities)
    return refine_masks(np.asarray(image), arrays, rules.crf, rules.crf_backend)


def each_probability(
    views: Sequence[Tensor], size: tuple[int, int], rules: MaskRules, areas: Sequence[int] | None = None
) -> Iterator[Tensor]:
    """Probabilities (H, W) that pixels belong to L expressions, one by one, from the similarities (L, h, w) of `views`.

    The dtype is that of `views`, float32 or float64. The mask is where the probability exceeds 1/2, and the probability
    is the unary of the CRF. s is that of `shifted`; with the paper's threshold it is unchanged.

    - poolings with masks, such as mpa: m of eq. 6, bilinear to (H, W), averaged over views. It exceeds 1/2 where
      s > s_bg = 0.
    - poolings with exclusive masks, such as spa: m of eq. 5 over the image's expressions and the background, bilinear,
      averaged over views (as in ref. [3]); then m_j / (m_j + max of the others). It exceeds 1/2 where the argmax is j.
    - poolings without masks, gap and gmp: activations a of `activation`; then a_j / (a_j + max of the others), where
      the background has the constant activation `rules.background`. Unless the masks are exclusive, the background is
      the only other. With another threshold than the paper's: as spa, or as mpa unless the masks are exclusive.
    - None, for full supervision or boxes: s bilinear to (H, W), then its sigmoid, as in training (eq. 9); averaged.

    The oracle: the sigmoid of s - t, where s is bilinear to (H, W) and averaged over views, and t leaves the true area.
    """
    expressions = range(len(views[0]))
    if rules.threshold == ORACLE:
        assert areas is not None, "the oracle needs the true areas"
        similarities = mean_pixels(views, size)
        yield from (_cut(similarities(j), areas[j]) for j in expressions)
        return
    views = shifted(views, rules.threshold)
    if rules.pooling is None:
        yield from (_mean([to_pixels(view[j], size).sigmoid() for view in views]) for j in expressions)
        return
    constant = torch.full(size, rules.background, dtype=views[0].dtype)
    if rules.masks is None:
        strength, background = partial(activation, views, size=size), constant
    else:
        maps = patch_masks(views, rules.masks)
        strength = mean_pixels(maps, size)
        if not rules.exclusive:
            yield from map(strength, expressions)
            return
        background = mean_pixels([1 - of_view.sum(dim=0, keepdim=True) for of_view in maps], size)(0)
    others = _strongest_others(strength, len(expressions), background) if rules.exclusive else repeat(background)
    for j, other in zip(expressions, others, strict=False):
        value = strength(j)
        yield value / (value + other + torch.finfo(value.dtype).tiny)


def shifted(views: Sequence[Tensor], threshold: str) -> list[Tensor]:
    """The similarities s - t (L, h, w) of every view, where a rule reads t off each map (h, w): t replaces s_bg = 0."""
    if threshold == FIXED:
        return list(views)
    rule = RULES[threshold]
    levels = ([rule(similarities.numpy()) for similarities in view] for view in views)
    return [view - view.new_tensor(of_view)[:, None, None] for view, of_view in zip(views, levels, strict=True)]


def _cut(similarities: Tensor, area: int) -> Tensor:
    return (similarities - cut_at_area(similarities.numpy(), area)).sigmoid()


def activation(views: Sequence[Tensor], j: int, *, size: tuple[int, int]) -> Tensor:
    """psa's activation (H, W) in [0, 1): the sum over views of relu(s_j), bilinear, over its maximum plus 1e-5.

    ASSUME: 1e-5 as in psa, so that an expression without activation has an empty mask.
    """
    total = torch.stack([to_pixels(view[j].relu(), size) for view in views]).sum(dim=0)
    return total / (total.max() + 1e-5)


def patch_masks(views: Sequence[Tensor], masks: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """m (L, h, w) of every view."""
    return [masks(view.movedim(0, -1)).movedim(-1, 0) for view in views]


def mean_pixels(maps: Sequence[Tensor], size: tuple[int, int]) -> Callable[[int], Tensor]:
    """A function from j to map j (H, W): the maps (L, h, w) of all views, bilinear to (H, W), averaged."""
    return lambda j: _mean([to_pixels(of_view[j], size) for of_view in maps])


def to_pixels(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map (h, w) bilinearly to (H, W)."""
    return interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return maps[0] if len(maps) == 1 else torch.stack(list(maps)).mean(dim=0)


def _strongest_others(strength: Callable[[int], Tensor], number: int, background: Tensor) -> Iterator[Tensor]:
    """For each expression, the maximum (H, W) of the strengths of all others and of the background.

    Strengths are computed twice rather than held: only the two largest of each pixel are kept.
    """
    largest = second = background
    winner = torch.full(background.shape, -1)
    for j in range(number):
        value = strength(j)
        second = torch.maximum(second, torch.minimum(largest, value))
        winner = torch.where(value > largest, j, winner)
        largest = torch.maximum(largest, value)
    for j in range(number):
        yield torch.where(winner == j, second, largest)
