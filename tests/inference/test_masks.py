"""The mask rules of section 3.3, each against the paper's definition."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.inference.crf import refine_masks
from tseg.inference.masks import MaskRules, each_probability, segment_masks
from tseg.inference.thresholds import RULES

HEIGHT, WIDTH = 37, 53
SIZE = (HEIGHT, WIDTH)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
Similarities = Tensor | list[Tensor]


def random_similarities(expressions: int = 4, rows: int = 5, columns: int = 7, tau: float = 5.0) -> Tensor:
    generator = torch.Generator().manual_seed(rows - 5)
    return tau * (2 * torch.rand(expressions, rows, columns, generator=generator) - 1)


def random_views() -> list[Tensor]:
    """The similarities of three views, each on its own grid."""
    return [random_similarities(rows=rows, columns=columns) for rows, columns in ((5, 7), (6, 8), (10, 14))]


def to_pixels(maps: Tensor) -> np.ndarray:
    return interpolate(maps[None], size=SIZE, mode="bilinear", align_corners=False)[0].numpy()


def views_of(similarities: Similarities) -> list[Tensor]:
    return similarities if isinstance(similarities, list) else [similarities]


def masks(similarities: Similarities, pooling: str | None, areas: list[int] | None = None, **how: Any) -> np.ndarray:
    views = views_of(similarities)
    found = np.stack(list(segment_masks(views, IMAGE, MaskRules(pooling, **how), areas)))
    assert found.dtype == bool
    assert found.shape == (len(views[0]), HEIGHT, WIDTH)
    return found


def probabilities(similarities: Similarities, pooling: str | None, **how: Any) -> np.ndarray:
    found = each_probability(views_of(similarities), SIZE, MaskRules(pooling, **how))
    return torch.stack(list(found)).numpy()


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


def psa_activations(views: list[Tensor]) -> np.ndarray:
    """psa's infer_cls.py: ReLU and upsampling of each view, their sum, over its maximum plus 1e-5."""
    total = np.sum([to_pixels(view.clamp(min=0)) for view in views], axis=0)
    return total / (np.max(total, (1, 2), keepdims=True) + 1e-5)


@pytest.mark.parametrize("pooling", ["gap", "gmp"])
@pytest.mark.parametrize("background", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("views", [[random_similarities()], random_views()], ids=["one view", "three views"])
def test_gap_and_gmp_take_psas_argmax_over_activations_and_background(
    pooling: str, background: float, views: list[Tensor]
) -> None:
    activations = psa_activations(views)
    labels = np.argmax(np.concatenate([np.full((1, *SIZE), background), activations]), 0)
    expected = np.stack([labels == j + 1 for j in range(len(activations))])
    assert expected.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(masks(views, pooling, background=background), expected)


@pytest.mark.parametrize("pooling", ["gap", "gmp"])
def test_overlapping_activations_meet_the_background_alone(pooling: str) -> None:
    found = masks(random_similarities(), pooling, exclusive_activations=False)
    np.testing.assert_array_equal(found, psa_activations([random_similarities()]) > 0.2)
    assert found.sum(axis=0).max() > 1


@pytest.mark.parametrize("pooling", ["gap", "spa"])
def test_the_probability_is_against_the_strongest_other(pooling: str) -> None:
    """Therefore it exceeds 1/2 exactly where the argmax is the expression, which the CRF's unary needs."""
    if pooling == "gap":
        strengths = np.concatenate([np.full((1, *SIZE), 0.2), psa_activations(random_views())])
    else:
        strengths = wseg_masks(random_views())
    found = probabilities(random_views(), pooling)
    for j in range(4):
        strongest = np.delete(strengths, j + 1, axis=0).max(axis=0)
        np.testing.assert_allclose(found[j], strengths[j + 1] / (strengths[j + 1] + strongest), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found > 0.5, strengths.argmax(axis=0) == np.arange(1, 5)[:, None, None])


def wseg_masks(views: list[Tensor]) -> np.ndarray:
    """1-stage-wseg's MergeMultiScale: softmax of each view with its background first, upsampled, then averaged."""
    merged = []
    for view in views:
        logits = np.concatenate([np.zeros((1, *view.shape[1:])), view.numpy()])
        exponentials = np.exp(logits - logits.max(axis=0))
        merged.append(to_pixels(torch.from_numpy(exponentials / exponentials.sum(axis=0)).float()))
    return sum(merged) / len(merged)


def test_spa_averages_the_masks_of_views_at_full_size() -> None:
    labels = wseg_masks(random_views()).argmax(axis=0)
    expected = np.stack([labels == j + 1 for j in range(4)])
    np.testing.assert_array_equal(masks(random_views(), "spa"), expected)


@pytest.mark.parametrize("pooling", ["mpa", None])
def test_mpa_and_full_supervision_average_the_masks_of_views_at_full_size(pooling: str | None) -> None:
    """Under weak supervision masks are interpolated, under full supervision similarities are, as in training."""
    views = random_views()
    maps = [to_pixels(view.sigmoid()) if pooling else torch.from_numpy(to_pixels(view)).sigmoid() for view in views]
    expected = np.mean([np.asarray(of_view) for of_view in maps], axis=0)
    np.testing.assert_allclose(probabilities(views, pooling), expected, rtol=1e-6)
    np.testing.assert_array_equal(masks(views, pooling), expected > 0.5)


@pytest.mark.parametrize("pooling", ["gap", "spa", "mpa", None])
def test_views_that_agree_are_as_one(pooling: str | None) -> None:
    s = random_similarities()
    np.testing.assert_allclose(probabilities([s, s], pooling), probabilities(s, pooling), atol=1e-5)


def shift(views: list[Tensor], rule: str) -> list[Tensor]:
    """Each map of each view minus its own threshold."""
    return [torch.stack([s - RULES[rule](s.numpy()) for s in view]) for view in views]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("pooling", ["mpa", "gap", "gmp"])
def test_a_rule_replaces_the_background_similarity_of_each_map(pooling: str, rule: str) -> None:
    """m of eq. 6, averaged over views; for GAP and GMP too, if their masks may overlap."""
    m = np.mean([to_pixels(s.sigmoid()) for s in shift(random_views(), rule)], axis=0)
    found = probabilities(random_views(), pooling, threshold=rule, exclusive_activations=False)
    np.testing.assert_allclose(found, m, rtol=1e-5)
    assert (m > 0.5).any(axis=(1, 2)).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("pooling", ["spa", "gap", "gmp"])
def test_with_a_rule_exclusive_masks_compete_after_the_shift(pooling: str, rule: str) -> None:
    labels = wseg_masks(shift(random_views(), rule)).argmax(axis=0)
    expected = np.stack([labels == j + 1 for j in range(4)])
    np.testing.assert_array_equal(masks(random_views(), pooling, threshold=rule), expected)


@pytest.mark.parametrize("rule", RULES)
def test_under_full_supervision_a_rule_shifts_the_interpolated_similarities(rule: str) -> None:
    s = random_similarities()
    found = masks(s, None, threshold=rule)
    np.testing.assert_array_equal(found, to_pixels(shift([s], rule)[0]) > 0)


@pytest.mark.parametrize("pooling", ["gap", "spa", "mpa", None])
def test_a_calibrated_mask_does_not_depend_on_a_constant_added_to_all_similarities(pooling: str | None) -> None:
    s = random_similarities()
    for rule in ("halfway", "otsu"):
        found = probabilities(s - 30, pooling, threshold=rule)
        np.testing.assert_allclose(found, probabilities(s, pooling, threshold=rule), atol=1e-4)


@pytest.mark.parametrize("pooling", ["gap", "gmp", "spa", "mpa", None])
def test_the_oracle_gives_every_mask_its_true_area(pooling: str | None) -> None:
    areas = [0, 1, 700, HEIGHT * WIDTH]
    found = masks(random_views(), pooling, areas, threshold="oracle")
    assert found.sum(axis=(1, 2)).tolist() == areas
    full = np.mean([to_pixels(view) for view in random_views()], axis=0)
    assert full[2][found[2]].min() > full[2][~found[2]].max()


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
@pytest.mark.parametrize("threshold", ["fixed", "halfway"])
def test_probabilities_lie_between_zero_and_one(pooling: str, tau: float, threshold: str) -> None:
    for s in (random_similarities(tau=tau), torch.full((1, 5, 7), tau), torch.full((3, 5, 7), -tau)):
        found = probabilities(s, pooling, threshold=threshold)
        assert found.dtype == np.float32
        assert ((found >= 0) & (found <= 1 + 1e-6)).all()


@pytest.mark.parametrize("pooling", ["gap", "spa", "mpa"])
def test_crf_takes_the_probabilities_as_its_unary(pooling: str) -> None:
    s = random_similarities()
    expected = np.stack(list(refine_masks(np.asarray(IMAGE), probabilities(s, pooling), "psa"))) > 0.5
    np.testing.assert_array_equal(masks(s, pooling, crf="psa"), expected)
    assert (expected != masks(s, pooling)).any()


def test_without_a_pooling_the_mask_is_where_the_interpolated_similarity_is_positive() -> None:
    s = random_similarities()
    np.testing.assert_array_equal(masks(s, None), to_pixels(s) > 0)
    assert (masks(s, None) != masks(s, "mpa")).any()


def test_memory_does_not_grow_with_the_number_of_expressions() -> None:
    """300 expressions of 480 x 640 pixels, whose probabilities are 369 MB in float32."""
    code = """
import resource, numpy as np, torch
from PIL import Image
from tseg.inference.masks import MaskRules, segment_masks
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
views, image = [torch.randn(300, 15, 20), torch.randn(300, 7, 10)], Image.new("RGB", (640, 480))
next(segment_masks([view[:2] for view in views], image, MaskRules("spa")))
before = peak()
for rules in (MaskRules("spa"), MaskRules("mpa", threshold="halfway")):
    assert sum(mask.any() for mask in segment_masks(views, image, rules)) > 0
print(peak() - before)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 100
