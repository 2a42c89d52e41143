"""The mask rules of section 3.3, each against the paper's definition."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.inference.crf import refine_masks
from tseg.inference.masks import foreground_probabilities, segment_masks

HEIGHT, WIDTH = 37, 53
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def random_similarities(expressions: int = 4, rows: int = 5, columns: int = 7, tau: float = 5.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return tau * (2 * torch.rand(expressions, rows, columns, generator=generator) - 1)


def to_pixels(maps: Tensor) -> np.ndarray:
    return interpolate(maps[None], size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False)[0].numpy()


def masks(similarities: Tensor, pooling: str | None, background: float = 0.2, crf: str | None = None) -> np.ndarray:
    found = segment_masks(similarities, IMAGE, pooling=pooling, background=background, crf=crf)
    assert found.dtype == bool
    assert found.shape == (len(similarities), HEIGHT, WIDTH)
    return found


def test_mpa_thresholds_the_interpolated_m_at_the_background_score() -> None:
    s = random_similarities()
    m = to_pixels(s.exp() / (np.exp(0) + s.exp()))
    np.testing.assert_array_equal(masks(s, "mpa"), m > 0.5)


def test_mpa_mask_does_not_depend_on_the_other_expressions() -> None:
    s = random_similarities()
    alone = [masks(s[j : j + 1], "mpa") for j in range(len(s))]
    np.testing.assert_array_equal(masks(s, "mpa"), np.concatenate(alone))


def test_mpa_masks_may_overlap() -> None:
    s = random_similarities()[:1].repeat(2, 1, 1)
    np.testing.assert_array_equal(*masks(s, "mpa"))


def test_mpa_at_the_patches_own_grid_is_the_sign_of_s() -> None:
    s = random_similarities(rows=HEIGHT, columns=WIDTH)
    np.testing.assert_array_equal(masks(s, "mpa"), s.numpy() > 0)


@pytest.mark.parametrize("expressions", [1, 2, 6])
def test_spa_is_the_argmax_over_interpolated_masks_and_background(expressions: int) -> None:
    s = random_similarities(expressions)
    shares = torch.cat([torch.zeros_like(s[:1]), s]).exp()  # exp(s_bg) = 1 first
    labels = to_pixels(shares / shares.sum(dim=0)).argmax(axis=0)
    expected = np.stack([labels == j + 1 for j in range(expressions)])
    assert expected.any(axis=(1, 2)).all()
    assert not expected.any(axis=0).all()
    np.testing.assert_array_equal(masks(s, "spa"), expected)


def test_spa_masks_do_not_overlap() -> None:
    assert masks(random_similarities(8), "spa").sum(axis=0).max() == 1


@pytest.mark.parametrize("pooling", ["gap", "gmp"])
@pytest.mark.parametrize("background", [0.1, 0.2, 0.5])
def test_gap_and_gmp_threshold_max_normalised_activations_at_the_background(pooling: str, background: float) -> None:
    """psa: ReLU, divided by the maximum plus 1e-5, against a constant background score."""
    activation = to_pixels(random_similarities().clamp(min=0))
    normalised = activation / (activation.max(axis=(1, 2), keepdims=True) + 1e-5)
    np.testing.assert_array_equal(masks(random_similarities(), pooling, background), normalised > background)


@pytest.mark.parametrize("pooling", ["gap", "gmp"])
def test_gap_and_gmp_masks_do_not_depend_on_the_scale_of_similarities(pooling: str) -> None:
    np.testing.assert_array_equal(
        masks(random_similarities(tau=2.0), pooling), masks(random_similarities(tau=20.0), pooling)
    )


@pytest.mark.parametrize("pooling", ["gap", "gmp", "spa", "mpa"])
def test_an_expression_without_positive_similarity_has_an_empty_mask(pooling: str) -> None:
    s = random_similarities()
    s[1] = -9.0
    found = masks(s, pooling)
    assert not found[1].any()
    assert found[[0, 2, 3]].any(axis=(1, 2)).all()


@pytest.mark.parametrize("pooling", ["gap", "gmp", "spa", "mpa"])
def test_permuting_expressions_permutes_masks(pooling: str) -> None:
    s, order = random_similarities(), [2, 0, 3, 1]
    np.testing.assert_array_equal(masks(s[order], pooling), masks(s, pooling)[order])


@pytest.mark.parametrize("pooling", ["gap", "gmp", "spa", "mpa"])
@pytest.mark.parametrize("tau", [5.0, 100.0])
def test_probabilities_lie_between_zero_and_one(pooling: str, tau: float) -> None:
    for s in (random_similarities(tau=tau), torch.full((1, 5, 7), tau), torch.full((3, 5, 7), -tau)):
        probabilities = foreground_probabilities(s, pooling, (HEIGHT, WIDTH), 0.2)
        assert probabilities.dtype == torch.float32
        assert ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all()


@pytest.mark.parametrize("pooling", ["gap", "spa", "mpa"])
def test_crf_takes_the_probabilities_as_its_unary(pooling: str) -> None:
    s = random_similarities()
    probabilities = foreground_probabilities(s, pooling, (HEIGHT, WIDTH), 0.2).numpy()
    expected = refine_masks(np.asarray(IMAGE), probabilities, "psa") > 0.5
    np.testing.assert_array_equal(masks(s, pooling, crf="psa"), expected)
    assert (expected != masks(s, pooling)).any()


def test_without_a_pooling_the_mask_is_where_the_interpolated_similarity_is_positive() -> None:
    s = random_similarities()
    np.testing.assert_array_equal(masks(s, None), to_pixels(s) > 0)
    assert (masks(s, None) != masks(s, "mpa")).any()
