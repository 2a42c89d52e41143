"""The dense CRF of pydensecrf, one field after the other on one core: what `crf` is compared with."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tseg.inference.crf import NUM_ITERATIONS, PRESETS, SMALLEST_PROBABILITY


def refine_masks(image: np.ndarray, probabilities: Iterable[np.ndarray], preset: str) -> Iterator[np.ndarray]:
    """`crf.refine_masks`. The lattice is built once for all fields of the image."""
    field = _field(image, 2, preset)
    for foreground in probabilities:
        yield _posterior(field, np.stack([1 - foreground, foreground]))[1]


def refine_labels(image: np.ndarray, probabilities: np.ndarray, preset: str) -> np.ndarray:
    """`crf.refine_labels`."""
    return _posterior(_field(image, len(probabilities), preset), probabilities)


def _field(image: np.ndarray, num_labels: int, preset: str) -> Any:
    """A DenseCRF2D with the pairwise terms of `preset` on an image, before any unary energy is set."""
    from pydensecrf.densecrf import DenseCRF2D  # compiled; imported only where it is used

    terms = PRESETS[preset]
    height, width, _ = image.shape
    field = DenseCRF2D(width, height, num_labels)
    field.addPairwiseGaussian(sxy=terms.gaussian_sxy, compat=terms.gaussian_compat)
    field.addPairwiseBilateral(
        sxy=terms.bilateral_sxy,
        srgb=terms.bilateral_srgb,
        rgbim=image.copy(order="C"),  # pydensecrf needs a writable array
        compat=terms.bilateral_compat,
    )
    return field


def _posterior(field: Any, probabilities: np.ndarray) -> np.ndarray:
    """Label probabilities after mean-field inference, given those of the unary term; both float32 (labels, H, W)."""
    unary = -np.log(probabilities.reshape(len(probabilities), -1).clip(SMALLEST_PROBABILITY, 1))
    field.setUnaryEnergy(unary.astype(np.float32, order="C"))
    return np.array(field.inference(NUM_ITERATIONS)).reshape(probabilities.shape)
