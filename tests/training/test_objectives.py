"""Each objective applies its loss to the right similarities."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tseg.training import objectives
from tseg.training.batches import Batch
from tseg.training.losses import box_loss, classification_loss, dice_loss

B, N, L, P, R = 3, 16, 5, 4, 8


@pytest.fixture
def batch() -> Batch:
    """Two pairs of one image and two of one expression; the second image and two expressions have none."""
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.zeros(B, 3, R, R),
        expressions=["zero", "one", "two", "three", "four"],
        positives=[frozenset({"one", "four"}), frozenset({"six"}), frozenset({"zero", "four"})],
        pairs=torch.tensor([[0, 1], [0, 4], [2, 4], [2, 0]]),
        masks=torch.rand(P, R, R, generator=generator) < 0.5,
        counted=torch.rand(P, R, R, generator=generator) < 0.9,
    )


@pytest.fixture
def similarities() -> Tensor:
    return 3 * torch.randn(B, N, L, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("objective", "loss"), [(objectives.full, dice_loss), (objectives.boxes, box_loss)])
def test_the_loss_of_pixels_uses_each_pairs_similarities(
    batch: Batch, similarities: Tensor, objective: objectives.Objective, loss: Callable[..., Tensor]
) -> None:
    assert batch.pairs is not None
    own = torch.stack([similarities[image, :, expression] for image, expression in batch.pairs.tolist()])
    expected = loss(own, batch.masks, batch.counted)
    assert objective(similarities, batch) == expected


@pytest.mark.parametrize("objective", [objectives.full, objectives.boxes])
def test_only_pairs_have_a_gradient(batch: Batch, similarities: Tensor, objective: objectives.Objective) -> None:
    """Images and expressions that are not a pair have no gradient."""
    (gradient,) = torch.autograd.grad(objective(similarities.requires_grad_(), batch), similarities)
    taught = torch.zeros(B, L, dtype=torch.bool)
    for image, expression in ((0, 1), (0, 4), (2, 4), (2, 0)):
        taught[image, expression] = True
    assert torch.equal(gradient.abs().sum(dim=1) > 0, taught)


def test_weak_scores_every_image_against_every_expression(batch: Batch, similarities: Tensor) -> None:
    def targets(positives: object, expressions: object) -> Tensor:
        assert (positives, expressions) == (batch.positives, batch.expressions)
        return torch.eye(B, L)

    expected = classification_loss(similarities.sum(dim=1), torch.eye(B, L))
    assert objectives.weak(similarities, batch, score=lambda s: s.sum(dim=1), targets=targets) == expected
