"""Encode regions of *shapes* as in the official files: PhraseCut's polygons, COCO's polygons and run lengths."""

from typing import Any

import numpy as np

from tseg.records import encode_mask

# Directions along pixel edges, clockwise: step in x, y, and offset from the start of an edge to the pixel on its right.
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
RIGHT_HAND = np.array([(0, 0), (-1, 0), (-1, -1), (0, -1)])
WEST = 2


def phrasecut_polygons(region: np.ndarray) -> list[list[list[int]]]:
    """Polygons [[x, y], ...] through the outermost pixels of each part of `region` (H, W) bool.

    PhraseCut's polygons have no holes, so a cut, one pixel wide, opens each hole from its top upwards.
    """
    opened = region.copy()
    for hole in filter(_is_hole, _trace(region)):
        ceiling = hole[hole[:, 2] == WEST]
        x, y = _pixels(ceiling[[ceiling[:, 1].argmin()]])[0]
        start = max(np.flatnonzero(~opened[:y, x]), default=-1) + 1
        opened[start : y + 1, x] = False
    polygons = [_corners(_pixels(loop)).tolist() for loop in _trace(opened)]
    return [polygon for polygon in polygons if polygon]  # a part of one pixel has no outline


def coco_segmentation(region: np.ndarray, compressed: bool) -> list[list[float]] | dict[str, Any]:
    """Polygons [x, y, x, y, ...] along pixel edges or, for a region with holes, run lengths, `compressed` or not."""
    loops = _trace(region)
    if not any(map(_is_hole, loops)):
        return [_corners(loop[:, :2]).astype(float).ravel().tolist() for loop in loops]
    size = list(region.shape)
    if compressed:
        return {"size": size, "counts": encode_mask(region)}
    pixels = region.ravel(order="F")
    starts = np.flatnonzero(np.diff(pixels, prepend=False))  # of runs; the first run is background
    return {"size": size, "counts": np.diff(starts, prepend=0, append=pixels.size).tolist()}


def _trace(region: np.ndarray) -> list[np.ndarray]:
    """The closed loops (K, 3) of pixel edges, as x, y and direction, with `region` on their right.

    Parts that touch only at a corner have separate loops.
    """
    padded = np.pad(region, 1)
    edges: set[tuple[int, int, int]] = set()
    for direction, ((step_x, step_y), right_hand) in enumerate(zip(STEPS, RIGHT_HAND, strict=True)):
        beyond = np.roll(padded, (step_x, -step_y), axis=(0, 1))  # the pixel on the left
        y, x = np.nonzero((padded & ~beyond)[1:-1, 1:-1])
        edges |= {(px, py, direction) for px, py in (np.stack([x, y], axis=1) - right_hand).tolist()}
    loops = []
    while edges:
        x, y, direction = min(edges)
        loop = []
        while (x, y, direction) in edges:
            edges.remove((x, y, direction))
            loop.append((x, y, direction))
            x, y = x + STEPS[direction][0], y + STEPS[direction][1]
            turns = ((direction + turn) % 4 for turn in (1, 0, -1))  # right first
            direction = next((turned for turned in turns if (x, y, turned) in edges), direction)
        loops.append(np.array(loop))
    return loops


def _is_hole(loop: np.ndarray) -> bool:
    """Whether a loop encloses a hole: its signed area (shoelace formula) is negative."""
    (x, y), (next_x, next_y) = loop[:, :2].T, np.roll(loop[:, :2], -1, axis=0).T
    return bool((x * next_y - next_x * y).sum() < 0)


def _pixels(loop: np.ndarray) -> np.ndarray:
    """x, y (K, 2) of the pixels on the right of a loop's edges."""
    return loop[:, :2] + RIGHT_HAND[loop[:, 2]]


def _corners(points: np.ndarray) -> np.ndarray:
    """The corners (K, 2) of a closed line of unit steps."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    steps = np.roll(points, -1, axis=0) - points
    return points[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]
