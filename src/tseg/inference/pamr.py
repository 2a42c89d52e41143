"""Pixel-adaptive mask refinement (PAMR) of Araslanov and Roth (2020): refines masks without a compiler.

Each iteration replaces the value of a pixel by the weighted mean of its neighbours' values. The weights are large for
neighbours of similar colour. Parameters and borders are those of their code (1-stage-wseg).
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

DILATIONS = (1, 2, 4, 8, 12, 24)
"""Distances in pixels, along rows and columns, to eight neighbours each."""
NUM_ITERATIONS = 10
SPREAD = 0.1
"""Factor of the local standard deviation in the affinity."""

_OFFSETS = [
    (rows * dilation, columns * dilation)
    for dilation in DILATIONS
    for rows in (-1, 0, 1)
    for columns in (-1, 0, 1)
    if (rows, columns) != (0, 0)
]


@torch.inference_mode()
def refine_maps(image: np.ndarray, maps: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Refine maps, float32 (H, W), one by one; a map and 1 minus it stay complementary.

    `image` is uint8 (H, W, 3). The weights depend only on the image and are computed once: 48 float32 per pixel.
    """
    weights = _weights(torch.from_numpy(image.astype(np.float32) / 255).movedim(-1, 0))
    for values in maps:
        refined = torch.from_numpy(values)
        for _ in range(NUM_ITERATIONS):
            total = torch.zeros_like(refined)
            for weight, neighbour in zip(weights, _shifted(refined[None]), strict=True):
                total.addcmul_(weight, neighbour[0])
            refined = total
        yield refined.numpy()


def _weights(image: Tensor) -> Tensor:
    """Weights (48, H, W) of the neighbours of every pixel of an image (3, H, W); they sum to 1 over the neighbours.

    The softmax over neighbours n of the mean over channels of -|x_n - x| / (SPREAD sigma), where sigma is the standard
    deviation of a channel over the pixel and its neighbours at all distances.
    """
    # Their code counts the pixel itself once per distance.
    num_values = len(_OFFSETS) + len(DILATIONS)
    mean = (sum(_shifted(image)) + len(DILATIONS) * image) / num_values
    squares = sum((neighbour - mean) ** 2 for neighbour in _shifted(image)) + len(DILATIONS) * (image - mean) ** 2
    sigma = (squares / (num_values - 1)).sqrt()
    weights = torch.empty(len(_OFFSETS), *image.shape[1:])
    for weight, neighbour in zip(weights, _shifted(image), strict=True):
        weight.copy_(-((neighbour - image).abs() / (1e-8 + SPREAD * sigma)).mean(dim=0))
    # The softmax, in place: the weights are large.
    weights.sub_(weights.amax(dim=0)).exp_()
    return weights.div_(weights.sum(dim=0))


def _shifted(values: Tensor) -> Iterator[Tensor]:
    """The values (C, H, W) of each neighbour in turn; beyond the border, those of the nearest pixel."""
    height, width = values.shape[-2:]
    margin = max(DILATIONS)
    padded = pad(values[None], [margin] * 4, mode="replicate")[0]
    for rows, columns in _OFFSETS:
        yield padded[:, margin + rows : margin + rows + height, margin + columns : margin + columns + width]
