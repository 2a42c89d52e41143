import numpy as np
import torch

from tseg.training.losses import classification_loss


def reference_loss(z: np.ndarray, zbar: np.ndarray) -> np.ndarray:
    """L_cls of section 3.3 for each picture of (B, L), in float64."""

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


def test_loss_is_the_papers_averaged_over_pictures_and_expressions() -> None:
    scores, targets = random_scores()
    expected = reference_loss(scores.numpy(), targets.numpy()).mean() / scores.shape[1]
    np.testing.assert_allclose(classification_loss(scores, targets), expected, rtol=1e-12)
    np.testing.assert_allclose(classification_loss(scores.float(), targets.float()), expected, rtol=1e-5)


def test_loss_pushes_positive_scores_up_and_negative_ones_down() -> None:
    scores, targets = random_scores()
    (gradient,) = torch.autograd.grad(classification_loss(scores.requires_grad_(), targets), scores)
    assert (gradient[targets == 1] < 0).all()
    assert (gradient[targets == 0] > 0).all()


def test_loss_of_scores_however_large_is_finite() -> None:
    scores = torch.tensor([[300.0, -300.0]])
    assert classification_loss(scores, torch.tensor([[1.0, 0.0]])).item() == 0
    assert classification_loss(scores, torch.tensor([[0.0, 1.0]])).item() == 300
