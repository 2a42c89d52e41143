"""The permutohedral lattice of Adams, Baek and Davis (2010): Gaussian filtering in a space of a few dimensions.

The feature vector of a pixel lies in a simplex of the lattice. A filter gives the value of each pixel to the vertices
of its simplex (splat), blurs along each axis of the lattice, and reads the values at the pixels again (slice). All of
these are sums of a few weighted rows, so that any number of channels is filtered at once, in PyTorch's compiled loops.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag

SMALLEST_SUM = 1e-20
"""Added to F 1, so that nothing is divided by 0."""


class Sums(NamedTuple):
    """Weighted sums of rows: those from `starts[i]` on, up to the next start, make row i of the result."""

    rows: Tensor
    weights: Tensor
    starts: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """The sums, float32 (number of starts, C), of rows of `values`, float32 (R, C)."""
        return embedding_bag(self.rows, values, self.starts, mode="sum", per_sample_weights=self.weights)


class Lattice(NamedTuple):
    """The lattice of one image's features."""

    splat: Sums
    blurs: list[Sums]
    slice: Sums

    def filter(self, values: Tensor) -> Tensor:
        """Filter the values, float32 (N, C), of N pixels; a Gaussian of standard deviation 1 in units of features."""
        vertices = self.splat(values)
        for blur in self.blurs:
            vertices = blur(vertices)
        return self.slice(vertices)

    def normalised(self, factor: float) -> "Lattice":
        """The lattice whose filter F becomes factor D F D, where the diagonal matrix D is (F 1)^(-1/2)."""
        ones = torch.ones(len(self.slice.starts), 1)
        norm = self.filter(ones).add_(SMALLEST_SUM).rsqrt_()[:, 0]
        per_pixel = norm.repeat_interleave(len(self.slice.rows) // len(norm))
        return self._replace(
            splat=self.splat._replace(weights=self.splat.weights * norm[self.splat.rows]),
            slice=self.slice._replace(weights=self.slice.weights * per_pixel * factor),
        )


def build_lattice(features: np.ndarray) -> Lattice:
    """The lattice of the features, float32 (d, N), of N pixels.

    Only vertices of occupied simplices exist, and arithmetic is in float32, as in the code of Krähenbühl and Koltun.
    """
    num_axes, num_pixels = len(features) + 1, features.shape[1]
    corners, weights, radix = _simplices(features)
    # Each vertex is known by its integer coordinates, all but the last, as digits of one number.
    indices, codes = map(np.asarray, pd.factorize(corners.ravel()))
    shape = num_pixels, len(codes)
    starts = np.arange(0, indices.size + 1, num_axes, dtype=np.int32)
    at_pixels = csr_array((weights.ravel(), indices.astype(np.int32), starts), shape=shape)
    splat, blurs = _sums(csr_array(at_pixels.T)), [_sums(blur) for blur in _blurs(codes, radix)]
    at_pixels *= np.float32(1 / (1 + 2.0 ** -len(features)))  # the blurs' gain
    return Lattice(splat, blurs, _sums(at_pixels))


def _simplices(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The simplex of each pixel (section 3.1 of the paper): its d + 1 corners, their weights, and the radix.

    Corners are int64 (N, d + 1), weights float32 (N, d + 1). `radix`, int64 (d + 1), is the value of each digit of a
    corner's code; the last coordinate, which follows from the others, has the value 0.
    """
    num_axes, num_pixels = len(features) + 1, features.shape[1]
    position = _elevated(features)
    # The nearest point whose coordinates are multiples of d + 1.
    unit = np.float32(1 / num_axes)
    above, below = (round_to(position * unit) * num_axes for round_to in (np.ceil, np.floor))
    corner = np.where(above - position < position - below, above, below)
    rank = _ranks(position - corner)
    # Where its coordinates do not sum to 0, move it by one along the axes that are farthest off.
    rank += (corner.sum(axis=0) * unit).round().astype(np.int8)
    moved = ((rank < 0).astype(np.int8) - (rank >= num_axes)) * np.int8(num_axes)
    rank += moved
    corner += moved

    order = rank.astype(np.int32) * num_pixels + np.arange(num_pixels, dtype=np.int32)
    offset = _ordered((position - corner) * unit, order)
    weights = np.empty((num_pixels, num_axes), np.float32)
    weights[:, 0] = 1 + offset[-1] - offset[0]
    for k in range(1, num_axes):
        weights[:, k] = offset[-1 - k] - offset[-k]

    lowest = corner.min() - num_axes
    base = int(corner.max() - lowest) + num_axes + 1
    assert base ** len(features) < 2**63, "images are not that large"
    radix = np.array([*(base**axis for axis in range(len(features))), 0], np.int64)
    axes = _ordered(np.broadcast_to(np.arange(num_axes, dtype=np.int8)[:, None], rank.shape), order)
    corners = np.empty((num_pixels, num_axes), np.int64)
    corners[:, 0] = sum(value * (row - lowest).astype(np.int64) for value, row in zip(radix, corner, strict=True))
    # From one corner to the next: one step along all axes, less d + 1 along that of the next lower rank.
    steps = radix.sum() - num_axes * radix
    for k in range(1, num_axes):
        corners[:, k] = corners[:, k - 1] + steps[axes[-k]]
    return corners, weights, radix


def _elevated(features: np.ndarray) -> np.ndarray:
    """Features in the hyperplane of points whose d + 1 coordinates sum to 0: float32 (d + 1, N)."""
    dimension = len(features)
    numbers = np.arange(1, dimension + 1)
    # A blur by (1, 2, 1) along each axis has the variance 2/3 (d + 1)^2.
    scale = np.sqrt(2 / 3) * (dimension + 1) / np.sqrt(numbers * (numbers + 1))
    scaled = features * scale.astype(np.float32)[:, None]
    position = np.zeros((dimension + 1, features.shape[1]), np.float32)
    for axis in range(dimension, 0, -1):
        position[:axis] += scaled[axis - 1]
        position[axis] -= axis * scaled[axis - 1]
    return position


def _ranks(offset: np.ndarray) -> np.ndarray:
    """The rank, int8 (d + 1, N), of each coordinate of each pixel: 0 for the largest; the first of equal ones."""
    rank = np.zeros(offset.shape, np.int8)
    for i, one in enumerate(offset):
        for j, other in enumerate(offset[i + 1 :], i + 1):
            is_less = one < other
            rank[i] += is_less
            rank[j] += ~is_less
    return rank


def _ordered(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The values (d + 1, N) of each pixel in the order of their ranks."""
    ordered = np.empty(values.size, values.dtype)
    ordered[order] = values
    return ordered.reshape(values.shape)


def _blurs(codes: np.ndarray, radix: np.ndarray) -> list[csr_array]:
    """For each axis, the matrix that adds half of the values of a vertex's two neighbours to its own."""
    vertices = pd.Index(codes)
    rows = np.arange(len(codes))
    blurs: list[csr_array] = []
    for digit in radix:
        step = len(radix) * digit - radix.sum()
        neighbours = [vertices.get_indexer(codes + direction * step) for direction in (1, -1)]
        columns = np.concatenate([rows, *neighbours])
        exists = columns >= 0
        weights = np.repeat(np.array([1, 0.5, 0.5], np.float32), len(codes))[exists]
        entries = weights, (np.tile(rows, 3)[exists], columns[exists])
        blurs.append(csr_array(entries, shape=(len(codes), len(codes))))
    return blurs


def _sums(matrix: csr_array) -> Sums:
    """The rows of a sparse matrix as sums."""
    rows, weights, starts = (torch.from_numpy(array) for array in (matrix.indices, matrix.data, matrix.indptr[:-1]))
    return Sums(rows, weights, starts)
