"""The dense CRF of both backends against pydensecrf called directly, one fresh field per expression."""

from types import ModuleType

import numpy as np
import pytest
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_softmax

from tseg.inference import crf, reference_crf
from tseg.inference.crf import PRESETS

HEIGHT, WIDTH = 30, 44
# name: (Gaussian sxy, compat), (bilateral sxy, srgb, compat), from the authors' repositories
PUBLISHED = {
    "psa": ((3, 3), (80, 13, 10)),
    "irn": ((3, 3), (50, 5, 10)),
    "deeplab": ((1, 3), (67, 3, 4)),
    "afa": ((3, 3), (64, 5, 4)),
}


BACKENDS = pytest.mark.parametrize("backend", [crf, reference_crf], ids=["lattice", "pydensecrf"])


def refine_masks(backend: ModuleType, pixels: np.ndarray, foregrounds: np.ndarray, preset: str) -> np.ndarray:
    return np.stack(list(backend.refine_masks(pixels, foregrounds, preset)))


def image() -> np.ndarray:
    """A bright disc on a dark ground, with noise."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc = (rows - 14) ** 2 + (columns - 20) ** 2 < 90
    noise = np.random.default_rng(0).integers(0, 20, (HEIGHT, WIDTH, 3))
    return np.where(disc[..., None], 200 + noise, 30 + noise).astype(np.uint8)


def probabilities(expressions: int = 3) -> np.ndarray:
    return np.random.default_rng(1).random((expressions, HEIGHT, WIDTH), dtype=np.float32)


def label_probabilities(labels: int) -> np.ndarray:
    """Random probabilities, float32 (labels, H, W), that sum to 1."""
    shares = np.random.default_rng(2).random((labels, HEIGHT, WIDTH), dtype=np.float32)
    return shares / shares.sum(axis=0)


def fresh_field(labels: np.ndarray, preset: str) -> np.ndarray:
    """The posterior of label probabilities (labels, H, W), computed with pydensecrf's own helpers."""
    (sxy, compat), (bilateral_sxy, srgb, bilateral_compat) = PUBLISHED[preset]
    field = DenseCRF2D(WIDTH, HEIGHT, len(labels))
    field.setUnaryEnergy(unary_from_softmax(labels, clip=1e-5))
    field.addPairwiseGaussian(sxy=sxy, compat=compat)
    field.addPairwiseBilateral(sxy=bilateral_sxy, srgb=srgb, rgbim=image(), compat=bilateral_compat)
    return np.array(field.inference(10)).reshape(labels.shape)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_pydensecrf_is_called_as_its_authors_do(preset: str) -> None:
    refined = refine_masks(reference_crf, image(), probabilities(), preset)
    for ours, foreground in zip(refined, probabilities(), strict=True):
        np.testing.assert_array_equal(ours, fresh_field(np.stack([1 - foreground, foreground]), preset)[1])
    labels = reference_crf.refine_labels(image(), label_probabilities(5), preset)
    np.testing.assert_array_equal(labels, fresh_field(label_probabilities(5), preset))


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_lattice_gives_the_posteriors_of_pydensecrf(preset: str) -> None:
    refined = refine_masks(crf, image(), probabilities(), preset)
    for ours, foreground in zip(refined, probabilities(), strict=True):
        theirs = fresh_field(np.stack([1 - foreground, foreground]), preset)[1]
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
        assert ((ours > 0.5) == (theirs > 0.5)).mean() > 0.999
    labels, theirs = (
        crf.refine_labels(image(), label_probabilities(5), preset),
        fresh_field(label_probabilities(5), preset),
    )
    np.testing.assert_allclose(labels, theirs, atol=1e-3)
    assert (labels.argmax(axis=0) == theirs.argmax(axis=0)).mean() > 0.999


@BACKENDS
def test_labels_have_probabilities(backend: ModuleType) -> None:
    refined = backend.refine_labels(image(), label_probabilities(5), "psa")
    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined.sum(axis=0), 1, rtol=1e-5)


@BACKENDS
def test_one_label_and_the_background_equal_the_binary_field(backend: ModuleType) -> None:
    (foreground,) = probabilities(1)
    labels = backend.refine_labels(image(), np.stack([1 - foreground, foreground]), "psa")
    masks = refine_masks(backend, image(), foreground[None], "psa")
    np.testing.assert_allclose(labels[1], masks[0], rtol=0, atol=0 if backend is reference_crf else 1e-4)


@BACKENDS
def test_permuting_labels_permutes_their_posteriors(backend: ModuleType) -> None:
    order = [3, 0, 2, 1]
    permuted = backend.refine_labels(image(), label_probabilities(4)[order], "psa")
    expected = backend.refine_labels(image(), label_probabilities(4), "psa")[order]
    np.testing.assert_allclose(permuted, expected, rtol=1e-4, atol=1e-5)


def test_only_published_presets_exist() -> None:
    assert set(PRESETS) == set(PUBLISHED)


@BACKENDS
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_expressions_are_refined_independently(
    backend: ModuleType, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not they pass the filters together."""
    alone = np.concatenate([refine_masks(backend, image(), probabilities(5)[j : j + 1], "psa") for j in range(5)])
    monkeypatch.setattr(crf, "VALUES_AT_ONCE", at_once * HEIGHT * WIDTH)
    together = refine_masks(backend, image(), probabilities(5), "psa")
    # The last bit of a sigmoid depends on its place in a vector.
    np.testing.assert_allclose(together, alone, rtol=0 if backend is reference_crf else 1e-6, atol=0)


@BACKENDS
def test_refinement_follows_the_images_edges(backend: ModuleType) -> None:
    """A square prediction of the disc becomes the disc."""
    disc = image()[..., 0] > 100
    guess = np.full((1, HEIGHT, WIDTH), 0.2, np.float32)
    guess[:, 7:22, 12:29] = 0.8
    before = ((guess[0] > 0.5) & disc).sum() / ((guess[0] > 0.5) | disc).sum()
    after = refine_masks(backend, image(), guess, "psa")[0] > 0.5
    assert (after & disc).sum() / (after | disc).sum() > max(before, 0.95)


@BACKENDS
def test_certain_probabilities_stay_finite_and_inputs_unchanged(backend: ModuleType) -> None:
    certain = np.zeros((2, HEIGHT, WIDTH), np.float32)
    certain[1] = 1
    pixels, kept = image(), certain.copy()
    pixels.flags.writeable = False
    refined = refine_masks(backend, pixels, certain, "psa")
    np.testing.assert_array_equal(certain, kept)
    np.testing.assert_array_equal(refined > 0.5, kept > 0.5)
