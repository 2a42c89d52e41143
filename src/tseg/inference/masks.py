"""From patch-level similarities to masks at the image's own resolution (section 3.3, "Inference").

One image has one or several views: scales and mirror images, each with the similarities (L, h, w) of L expressions on
its own grid. Views are combined at full size, as in the code of refs. [2, 3]. Expressions are processed one by one, so
that memory does not grow with their number.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.images import open_image
from tseg.inference.refinement import refine_masks
from tseg.inference.thresholds import FIXED, ORACLE, RULES, cut_at_area
from tseg.model.pooling import POOLINGS
from tseg.records import MASKS, decode_mask, encode_mask, images_of

FOREGROUND = 0.5
"""A pixel belongs to the mask if its foreground probability is strictly above this."""


class MaskRules(NamedTuple):
    """How similarities become masks."""

    pooling: str | None
    """The pooling that trained the model; None for full supervision or boxes."""
    background: float = 0.2
    """Poolings without masks (gap, gmp): the activation that a pixel must exceed."""
    exclusive_activations: bool = True
    """Poolings without masks: whether the masks of an image exclude each other."""
    threshold: str = FIXED
    """A rule of `thresholds`."""
    crf: str | None = None
    """A name in `refinement.REFINEMENTS`; None for no refinement."""

    @property
    def has_masks(self) -> bool:
        """Whether the pooling has masks m; its masks are normalised activations otherwise."""
        return self.pooling is None or POOLINGS[self.pooling].masks is not None

    @property
    def exclusive(self) -> bool:
        """Whether each pixel belongs to at most one expression of an image. The oracle cuts each map by itself."""
        competing = POOLINGS[self.pooling].exclusive if self.pooling and self.has_masks else False
        return self.threshold != ORACLE and (competing or (not self.has_masks and self.exclusive_activations))


def comparison(threshold: str) -> str:
    """When a pixel belongs to a mask; summaries and tables state it."""
    return f"foreground probability > {FOREGROUND}{rule_in_words(threshold)}"


def rule_in_words(threshold: str) -> str:
    """A clause that names a rule for thresholds other than the paper's."""
    if threshold == ORACLE:
        return " with each map cut at the area of its true mask (an oracle and no result)"
    return "" if threshold == FIXED else f" with a threshold per map by the rule {threshold}"


def mask_records(records: pd.DataFrame, predictions: pd.DataFrame, rules: MaskRules) -> pa.Table:
    """Compute the mask of every record from the rows of `predict_records`: a table of `MASKS`.

    With the rule oracle, a record without a true mask has an empty mask; it has no score either. Raises ValueError if a
    record has no prediction, or the oracle finds no true mask at all.
    """
    maps = similarity_maps(predictions)
    questions = zip(records["record_id"], records["image_id"], records["expression"], strict=True)
    missing = [record_id for record_id, *question in questions if tuple(question) not in maps]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(records)} records have no prediction, {min(missing)} for one; "
            "predict these records again"
        )
    if rules.threshold == ORACLE and np.all(records["mask"].isna()):
        raise ValueError(f"none of the {len(records)} records has a true mask, which the threshold oracle needs")
    rows = []
    for file_name, of_image, expressions in images_of(records, "refine"):
        masks = segment_masks(
            stack_maps(maps, of_image["image_id"].iloc[0], expressions),
            open_image(file_name),
            rules,
            areas=_true_areas(of_image, expressions) if rules.threshold == ORACLE else None,
        )
        encoded = dict(zip(expressions, map(encode_mask, masks), strict=True))
        rows += [
            {"record_id": record_id, "mask": encoded[expression]}
            for record_id, expression in zip(of_image["record_id"], of_image["expression"], strict=True)
        ]
    return pa.Table.from_pylist(rows, schema=MASKS)


def _true_areas(of_image: pd.DataFrame, expressions: Sequence[str]) -> list[int]:
    """Pixels of the union of the true masks of each expression; 0 without one."""
    union: dict[str, np.ndarray] = {}
    columns = of_image.dropna(subset=["mask"])[["expression", "mask", "height", "width"]].to_numpy()
    for expression, mask, height, width in columns:
        union[expression] = decode_mask(mask, height, width) | union.get(expression, np.zeros((height, width), bool))
    return [int(union[expression].sum()) if expression in union else 0 for expression in expressions]


Maps = dict[tuple[str, str], dict[tuple[float, bool], np.ndarray]]
"""(image_id, expression) to (scale, flipped) to the similarities, float16 (h, w)."""


def similarity_maps(predictions: pd.DataFrame) -> Maps:
    """Index the rows of `predict_records` by image and expression, then by view."""
    names = ["image_id", "expression", "scale", "flipped", "grid_height", "grid_width", "similarities"]
    maps: Maps = {}
    for image_id, expression, scale, flipped, *grid, values in predictions[names].to_numpy():
        maps.setdefault((image_id, expression), {})[scale, flipped] = values.reshape(grid)
    return maps


def stack_maps(maps: Maps, image_id: str, expressions: Sequence[str]) -> list[Tensor]:
    """The similarities of L expressions in one image: float32 (L, h, w) for each view."""
    of_views = [maps[image_id, expression] for expression in expressions]
    assert all(of_view.keys() == of_views[0].keys() for of_view in of_views), "expressions have different views"
    return [
        torch.from_numpy(np.stack([of_view[view] for of_view in of_views]).astype(np.float32))
        for view in sorted(of_views[0])
    ]


def segment_masks(
    views: Sequence[Tensor], image: Image.Image, rules: MaskRules, areas: Sequence[int] | None = None
) -> Iterator[np.ndarray]:
    """Segment an RGB image of W x H pixels by L expressions: masks, bool (H, W), one by one.

    `views` holds the similarities, float32 (L, h, w), of each view. `areas`: true areas in pixels, for the oracle only.
    """
    probabilities = each_probability(views, (image.height, image.width), rules, areas)
    maps = (probability.numpy() for probability in probabilities)
    return (refined > FOREGROUND for refined in refine_masks(np.asarray(image), maps, rules.crf))


def each_probability(
    views: Sequence[Tensor], size: tuple[int, int], rules: MaskRules, areas: Sequence[int] | None = None
) -> Iterator[Tensor]:
    """Probabilities (H, W) that pixels belong to L expressions, one by one, from the similarities (L, h, w) of `views`.

    The dtype is that of `views`, float32 or float64. The mask is where the probability exceeds 1/2, and the probability
    is the unary of the CRF. With the paper's threshold, `fixed`:

    - poolings with masks, such as mpa: m of eq. 6, bilinear to (H, W), averaged over views. It exceeds 1/2 where
      s > s_bg = 0.
    - poolings with exclusive masks, such as spa: m of eq. 5 over the image's expressions and the background, bilinear,
      averaged over views (as in ref. [3]); then m_j / (m_j + max of the others). It exceeds 1/2 where the argmax is j.
    - poolings without masks, gap and gmp: activations a of `activation`; then a_j / (a_j + max of the others), where
      the background has the constant activation `rules.background`. Unless the masks are exclusive, the background is
      the only other.
    - None, for full supervision or boxes: s bilinear to (H, W), then its sigmoid, as in training (eq. 9); averaged.

    With any other rule, u = s - t of `margins` replaces s - s_bg at every pixel, for every pooling. The probability is
    sigmoid(u_j - max of the others) if masks exclude each other, with 0 for the background, else sigmoid(u_j).
    """
    strength, background, probability = _strengths(views, size, rules, areas)
    expressions = range(len(views[0]))
    others = _strongest_others(strength, len(expressions), background) if rules.exclusive else repeat(background)
    for j, other in zip(expressions, others, strict=False):
        yield probability(strength(j), other)


def _strengths(
    views: Sequence[Tensor], size: tuple[int, int], rules: MaskRules, areas: Sequence[int] | None
) -> tuple[Callable[[int], Tensor], Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """What competes for a pixel: the strength of expression j, that of the background, and j's probability by both."""
    zero = torch.zeros(size, dtype=views[0].dtype)
    if rules.threshold != FIXED:
        return margins(views, size, rules.threshold, areas), zero, lambda value, other: (value - other).sigmoid()
    if rules.pooling is None:
        return lambda j: _mean([to_pixels(view[j], size).sigmoid() for view in views]), zero, lambda value, _: value
    if not rules.has_masks:
        return lambda j: activation(views, j, size), zero + rules.background, _share
    maps = patch_masks(views, rules.pooling)
    strength = mean_pixels(maps, size)
    if not POOLINGS[rules.pooling].exclusive:
        return strength, zero, lambda value, _: value
    return strength, mean_pixels([1 - of_view.sum(dim=0, keepdim=True) for of_view in maps], size)(0), _share


def margins(
    views: Sequence[Tensor], size: tuple[int, int], threshold: str, areas: Sequence[int] | None = None
) -> Callable[[int], Tensor]:
    """u_j (H, W) = s_j - t_j of expression j: s_j bilinear to (H, W), and t_j the threshold that a rule reads off it.

    ASSUME: similarities are interpolated, and averaged over views, so that the rule has one map and its mask is exactly
    where this map exceeds the threshold.
    """
    similarities = mean_pixels(views, size)
    levels = [_level(threshold, similarities(j).numpy(), areas[j] if areas else None) for j in range(len(views[0]))]
    return lambda j: similarities(j) - levels[j]


def _level(threshold: str, similarities: np.ndarray, area: int | None) -> float:
    if threshold == ORACLE:
        assert area is not None, "the oracle needs the true areas"
        return cut_at_area(similarities, area)
    return RULES[threshold](similarities)


def activation(views: Sequence[Tensor], j: int, size: tuple[int, int]) -> Tensor:
    """psa's activation (H, W) in [0, 1): the sum over views of relu(s_j), bilinear, over its maximum plus 1e-5.

    ASSUME: 1e-5 as in psa, so that an expression without activation has an empty mask.
    """
    total = torch.stack([to_pixels(view[j].relu(), size) for view in views]).sum(dim=0)
    return total / (total.max() + 1e-5)


def patch_masks(views: Sequence[Tensor], pooling: str) -> list[Tensor]:
    """m (L, h, w) of every view, for a pooling that has masks."""
    masks = POOLINGS[pooling].masks
    assert masks is not None, f"{pooling} has no masks"
    return [masks(view.movedim(0, -1)).movedim(-1, 0) for view in views]


def mean_pixels(maps: Sequence[Tensor], size: tuple[int, int]) -> Callable[[int], Tensor]:
    """A function from j to map j (H, W): the maps (L, h, w) of all views, bilinear to (H, W), averaged."""
    return lambda j: _mean([to_pixels(of_view[j], size) for of_view in maps])


def to_pixels(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map (h, w) bilinearly to (H, W)."""
    return interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _mean(maps: Sequence[Tensor]) -> Tensor:
    return maps[0] if len(maps) == 1 else torch.stack(list(maps)).mean(dim=0)


def _share(value: Tensor, other: Tensor) -> Tensor:
    """value / (value + other), 0 where both are 0."""
    return value / (value + other + torch.finfo(value.dtype).tiny)


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
