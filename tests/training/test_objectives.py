"""Each objective applies its loss to the right similarities."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tseg.model.pooling import mpa_masks
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


def test_weak_leaves_out_pairs_that_do_not_count_and_sums_over_expressions(batch: Batch, similarities: Tensor) -> None:
    counted = torch.ones(B, L)
    counted[1, 2:] = 0
    loss = objectives.weak(
        similarities,
        batch,
        score=lambda s: s.mean(dim=1),
        targets=lambda *_: torch.eye(B, L),
        counted=lambda *_: counted,
        over_expressions="sum",
    )
    z, zbar = similarities.double().mean(dim=1).numpy(), np.eye(B, L)
    losses = np.where(zbar, np.log(1 + np.exp(-z)), np.log(1 + np.exp(z)))
    assert loss.item() == pytest.approx((losses * counted.numpy()).sum() / B, rel=1e-5)


def test_different_regions_of_an_image_are_apart_by_the_overlap_of_their_masks(
    batch: Batch, similarities: Tensor
) -> None:
    """Written out in float64; only the pairs in `apart` have a gradient."""
    triples = [(0, 1, 4), (2, 4, 0), (2, 1, 3)]
    apart = dataclasses.replace(batch, apart=torch.tensor(triples))
    own = similarities.requires_grad_()
    loss = objectives.weak_apart(own, apart, weak=lambda s, _: 0 * s.sum() + 2.0, masks=mpa_masks, weight=0.3)
    m = 1 / (1 + np.exp(-similarities.detach().double().numpy()))
    pairs = [(m[b, :, j], m[b, :, k]) for b, j, k in triples]
    cosines = [(one @ other) / np.sqrt((one @ one) * (other @ other)) for one, other in pairs]
    assert loss.item() == pytest.approx(2 + 0.3 * np.mean(cosines), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, own)
    taught = {(b, j) for b, *pair in triples for j in pair}
    assert {tuple(pair) for pair in (gradient.abs().sum(dim=1) > 0).nonzero().tolist()} == taught


def test_a_step_against_the_overlap_separates_masks_and_does_not_empty_them() -> None:
    """Both masks hold the first patch and shrink there; the third is the second mask's alone, which grows there."""
    s = torch.tensor([[[2.0, 2.0], [2.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]]], requires_grad=True)
    batch = Batch(torch.zeros(1, 3, R, R), ["one", "two"], [frozenset({"one", "two"})], apart=torch.tensor([[0, 0, 1]]))
    loss = objectives.weak_apart(s, batch, weak=lambda s, _: 0 * s.sum(), masks=mpa_masks, weight=1.0)
    (gradient,) = torch.autograd.grad(loss, s)
    assert (gradient[0, 0] > 0).all()
    assert gradient[0, 2, 1] < 0
    moved = s.detach() - 5 * gradient
    after = objectives.weak_apart(moved, batch, weak=lambda s, _: 0 * s.sum(), masks=mpa_masks, weight=1.0)
    assert after < loss


def coverage_by_hand(similarities: Tensor, pairs: list[tuple[int, int]]) -> dict[str, float]:
    marked = [(similarities[image, :, expression] > 0).sum().item() for image, expression in pairs]
    return {"foreground": sum(marked) / (N * len(pairs)), "empty": marked.count(0) / len(pairs)}


def test_coverage_is_that_of_images_and_their_own_expressions(batch: Batch, similarities: Tensor) -> None:
    """The first image has "one" and "four", the third "zero" and "four"; "six" was not drawn."""
    similarities[0, :, 4] = -1
    weak = dataclasses.replace(batch, pairs=None, masks=None, counted=None)
    own = [(0, 1), (0, 4), (2, 0), (2, 4)]
    assert objectives.coverage(similarities, weak) == pytest.approx(coverage_by_hand(similarities, own))
    assert objectives.coverage(similarities, weak)["empty"] == 0.25


def test_coverage_of_pixels_is_that_of_the_drawn_pairs(batch: Batch, similarities: Tensor) -> None:
    similarities[2, :, 0] = 0
    few = dataclasses.replace(batch, pairs=torch.tensor([[0, 4], [2, 0]]))
    assert objectives.coverage(similarities, few) == pytest.approx(coverage_by_hand(similarities, [(0, 4), (2, 0)]))
    assert objectives.coverage(similarities, few)["empty"] == 0.5


def test_a_student_learns_masks_of_pairs_and_the_absence_of_other_expressions(
    batch: Batch, similarities: Tensor
) -> None:
    """Dice of the pairs, plus log(1 + exp(s)) over the patches of every image and expression that is not its own."""
    s = similarities.double().numpy()
    own = np.array([[expression in positives for expression in batch.expressions] for positives in batch.positives])
    absent = np.log1p(np.exp(s)).transpose(0, 2, 1)[~own].mean()
    expected = objectives.full(similarities, batch).item() + 0.5 * absent
    assert objectives.pseudo(similarities, batch, absent_weight=0.5).item() == pytest.approx(expected, rel=1e-5)


def test_without_absent_expressions_a_student_learns_masks_alone(batch: Batch, similarities: Tensor) -> None:
    everything = dataclasses.replace(batch, positives=[frozenset(batch.expressions)] * B)
    loss = objectives.pseudo(similarities, everything, absent_weight=1.0)
    assert loss == objectives.full(similarities, everything) and loss.isfinite()
