from collections.abc import Callable

import numpy as np
import pytest
import torch

from tseg.training.losses import box_loss, classification_loss, dice_loss, overlap_loss


def reference_loss(z: np.ndarray, zbar: np.ndarray) -> np.ndarray:
    """L_cls of section 3.3 for each image of (B, L), in float64."""

    def sigma(x: float) -> float:
        return 1 / (1 + np.exp(-x))

    return np.array(
        [
            sum(-y * np.log(sigma(x)) - (1 - y) * np.log(sigma(-x)) for x, y in zip(scores, targets, strict=True))
            for scores, targets in zip(z, zbar, strict=True)
        ]
    )


def random_scores() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = 8 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    return scores, (torch.rand(6, 9, generator=generator) < 0.3).double()


def test_loss_is_the_papers_averaged_over_images_and_expressions() -> None:
    scores, targets = random_scores()
    expected = reference_loss(scores.numpy(), targets.numpy()).mean() / scores.shape[1]
    np.testing.assert_allclose(classification_loss(scores, targets), expected, rtol=1e-12)
    np.testing.assert_allclose(classification_loss(scores.float(), targets.float()), expected, rtol=1e-5)


def test_the_sum_over_expressions_is_the_papers_averaged_over_images() -> None:
    scores, targets = random_scores()
    expected = reference_loss(scores.numpy(), targets.numpy()).mean()
    np.testing.assert_allclose(classification_loss(scores, targets, over_expressions="sum"), expected, rtol=1e-12)


def test_pairs_that_do_not_count_have_no_part_in_mean_and_sum() -> None:
    scores, targets = random_scores()
    counted = (torch.rand(6, 9, generator=torch.Generator().manual_seed(1)) < 0.7).double()
    of_pairs = [
        [reference_loss(z[None, None], y[None, None]).item() for z, y in zip(*rows, strict=True)]
        for rows in zip(scores.numpy(), targets.numpy(), strict=True)
    ]
    own = np.array(of_pairs)[counted.numpy() == 1]
    assert 30 < len(own) < 46
    np.testing.assert_allclose(classification_loss(scores, targets, counted), own.mean(), rtol=1e-12)
    summed = classification_loss(scores, targets, counted, over_expressions="sum")
    np.testing.assert_allclose(summed, own.sum() / 6, rtol=1e-12)
    (gradient,) = torch.autograd.grad(classification_loss(scores.requires_grad_(), targets, counted), scores)
    assert torch.equal(gradient != 0, counted == 1)


def test_loss_pushes_positive_scores_up_and_negative_ones_down() -> None:
    scores, targets = random_scores()
    (gradient,) = torch.autograd.grad(classification_loss(scores.requires_grad_(), targets), scores)
    assert (gradient[targets == 1] < 0).all()
    assert (gradient[targets == 0] > 0).all()


def test_loss_of_any_finite_scores_is_finite() -> None:
    scores = torch.tensor([[300.0, -300.0]])
    assert classification_loss(scores, torch.tensor([[1.0, 0.0]])).item() == 0
    assert classification_loss(scores, torch.tensor([[0.0, 1.0]])).item() == 300


def to_pixels(maps: np.ndarray, resolution: int) -> np.ndarray:
    """Square maps (P, h, h) interpolated bilinearly to (P, resolution, resolution), with aligned pixel centres."""
    side = maps.shape[-1]
    positions = ((np.arange(resolution) + 0.5) * side / resolution - 0.5).clip(0, side - 1)
    # The weight of a coarse pixel in a fine one decreases linearly with their distance.
    shares = (1 - np.abs(positions[:, None] - np.arange(side))).clip(min=0)
    return np.einsum("yi,pij,xj->pyx", shares, maps, shares)


def random_pairs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Similarities (5, 16) of images of 12 x 12 pixels, masks, and which pixels count."""
    generator = torch.Generator().manual_seed(0)
    similarities = 4 * torch.randn(5, 16, generator=generator, dtype=torch.float64)
    noise = torch.rand(2, 5, 12, 12, generator=generator)
    return similarities, noise[0] < 0.3, noise[1] < 0.8


def test_dice_is_equation_9_over_counted_pixels_averaged_over_pairs() -> None:
    similarities, masks, counted = random_pairs()
    m = 1 / (1 + np.exp(-to_pixels(similarities.numpy().reshape(5, 4, 4), 12)))
    dice = []
    for pair in range(5):
        own = counted[pair].numpy()
        predicted, true = m[pair][own], masks[pair].numpy()[own]
        dice.append(1 - 2 * (predicted * true).sum() / (predicted.sum() + true.sum()))
    np.testing.assert_allclose(dice_loss(similarities, masks, counted), np.mean(dice), rtol=1e-12)
    np.testing.assert_allclose(dice_loss(similarities.float(), masks, counted), np.mean(dice), rtol=1e-5)


def test_dice_is_differentiable_as_its_equation_says() -> None:
    similarities, masks, counted = random_pairs()
    assert torch.autograd.gradcheck(lambda s: dice_loss(s, masks, counted), similarities.requires_grad_())


def test_dice_is_0_for_the_mask_itself_and_1_for_its_complement() -> None:
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[:, :, 4:] = True
    sure = torch.where(masks, 100.0, -100.0).flatten(1)
    everywhere = torch.ones_like(masks)
    assert dice_loss(sure, masks, everywhere).item() == 0
    assert dice_loss(-sure, masks, everywhere).item() == 1


@pytest.mark.parametrize("loss", [dice_loss, box_loss])
def test_the_truth_at_pixels_that_do_not_count_changes_nothing(loss: Callable[..., torch.Tensor]) -> None:
    """Whole patches of 3 x 3 pixels do not count."""
    similarities, masks, _ = random_pairs()
    patches = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    counted = patches.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)
    ours, theirs = loss(similarities, masks, counted), loss(similarities, masks ^ ~counted, counted)
    assert ours == theirs
    assert ours != loss(similarities, masks ^ counted, counted)


@pytest.mark.parametrize("similarity", [0.0, -30.0, -2000.0, 2000.0])
def test_an_empty_cropped_mask_has_a_finite_dice_loss_without_gradient(similarity: float) -> None:
    similarities = torch.full((1, 16), similarity, requires_grad=True)
    nothing = torch.zeros(1, 12, 12, dtype=torch.bool)
    for counted in (~nothing, nothing):
        loss = dice_loss(similarities, nothing, counted)
        (gradient,) = torch.autograd.grad(loss, similarities)
        assert loss.item() == 1
        assert (gradient == 0).all()


def grid(text: str) -> torch.Tensor:
    return torch.tensor([[[letter == "#" for letter in line] for line in text.split()]])


def test_a_patch_lies_in_a_box_if_half_of_its_pixels_do() -> None:
    """Patches of 2 x 2 pixels: 4, 2, 2 (upright) and 1 of them; the gradient at 0 is negative where s should rise."""
    boxes = grid(
        """
        ...##...
        ...##...
        #####...
        #####..#
        ##......
        ........
        ......##
        ......##
        """
    )
    inside = grid(
        """
        .##.
        ###.
        #...
        ...#
        """
    )
    similarities = torch.zeros(1, 16, requires_grad=True)
    loss = box_loss(similarities, boxes, torch.ones_like(boxes))
    (gradient,) = torch.autograd.grad(loss, similarities)
    assert torch.equal(gradient.reshape(1, 4, 4) < 0, inside)
    np.testing.assert_allclose(gradient.abs(), 0.5 / 16, rtol=1e-6)


def test_a_patch_counts_if_any_of_its_pixels_does() -> None:
    counted = grid(
        """
        ....
        ....
        #.##
        ..##
        """
    )
    similarities = torch.zeros(1, 4, requires_grad=True)
    loss = box_loss(similarities, torch.zeros_like(counted), counted)
    (gradient,) = torch.autograd.grad(loss, similarities)
    assert gradient.tolist() == [[0, 0, 0.25, 0.25]]
    assert loss.item() == pytest.approx(np.log(2))
    assert box_loss(similarities, counted, torch.zeros_like(counted)).item() == 0


def test_box_loss_is_the_binary_cross_entropy_over_counted_patches_of_all_pairs() -> None:
    similarities, masks, counted = random_pairs()
    counted[:, :6, :3] = False
    pixels = [array.numpy().reshape(5, 4, 3, 4, 3).swapaxes(2, 3).reshape(5, 16, 9) for array in (masks, counted)]
    y, counts = pixels[0].mean(axis=2) >= 0.5, pixels[1].any(axis=2)
    sigma = 1 / (1 + np.exp(-similarities.numpy()))
    losses = np.where(y, -np.log(sigma), -np.log(1 - sigma))
    assert counts.sum() == 70
    np.testing.assert_allclose(box_loss(similarities, masks, counted), losses[counts].mean(), rtol=1e-12)


def test_overlap_is_the_cosine_of_two_masks_averaged_over_pairs() -> None:
    ones, others = torch.rand(2, 5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = ones.numpy(), others.numpy()
    cosines = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    np.testing.assert_allclose(overlap_loss(ones, others), cosines.mean(), rtol=1e-12)
    np.testing.assert_allclose(overlap_loss(others, ones), cosines.mean(), rtol=1e-12)
    assert torch.autograd.gradcheck(overlap_loss, (ones.requires_grad_(), others.requires_grad_()))


def test_overlap_is_1_for_equal_masks_and_0_for_separate_ones_however_faint() -> None:
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    for strength in (1.0, 0.5, 0.01):
        assert overlap_loss(strength * mask, mask).item() == pytest.approx(1)
        assert overlap_loss(mask, strength * (1 - mask)) == 0
        half = strength * torch.tensor([[0.0, 1.0, 1.0, 0.0]])
        assert overlap_loss(mask, half).item() == pytest.approx(0.5)


def test_overlap_of_no_pairs_or_of_nothing_is_0_without_gradient() -> None:
    for masks in (torch.zeros(0, 4, requires_grad=True), torch.zeros(2, 4, requires_grad=True)):
        loss = overlap_loss(masks, masks)
        (gradient,) = torch.autograd.grad(loss, masks)
        assert loss == 0
        assert not gradient.any()
