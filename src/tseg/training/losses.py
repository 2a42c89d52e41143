"""The losses: each a scalar to be minimised."""

import math

from torch import Tensor
from torch.nn.functional import (
    avg_pool2d,
    binary_cross_entropy_with_logits,
    interpolate,
    max_pool2d,
    multilabel_soft_margin_loss,
)

INSIDE = 0.5
"""A patch lies in a box when at least this share of its pixels does."""


def classification_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Multi-label soft margin of scores z and targets zbar, both (B, L) (section 3.3, L_cls); the mean over images.

    ASSUME: averaged over expressions, where the paper writes a sum, so that the gradient does not grow with how many
    distinct expressions a batch happens to hold; it is what the library's loss does and what refs. [2, 3] train with.
    """
    return multilabel_soft_margin_loss(scores, targets)


def dice_loss(similarities: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
    """1 - 2 |M * Mbar| / (|M| + |Mbar|) (eq. 9), the mean over P pairs of an image and an expression.

    `similarities` (P, N), the patches of square images in reading order, are interpolated bilinearly to the pixels of
    the true `masks` Mbar, bool (P, R, R); M is their sigmoid. Where `counted`, bool (P, R, R), is False a pixel counts
    in neither.

    ASSUME: a Dice of each pair, averaged, so that every record weighs the same whatever its size, as in the mIoU. A
    pair whose mask is cropped away has the loss 1 and, as eq. 9 has it, no gradient.
    """
    maps = interpolate(_grid(similarities)[:, None], size=masks.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    predicted, true = maps.sigmoid() * counted, (masks & counted).to(maps.dtype)
    overlap = (predicted * true).sum(dim=(1, 2))
    # An empty Mbar has no overlap: there it is all the same what 0 is divided by, if not by 0.
    sizes = (predicted.sum(dim=(1, 2)) + true.sum(dim=(1, 2))).clamp(min=1)
    return (1 - 2 * overlap / sizes).mean()


def box_loss(similarities: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
    """Binary cross-entropy between sigma(s) and whether a patch lies in the box (section 4.4; Table 2e).

    `similarities` (P, N): P pairs of an image and an expression, the patches of square images in reading order;
    `masks`, bool (P, R, R): the boxes filled. The mean over pairs and patches, but for those patches no pixel of which
    is `counted`, bool (P, R, R).

    ASSUME: a patch lies in a box when at least half of its pixels do; all patches weigh the same, though most are
    background: the paper names neither.
    """
    grid = _grid(similarities)
    patch_size = masks.shape[-1] // grid.shape[-1]
    inside = avg_pool2d(masks.to(grid.dtype), patch_size) >= INSIDE
    weight = max_pool2d(counted.to(grid.dtype), patch_size)
    losses = binary_cross_entropy_with_logits(grid, inside.to(grid.dtype), weight, reduction="sum")
    return losses / weight.sum().clamp(min=1)


def _grid(similarities: Tensor) -> Tensor:
    """(P, N) as (P, h, w) with h = w."""
    side = math.isqrt(similarities.shape[1])
    return similarities.unflatten(1, (side, side))
