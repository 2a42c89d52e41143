"""Fill polygons by one fixed rule, so that true masks do not depend on the version of a library."""

from collections.abc import Sequence

import numpy as np


def fill_polygons(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons, bool (height, width); each is a list of corners x, y, int (P, 2), P >= 1.

    The rule is that of Pillow 6.1, which PhraseCut's evaluator pins; later versions draw other pixels along edges. Per
    row, the crossings of the edges are sorted by x, and every second gap between two is filled. A crossing counts twice
    where an edge ends at a row above the polygon's last. Horizontal edges are drawn.
    """
    # ASSUME: the evaluator's pin defines the official masks, not the version of Pillow that happens to be installed.
    height, width = size
    corners = np.concatenate([np.zeros((0, 2), int), *polygons])
    following = np.concatenate([corners[:0], *(part for points in polygons for part in (points[1:], points[:1]))])
    owner = np.repeat(np.arange(len(polygons)), [len(points) for points in polygons])
    (x, y), (next_x, next_y) = corners.T, following.T

    flat = y == next_y
    rows, starts, ends = [y[flat]], [np.minimum(x, next_x)[flat]], [np.maximum(x, next_x)[flat]]

    x, y, next_x, next_y, owner = (values[~flat] for values in (x, y, next_x, next_y, owner))
    slope = (next_x - x).astype(np.float32) / (next_y - y).astype(np.float32)  # Pillow's type
    top, bottom = np.minimum(y, next_y), np.maximum(y, next_y)
    last = np.full(len(polygons), -1)
    np.maximum.at(last, owner, bottom)
    first, num_rows = top.clip(0), (bottom.clip(max=height - 1) - top.clip(0) + 1).clip(0)
    edge = np.repeat(np.arange(len(x)), num_rows)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(num_rows) - num_rows, num_rows) + first[edge]
    crossing = (row - y[edge]).astype(np.float32) * slope[edge] + x[edge].astype(np.float32)
    twice = (row == bottom[edge]) & (row < last[owner[edge]])
    owner, row, crossing = (np.concatenate([values, values[twice]]) for values in (owner[edge], row, crossing))

    order = np.lexsort((crossing, row, owner))
    owner, row, crossing = owner[order], row[order], crossing[order]
    index = np.arange(len(row))
    is_first = np.ones(len(row), bool)
    is_first[1:] = (owner[1:] != owner[:-1]) | (row[1:] != row[:-1])
    is_second = (index - np.maximum.accumulate(np.where(is_first, index, 0))) % 2 == 1
    second = np.flatnonzero(is_second)
    rows.append(row[second])
    starts.append(_rounded(crossing[second - 1], np.floor, np.float32(0.5)))
    ends.append(_rounded(crossing[second], np.ceil, np.float32(-0.5)))
    return _fill_spans(np.concatenate(rows), np.concatenate(starts), np.concatenate(ends), height, width)


def _rounded(values: np.ndarray, direction: np.ufunc, shift: np.float32) -> np.ndarray:
    """Round float32 to the nearest int: floor rounds halves away from zero, ceil towards zero."""
    return (np.sign(values) * direction(np.abs(values) + shift)).astype(int)


def _fill_spans(rows: np.ndarray, starts: np.ndarray, ends: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels from `starts` to `ends`, both included, of `rows`; spans may leave the image, and may be reversed."""
    starts, ends = np.minimum(starts, ends).clip(0), np.maximum(starts, ends).clip(max=width - 1)
    inside = (rows >= 0) & (rows < height) & (starts <= ends)
    mask = np.zeros((height, width), bool)
    for row, start, end in zip(*[values[inside].tolist() for values in (rows, starts, ends)], strict=True):
        mask[row, start : end + 1] = True  # far faster than arrays of all pixels
    return mask
