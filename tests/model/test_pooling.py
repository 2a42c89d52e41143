"""Poolings against float64 NumPy versions written from the paper's equations 2 to 8, one patch sum at a time."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from tseg.model.pooling import (
    POOLINGS,
    Pooling,
    gap,
    gmp,
    gwp,
    mpa,
    mpa_masks,
    pooling,
    size_penalty,
    spa,
    spa_masks,
)

MASKS = {"spa": spa_masks, "mpa": mpa_masks}
SIZE_TERMS = [(size_lambda, power) for size_lambda in (0.0, 0.01, 0.1) for power in (0.0, 1.0, 3.0, 5.0)]
OPTIONS = {"epsilon": 1.0, "size_lambda": 0.01, "size_power": 5.0}
SCORES = {name: partial(POOLINGS[name].score, **(OPTIONS if name in MASKS else {})) for name in POOLINGS}


def random_similarities(images: int = 3, patches: int = 12, expressions: int = 5, tau: float = 5.0) -> Tensor:
    """S in [-tau, tau], float64 (B, N, L)."""
    generator = torch.Generator().manual_seed(0)
    return tau * (2 * torch.rand(images, patches, expressions, generator=generator, dtype=torch.float64) - 1)


def reference_masks(s: np.ndarray, assignment: str) -> np.ndarray:
    """m (N, L) of one image: equations 5 and 6 with s_bg = 0."""
    m = np.empty_like(s)
    for i, j in np.ndindex(*s.shape):
        others = np.exp(s[i]).sum() if assignment == "spa" else np.exp(s[i, j])
        m[i, j] = np.exp(s[i, j]) / (np.exp(0.0) + others)
    return m


def reference_scores(s: np.ndarray, assignment: str, epsilon: float, size_lambda: float, power: float) -> np.ndarray:
    """z (L) of one image: equations 4, 7 and 8."""
    m = reference_masks(s, assignment)
    z = np.zeros(s.shape[1])
    for j in range(s.shape[1]):
        w = m[:, j] / (m[:, j].sum() + epsilon)
        z_gwp = sum(w[i] * s[i, j] for i in range(len(s)))
        size = sum(m[:, j]) / len(s)
        z[j] = z_gwp + (1 - size) ** power * np.log(size_lambda + size)
    return z


def test_the_papers_poolings_are_registered() -> None:
    papers = {
        "gmp": Pooling(gmp, masks=None, exclusive=False),
        "gap": Pooling(gap, masks=None, exclusive=False),
        "spa": Pooling(spa, masks=spa_masks, exclusive=True),
        "mpa": Pooling(mpa, masks=mpa_masks, exclusive=False),
    }
    assert papers == POOLINGS


def test_a_decorated_function_is_a_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    registry: dict[str, Pooling] = {}
    monkeypatch.setattr("tseg.model.pooling.POOLINGS", registry)

    @pooling
    def middle(similarities: Tensor) -> Tensor:
        return similarities.median(dim=1).values

    @pooling(masks=mpa_masks, exclusive=True)
    def sharp(similarities: Tensor, *, temperature: float) -> Tensor:
        return similarities.sum(dim=1) / temperature

    assert registry == {"middle": Pooling(middle, None, False), "sharp": Pooling(sharp, mpa_masks, True)}
    with pytest.raises(AssertionError, match="middle exists already"):
        pooling(middle)


def test_the_registry_is_read_without_torch() -> None:
    code = "import sys; from tseg.model.pooling import POOLINGS; print(*POOLINGS, 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["gmp", "gap", "spa", "mpa", "False"]


def test_gap_is_equation_2() -> None:
    s = random_similarities()
    expected = [[sum(column) / len(column) for column in image.T] for image in s.numpy()]
    np.testing.assert_allclose(gap(s), expected, rtol=1e-12)


def test_gmp_is_equation_3() -> None:
    s = random_similarities()
    expected = [[max(column) for column in image.T] for image in s.numpy()]
    np.testing.assert_array_equal(gmp(s), expected)


@pytest.mark.parametrize("assignment", MASKS)
def test_masks_are_equations_5_and_6(assignment: str) -> None:
    s = random_similarities()
    expected = [reference_masks(image, assignment) for image in s.numpy()]
    np.testing.assert_allclose(MASKS[assignment](s), expected, rtol=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_gwp_is_equation_4(epsilon: float) -> None:
    s = random_similarities()
    m = torch.rand(s.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = m.numpy() / (m.numpy().sum(axis=1, keepdims=True) + epsilon)
    np.testing.assert_allclose(gwp(s, m, epsilon), (weights * s.numpy()).sum(axis=1), rtol=1e-12)


def test_gwp_with_masks_of_one_and_no_epsilon_is_gap() -> None:
    s = random_similarities()
    torch.testing.assert_close(gwp(s, torch.ones_like(s), epsilon=0.0), gap(s), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("size_lambda", "power"), SIZE_TERMS)
def test_size_term_is_equation_7(size_lambda: float, power: float) -> None:
    m = torch.rand(3, 12, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    size = m.numpy().mean(axis=1)
    expected = (1 - size) ** power * np.log(size_lambda + size)
    np.testing.assert_allclose(size_penalty(m, size_lambda, power), expected, rtol=1e-12)


def test_smaller_lambda_penalises_small_masks_more() -> None:
    m = torch.full((1, 100, 1), 0.002)
    penalties = [size_penalty(m, size_lambda, 5.0).item() for size_lambda in (0.0, 0.01, 0.1)]
    assert penalties == sorted(penalties)
    assert penalties[-1] < 0


def test_a_mask_of_the_whole_image_is_not_penalised() -> None:
    assert size_penalty(torch.ones(1, 100, 1), 0.01, 5.0).item() == 0


@pytest.mark.parametrize("assignment", MASKS)
@pytest.mark.parametrize(("size_lambda", "power"), SIZE_TERMS)
def test_weighted_score_is_equation_8(assignment: str, size_lambda: float, power: float) -> None:
    s = random_similarities()
    options = {"epsilon": 1.0, "size_lambda": size_lambda, "size_power": power}
    expected = [reference_scores(image, assignment, 1.0, size_lambda, power) for image in s.numpy()]
    np.testing.assert_allclose(POOLINGS[assignment].score(s, **options), expected, rtol=1e-11)
    np.testing.assert_allclose(POOLINGS[assignment].score(s.float(), **options), expected, rtol=1e-4, atol=1e-5)


def test_spa_masks_sum_with_the_background_to_one() -> None:
    s = random_similarities()
    background = 1 / (1 + np.exp(s.numpy()).sum(axis=-1))
    np.testing.assert_allclose(spa_masks(s).sum(dim=-1).numpy() + background, 1, rtol=1e-12)


def test_spa_gives_patches_of_low_similarity_to_the_background() -> None:
    assert spa_masks(torch.full((1, 1, 4), -9.0)).sum() < 0.001


def test_mpa_mask_does_not_depend_on_the_other_expressions() -> None:
    s = random_similarities()
    for j in range(s.shape[-1]):
        assert torch.equal(mpa_masks(s)[..., j : j + 1], mpa_masks(s[..., j : j + 1]))
        torch.testing.assert_close(SCORES["mpa"](s)[:, j : j + 1], SCORES["mpa"](s[..., j : j + 1]))


def test_spa_mask_shrinks_if_another_expression_is_added() -> None:
    s = random_similarities()
    assert (spa_masks(s)[..., :1] < spa_masks(s[..., :1])).all()


def test_spa_and_mpa_agree_on_a_single_expression() -> None:
    s = random_similarities(expressions=1)
    torch.testing.assert_close(spa_masks(s), mpa_masks(s), rtol=1e-12, atol=0)


@pytest.mark.parametrize("assignment", MASKS)
def test_masks_of_any_similarity_are_finite_shares(assignment: str) -> None:
    s = torch.tensor([[[200.0, -200.0, 0.0], [200.0, 200.0, 200.0], [-200.0, -200.0, -200.0]]])
    masks = MASKS[assignment](s)
    assert ((masks >= 0) & (masks <= 1)).all()


@pytest.mark.parametrize("assignment", MASKS)
@pytest.mark.parametrize("similarity", [-200.0, -87.5, -50.0, 0.0, 50.0, 200.0])
def test_without_lambda_score_and_gradient_stay_finite(assignment: str, similarity: float) -> None:
    """Even where the mean mask rounds to 0 or to 1."""
    s = torch.full((1, 9, 2), similarity, requires_grad=True)
    scores = POOLINGS[assignment].score(s, epsilon=1.0, size_lambda=0.0, size_power=5.0)
    scores.sum().backward()
    assert s.grad is not None
    assert scores.isfinite().all()
    assert s.grad.isfinite().all()


def test_without_lambda_the_gradient_of_the_size_term_does_not_depend_on_the_mask_size() -> None:
    """The size term is log mbar: for m = exp(s), its derivative by s is 1 for any mask size."""
    s = torch.linspace(-87.0, -20.0, 30)[:, None, None].requires_grad_()
    penalties = size_penalty(mpa_masks(s), 0.0, 5.0)
    penalties.sum().backward()
    assert s.grad is not None
    torch.testing.assert_close(penalties.detach(), s.detach()[:, 0], rtol=1e-5, atol=0)
    torch.testing.assert_close(s.grad, torch.ones_like(s), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", POOLINGS)
def test_permuting_expressions_permutes_scores(name: str) -> None:
    s, order = random_similarities(), [3, 0, 4, 1, 2]
    torch.testing.assert_close(SCORES[name](s[..., order]), SCORES[name](s)[:, order])


@pytest.mark.parametrize("name", POOLINGS)
def test_scores_do_not_depend_on_the_order_of_patches(name: str) -> None:
    s = random_similarities()
    torch.testing.assert_close(SCORES[name](s.flip(1)), SCORES[name](s))


@pytest.mark.parametrize("name", POOLINGS)
def test_scores_of_a_batch_are_those_of_its_images(name: str) -> None:
    s = random_similarities()
    torch.testing.assert_close(SCORES[name](s), torch.cat([SCORES[name](image[None]) for image in s]))


@pytest.mark.parametrize("name", POOLINGS)
def test_gradient_is_that_of_the_equations(name: str) -> None:
    """Finite differences: nothing between S and z is detached."""
    s = random_similarities(images=1, patches=4, expressions=3, tau=2.0).requires_grad_()
    assert torch.autograd.gradcheck(SCORES[name], (s,))
