"""Dense CRF of Krähenbühl and Koltun (2011): refines masks (section 4.5, "TSEG (CRF)") and label maps (section 4.3).

Mean-field inference, whose filters are those of `lattice`: all expressions of an image pass one filter together.
`reference_crf` does the same with pydensecrf.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tseg.inference.lattice import Lattice, build_lattice


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
VALUES_AT_ONCE = 2**22
"""Values, pixels times fields, that are filtered together: memory does not grow with the number of expressions."""


@torch.inference_mode()
def refine_masks(image: np.ndarray, probabilities: Iterable[np.ndarray], preset: str) -> Iterator[np.ndarray]:
    """Posterior foreground probabilities, float32 (H, W), one binary field per expression, one by one.

    `image` is uint8 (H, W, 3), each of the `probabilities` float32 (H, W) in [0, 1].
    """
    # What speaks for the foreground, with the probability q, less what speaks for the background, with 1 - q.
    terms = _terms(image, preset, factor=2)
    everywhere = _message(terms, torch.ones(image.shape[0] * image.shape[1], 1)) / 2
    waiting, fields_at_once = iter(probabilities), max(1, VALUES_AT_ONCE // len(everywhere))
    while some := list(islice(waiting, fields_at_once)):
        foreground = _pixels(np.stack(some))
        log_odds = _log(foreground) - _log(1 - foreground)
        yield from _mean_field(log_odds, log_odds - everywhere, terms, torch.sigmoid_, image)


@torch.inference_mode()
def refine_labels(image: np.ndarray, probabilities: np.ndarray, preset: str) -> np.ndarray:
    """Posterior label probabilities, float32 (K + 1, H, W), of one field with mutually exclusive labels.

    `image` is uint8 (H, W, 3), `probabilities` float32 (K + 1, H, W) in [0, 1]; those of a pixel need not sum to 1.
    """
    unary = _log(_pixels(probabilities))
    return _mean_field(unary, unary, _terms(image, preset), partial(torch.softmax, dim=1), image)


def _mean_field(
    start: Tensor,
    unary: Tensor,
    terms: Sequence[Lattice],
    normalise: Callable[[Tensor], Tensor],
    image: np.ndarray,
) -> np.ndarray:
    """Probabilities, float32 (C, H, W), after mean-field inference.

    `start` and `unary` are log-probabilities or log-odds (N, C), `normalise` turns them into probabilities. In each
    iteration the messages of all other pixels are added to `unary`.
    """
    probabilities = normalise(start.clone())
    for _ in range(NUM_ITERATIONS):
        probabilities = normalise(_message(terms, probabilities).add_(unary))
    return probabilities.T.contiguous().numpy().reshape(-1, *image.shape[:2])


def _message(terms: Sequence[Lattice], probabilities: Tensor) -> Tensor:
    """What the probabilities (N, C) of all pixels say to each pixel: the sum of the pairwise terms."""
    gaussian, bilateral = terms
    return gaussian.filter(probabilities).add_(bilateral.filter(probabilities))


def _terms(image: np.ndarray, preset: str, factor: float = 1) -> tuple[Lattice, Lattice]:
    """The pairwise terms of `preset` on an image, times `factor`: a Gaussian and a bilateral filter, normalised."""
    height, width, _ = image.shape
    chosen = PRESETS[preset]
    colours = image.reshape(-1, 3).T / np.float32(chosen.bilateral_srgb)
    bilateral = build_lattice(np.concatenate([_positions(height, width, chosen.bilateral_sxy), colours]))
    gaussian = build_lattice(_positions(height, width, chosen.gaussian_sxy))
    return (
        gaussian.normalised(factor * chosen.gaussian_compat),
        bilateral.normalised(factor * chosen.bilateral_compat),
    )


def _positions(height: int, width: int, sxy: float) -> np.ndarray:
    """The columns and rows of all pixels in units of `sxy`, float32 (2, N)."""
    rows, columns = np.indices((height, width), np.float32).reshape(2, -1)
    return np.stack([columns, rows]) / np.float32(sxy)


def _pixels(maps: np.ndarray) -> Tensor:
    """Maps, float32 (C, H, W), as values (N, C) of N pixels."""
    return torch.from_numpy(maps).flatten(1).T.contiguous()


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(SMALLEST_PROBABILITY, 1).log()
