"""Dense CRF of Krähenbühl and Koltun to refine masks, one binary field per expression (section 4.5, "TSEG (CRF)")."""

from typing import NamedTuple

import numpy as np
from pydensecrf.densecrf import DenseCRF2D


class Preset(NamedTuple):
    """Pairwise terms of a dense CRF; `sxy` in pixels, `srgb` in grey levels, `compat` the Potts weights."""

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


def refine(picture: np.ndarray, probabilities: np.ndarray, preset: str) -> np.ndarray:
    """Posterior foreground probabilities, float32 (L, H, W).

    `picture` is uint8 (H, W, 3), `probabilities` float32 (L, H, W) in [0, 1]. The lattice depends on the picture alone:
    it is built once and serves all L fields.
    """
    terms = PRESETS[preset]
    height, width, _ = picture.shape
    field = DenseCRF2D(width, height, 2)
    field.addPairwiseGaussian(sxy=terms.gaussian_sxy, compat=terms.gaussian_compat)
    field.addPairwiseBilateral(
        sxy=terms.bilateral_sxy,
        srgb=terms.bilateral_srgb,
        rgbim=picture.copy(order="C"),  # pydensecrf wants it writable
        compat=terms.bilateral_compat,
    )
    refined = np.empty_like(probabilities)
    for number, foreground in enumerate(probabilities):
        labels = np.stack([1 - foreground, foreground]).reshape(2, -1)
        field.setUnaryEnergy(-np.log(labels.clip(SMALLEST_PROBABILITY, 1)).astype(np.float32, order="C"))
        refined[number] = np.asarray(field.inference(NUM_ITERATIONS))[1].reshape(height, width)
    return refined
