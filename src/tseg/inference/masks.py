"""From patch-level similarities to masks at the image's own resolution (section 3.3, "Inference")."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.images import open_image
from tseg.inference.crf import refine_masks
from tseg.model.pooling import POOLINGS
from tseg.records import MASKS, encode_mask, images_of

FOREGROUND = 0.5
"""A pixel belongs to the mask if its foreground probability is strictly above this."""

COMPARISON = f"foreground probability > {FOREGROUND}"
"""When a pixel belongs to a mask; summaries and tables state it."""


def mask_records(
    records: pd.DataFrame, predictions: pd.DataFrame, *, pooling: str | None, background: float, crf: str | None
) -> pa.Table:
    """Compute the mask of every record from the rows of `predict_records`: a table of `MASKS`.

    For `pooling`, `background` and `crf` see `segment_masks`. Raises ValueError if a record has no prediction.
    """
    maps = similarity_maps(predictions)
    questions = zip(records["record_id"], records["image_id"], records["expression"], strict=True)
    missing = [record_id for record_id, *question in questions if tuple(question) not in maps]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(records)} records have no prediction, {min(missing)} for one; "
            "predict these records again"
        )
    rows = []
    for file_name, of_image, expressions in images_of(records, "refine"):
        masks = segment_masks(
            stack_maps(maps, of_image["image_id"].iloc[0], expressions),
            open_image(file_name),
            pooling=pooling,
            background=background,
            crf=crf,
        )
        encoded = dict(zip(expressions, map(encode_mask, masks), strict=True))
        rows += [
            {"record_id": record_id, "mask": encoded[expression]}
            for record_id, expression in zip(of_image["record_id"], of_image["expression"], strict=True)
        ]
    return pa.Table.from_pylist(rows, schema=MASKS)


Maps = dict[tuple[str, str], np.ndarray]
"""(image_id, expression) to the similarities, float16 (h, w)."""


def similarity_maps(predictions: pd.DataFrame) -> Maps:
    """Index the rows of `predict_records` by image and expression."""
    columns = predictions[["image_id", "expression", "grid_height", "grid_width", "similarities"]].to_numpy()
    return {(image_id, expression): values.reshape(grid) for image_id, expression, *grid, values in columns}


def stack_maps(maps: Maps, image_id: str, expressions: Sequence[str]) -> Tensor:
    """Stack the similarities of L expressions in one image: float32 (L, h, w)."""
    return torch.from_numpy(np.stack([maps[image_id, expression] for expression in expressions]).astype(np.float32))


def segment_masks(
    similarities: Tensor, image: Image.Image, *, pooling: str | None, background: float, crf: str | None
) -> np.ndarray:
    """Segment an RGB image of W x H pixels by L expressions: masks, bool (L, H, W).

    `similarities` is float32 (L, h, w), from a model trained with `pooling`; None for full supervision or boxes.
    `background` is used by gap and gmp only (see `foreground_probabilities`). `crf` names a preset of `crf.PRESETS`;
    None skips the refinement.
    """
    size = image.height, image.width
    probabilities = foreground_probabilities(similarities, pooling, size, background).numpy()
    if crf is not None:
        probabilities = refine_masks(np.asarray(image), probabilities, crf)
    return probabilities > FOREGROUND


def foreground_probabilities(
    similarities: Tensor, pooling: str | None, size: tuple[int, int], background: float
) -> Tensor:
    """Probabilities, (L, H, W), that pixels belong to L expressions, from the similarities (L, h, w) of one image.

    The dtype is that of `similarities`, float32 or float64. For every pooling, the mask is where the probability
    exceeds 1/2, and the probability is the unary of the CRF:

    - poolings with masks, such as mpa: m of eq. 6, bilinear to (H, W). It exceeds 1/2 where s > s_bg = 0.
    - poolings with exclusive masks, such as spa: m of eq. 5 over the image's expressions and the background, bilinear;
      then m_j / (m_j + max of the others). It exceeds 1/2 where the argmax is j.
    - poolings without masks, gap and gmp: activation a = relu(s), bilinear, divided by its maximum over the image;
      then a / (a + `background`). It exceeds 1/2 where a > `background` (psa's constant background score).
    - None, for full supervision or boxes: s bilinear to (H, W), then its sigmoid, as in training (eq. 9).
    """
    if pooling is None:
        return _to_pixels(similarities, size).sigmoid()
    if POOLINGS[pooling].masks is None:
        activation = _to_pixels(similarities.relu(), size)
        # ASSUME: 1e-5 as in psa, so that an expression without activation has an empty mask.
        activation = activation / (activation.amax(dim=(1, 2), keepdim=True) + 1e-5)
        return activation / (activation + background)
    masks = pixel_masks(similarities, pooling, size)
    if POOLINGS[pooling].exclusive:
        return masks / (masks + _strongest_other(masks) + torch.finfo(masks.dtype).tiny)
    return masks


def pixel_masks(similarities: Tensor, pooling: str, size: tuple[int, int]) -> Tensor:
    """m of a pooling that has masks, from similarities (L, h, w), bilinear to (L, H, W)."""
    masks = POOLINGS[pooling].masks
    assert masks is not None, f"{pooling} has no masks"
    return _to_pixels(masks(similarities.movedim(0, -1)).movedim(-1, 0), size)


def _to_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (L, h, w) bilinearly to (L, H, W)."""
    return interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def _strongest_other(masks: Tensor) -> Tensor:
    """For each of the masks (L, H, W), the maximum of the other masks and of the background, 1 - their sum."""
    everything = torch.cat([masks, 1 - masks.sum(dim=0, keepdim=True)])
    largest = everything.topk(2, dim=0)
    is_largest = largest.indices[:1] == torch.arange(len(masks))[:, None, None]
    return torch.where(is_largest, largest.values[1:], largest.values[:1])
