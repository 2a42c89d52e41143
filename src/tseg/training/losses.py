"""Loss functions; each returns a scalar to minimise."""

import math
from typing import Literal

from torch import Tensor
from torch.nn.functional import (
    avg_pool2d,
    binary_cross_entropy_with_logits,
    cosine_similarity,
    interpolate,
    max_pool2d,
    multilabel_soft_margin_loss,
    softplus,
)

INSIDE = 0.5
"""A patch lies in a box if at least this share of its pixels does."""


def classification_loss(
    scores: Tensor,
    targets: Tensor,
    counted: Tensor | None = None,
    *,
    over_expressions: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Multi-label soft margin of scores z and targets zbar, both (B, L) (section 3.3, L_cls), averaged over images.

    `over_expressions`: the mean over all pairs of an image and an expression, or the paper's sum over the expressions.
    Pairs with a 0 in `counted`, (B, L) of 0 and 1, have no part in either.

    ASSUME: the default is the mean, where the paper writes a sum, so that the gradient does not grow with the number of
    distinct expressions in a batch. PyTorch's loss and refs. [2, 3] do the same.
    """
    loss = multilabel_soft_margin_loss(scores, targets, counted)
    if over_expressions == "sum":
        return loss * scores.shape[1]
    return loss if counted is None else loss / counted.mean()


def overlap_loss(ones: Tensor, others: Tensor) -> Tensor:
    """sum_i m_ij m_ik / sqrt(sum_i m_ij^2 sum_i m_ik^2): the cosine of masks m_j and m_k, averaged over Q such pairs.

    `ones` and `others`: soft masks, (Q, N) in [0, 1]. The value is 1 for equal masks, and 0 for masks without a common
    patch or if Q is 0. Unlike Dice's, it does not fall if both masks become fainter.
    """
    return cosine_similarity(ones, others, dim=1).sum() / max(1, len(ones))


def dice_loss(similarities: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
    """1 - 2 |M * Mbar| / (|M| + |Mbar|) (eq. 9), averaged over P pairs of an image and an expression.

    `similarities` (P, N), with the patches of square images in reading order, are interpolated bilinearly to the pixels
    of the true `masks` Mbar, bool (P, R, R); M is their sigmoid. Pixels where `counted`, bool (P, R, R), is False are
    excluded from both.

    ASSUME: Dice is computed per pair and averaged, so that every record has the same weight whatever its size, as in
    mIoU. A pair whose mask is cropped away has a loss of 1 and, following eq. 9, no gradient.
    """
    maps = interpolate(_grid(similarities)[:, None], size=masks.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    predicted, true = maps.sigmoid() * counted, (masks & counted).to(maps.dtype)
    overlap = (predicted * true).sum(dim=(1, 2))
    # If Mbar is empty, the overlap is 0; clamp only to avoid 0/0.
    sizes = (predicted.sum(dim=(1, 2)) + true.sum(dim=(1, 2))).clamp(min=1)
    return (1 - 2 * overlap / sizes).mean()


def absence_loss(similarities: Tensor) -> Tensor:
    """Binary cross-entropy, log(1 + exp(s)), of similarities (P, N) of pairs whose image lacks the expression."""
    return softplus(similarities).mean() if len(similarities) else similarities.sum()


def box_loss(similarities: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
    """Binary cross-entropy between sigma(s) and whether a patch lies in the box (section 4.4; Table 2e).

    `similarities` (P, N): P pairs of an image and an expression, with the patches of square images in reading order;
    `masks`, bool (P, R, R): the filled boxes. Averaged over pairs and patches; patches without any pixel in `counted`,
    bool (P, R, R), are excluded.

    ASSUME: a patch lies in a box if at least half of its pixels do, and all patches have the same weight, though most
    are background. The paper specifies neither.
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
