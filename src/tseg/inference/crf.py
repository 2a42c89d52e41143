"""Dense CRF of Krähenbühl and Koltun: refines masks (section 4.5, "TSEG (CRF)") and label maps (section 4.3)."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Preset(NamedTuple):
    """Pairwise terms of a dense CRF: `sxy` in pixels, `srgb` in grey levels, `compat` as Potts weights."""

    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float


# ASSUME psa: the paper cites DeepLab's CRF [8] without parameters; psa [2] and 1-stage-wseg [3] share these.
PRESETS = {
    "psa": Preset(3, 3, 80, 13, 10),
    "irn": Preset(3, 3, 50, 5, 10),
    "deeplab": Preset(1, 3, 67, 3, 4),
    "afa": Preset(3, 3, 64, 5, 4),
}
NUM_ITERATIONS = 10
SMALLEST_PROBABILITY = 1e-5


def refine_masks(image: np.ndarray, probabilities: Iterable[np.ndarray], preset: str) -> Iterator[np.ndarray]:
    """Posterior foreground probabilities, float32 (H, W), one binary field per expression, one by one.

    `image` is uint8 (H, W, 3), each of the `probabilities` float32 (H, W) in [0, 1]. The lattice depends only on the
    image, so it is built once for all fields.
    """
    field = _field(image, 2, preset)
    for foreground in probabilities:
        yield _posterior(field, np.stack([1 - foreground, foreground]))[1]


def refine_labels(image: np.ndarray, probabilities: np.ndarray, preset: str) -> np.ndarray:
    """Posterior label probabilities, float32 (K + 1, H, W), of one field with mutually exclusive labels.

    `image` is uint8 (H, W, 3), `probabilities` float32 (K + 1, H, W) in [0, 1]; those of a pixel need not sum to 1.
    """
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
