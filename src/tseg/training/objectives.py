"""Objectives: from the similarities of a batch to its loss, one per kind of supervision.

Each is a function of S, float32 (B, N, L), and the batch; `weak` also takes its pooling and its targets.
"""

from collections.abc import Callable, Sequence, Set

from torch import Tensor

from tseg.training.batches import Batch
from tseg.training.losses import box_loss, classification_loss, dice_loss

Objective = Callable[[Tensor, Batch], Tensor]


def weak(
    similarities: Tensor,
    batch: Batch,
    *,
    score: Callable[[Tensor], Tensor],
    targets: Callable[[Sequence[Set[str]], Sequence[str]], Tensor],
) -> Tensor:
    """`classification_loss` of every image against every expression (section 3.3, "Weakly-supervised learning").

    `score` maps S to z (B, L); `targets` maps the images' positives and the batch's expressions to zbar (B, L).
    """
    return classification_loss(score(similarities), targets(batch.positives, batch.expressions).to(similarities.device))


def full(similarities: Tensor, batch: Batch) -> Tensor:
    """`dice_loss` of the batch's pairs against their masks (section 3.3, "Fully-supervised learning")."""
    return dice_loss(*_of_pairs(similarities, batch))


def boxes(similarities: Tensor, batch: Batch) -> Tensor:
    """`box_loss` of the batch's pairs against their boxes (section 4.4; Table 2e)."""
    return box_loss(*_of_pairs(similarities, batch))


def _of_pairs(similarities: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Similarities (P, N), masks and counted pixels of the batch's pairs, all on the device of the similarities."""
    assert batch.pairs is not None and batch.masks is not None and batch.counted is not None, "pixel batches only"
    device = similarities.device
    image, expression = batch.pairs.to(device).unbind(dim=1)
    return similarities[image, :, expression], batch.masks.to(device), batch.counted.to(device)
