"""Objectives: from the similarities of a batch to its loss, one per kind of supervision.

Each is a function of S, float32 (B, N, L), and the batch; those of weak supervision also take what the settings choose.
"""

from collections.abc import Callable, Sequence, Set
from typing import Literal

from torch import Tensor

from tseg.training.batches import Batch
from tseg.training.losses import absence_loss, box_loss, classification_loss, dice_loss, overlap_loss
from tseg.training.targets import identity_targets

Objective = Callable[[Tensor, Batch], Tensor]
OfPairs = Callable[[Sequence[Set[str]], Sequence[str]], Tensor]
"""Maps the images' positives and the batch's expressions to a value for each pair of the two, (B, L)."""


def weak(
    similarities: Tensor,
    batch: Batch,
    *,
    score: Callable[[Tensor], Tensor],
    targets: OfPairs,
    counted: OfPairs | None = None,
    over_expressions: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """`classification_loss` of every image against every expression (section 3.3, "Weakly-supervised learning").

    `score` maps S to z (B, L), `targets` gives zbar, and `counted` is 0 for pairs that the loss leaves out.
    """
    zbar, *counts = (
        of_pairs(batch.positives, batch.expressions).to(similarities.device, non_blocking=True)
        for of_pairs in (targets, counted)
        if of_pairs is not None
    )
    return classification_loss(score(similarities), zbar, *counts, over_expressions=over_expressions)


def weak_apart(
    similarities: Tensor, batch: Batch, *, weak: Objective, masks: Callable[[Tensor], Tensor], weight: float
) -> Tensor:
    """`weak` plus `weight` times `overlap_loss` of the masks of different regions of an image (not in the paper).

    `masks` maps S to m (B, N, L), as in `tseg.model.pooling`.
    """
    assert batch.apart is not None, "WeakBatches with apart=True only"
    image, one, other = batch.apart.to(similarities.device).unbind(dim=1)
    of_images = masks(similarities)
    overlap = overlap_loss(of_images[image, :, one], of_images[image, :, other])
    return weak(similarities, batch) + weight * overlap


def full(similarities: Tensor, batch: Batch) -> Tensor:
    """`dice_loss` of the batch's pairs against their masks (section 3.3, "Fully-supervised learning")."""
    return dice_loss(*_of_pairs(similarities, batch))


def pseudo(similarities: Tensor, batch: Batch, *, absent_weight: float) -> Tensor:
    """`full` against pseudo labels, plus the weighted `absence_loss` of each image and the expressions it lacks.

    Without the second term, a student that sees only expressions of its images finds every expression everywhere.
    """
    absent = (identity_targets(batch.positives, batch.expressions) == 0).nonzero()
    image, expression = absent.to(similarities.device, non_blocking=True).unbind(dim=1)
    return full(similarities, batch) + absent_weight * absence_loss(similarities[image, :, expression])


def boxes(similarities: Tensor, batch: Batch) -> Tensor:
    """`box_loss` of the batch's pairs against their boxes (section 4.4; Table 2e)."""
    return box_loss(*_of_pairs(similarities, batch))


def coverage(similarities: Tensor, batch: Batch) -> dict[str, float]:
    """What inference would mark in the batch's images for their own expressions: patches with s > 0.

    `foreground` is the share of such patches, averaged over the pairs of an image and an expression that it has (with
    pixels: over the batch's pairs); `empty` is the share of the pairs without any.
    """
    pairs = identity_targets(batch.positives, batch.expressions).nonzero() if batch.pairs is None else batch.pairs
    image, expression = pairs.to(similarities.device).unbind(dim=1)
    shares = (similarities[image, :, expression] > 0).float().mean(dim=1)
    return {"foreground": float(shares.mean()), "empty": float((shares == 0).float().mean())}


def _of_pairs(similarities: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Similarities (P, N), masks and counted pixels of the batch's pairs, all on the device of the similarities."""
    assert batch.pairs is not None and batch.masks is not None and batch.counted is not None, "pixel batches only"
    device = similarities.device
    image, expression = batch.pairs.to(device).unbind(dim=1)
    return similarities[image, :, expression], batch.masks.to(device), batch.counted.to(device)
