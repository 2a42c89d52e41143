"""How SPA and MPA assign the patches that two expressions share (Figure 3)."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from tseg.images import open_image
from tseg.progress import progress
from tseg.records import decode_mask
from tseg.reporting.figures.overlay import COLOURS, TRUTH, Look, overlay, pale, working_mask, working_size
from tseg.reporting.figures.panels import Panel, PanelRow, write_panels

SHARED, OUTLINE = Look(COLOURS[6], "outline"), Look(TRUTH.colour, "outline")
LEAST_SHARED, MOST_SHARED = 0.2, 0.95  # fractions of the smaller mask
COLOUR_MAP = "cividis"
SCALE = "mask weight m of a patch", COLOUR_MAP
RULE = (
    "The true masks of the two expressions share {share} of the smaller mask. Among all such pairs of the split, this"
    " one has the highest mean similarity to the shared patches (the lower mean of the two expressions). {contained}"
    "Both weights come from the same similarities; SPA's softmax is over the image's {num_expressions} expressions and"
    " the background."
)
CONTAINED = "No pair shares {least:.0%} to {most:.0%}. "

Maps = dict[tuple[str, str], np.ndarray]  # image and expression to similarities, float32 (h, w)


class Pair(NamedTuple):
    """Records of two expressions of an image. Pairs are ordered by `apart`, then by `similarity`."""

    apart: bool  # neither mask nearly contains the other
    similarity: float  # the lower of the two means over the shared patches
    records: tuple[Any, Any]
    shared: np.ndarray  # pixels, bool (height, width)


def draw_assignment(
    records: pd.DataFrame, predictions: pd.DataFrame, output: Path, *, title: str, caption: str
) -> None:
    """Write a PNG with a row per expression of a pair: its true mask, and its mask weights by eq. 5 and eq. 6.

    `predictions` has the columns of `PREDICTIONS`; of several views, the first is drawn. The caption states how the
    pair is chosen. Raises ValueError if no record has a true mask, no two masks overlap, or a
    similarity is missing.
    """
    maps = _maps(predictions)
    pair = _choose(records.dropna(subset="mask"), maps)
    image_id = pair.records[0].image_id
    expressions = list(dict.fromkeys(records.loc[records["image_id"] == image_id, "expression"]))
    weights = _weights(np.stack([_similarities(maps, image_id, expression) for expression in expressions]))
    first = pair.records[0]
    image = working_size(open_image(first.file_name, size=(first.width, first.height)))
    shared = working_mask(pair.shared, image.size)
    rows = []
    for record in pair.records:
        truth = working_mask(decode_mask(record.mask, *pair.shared.shape), image.size)
        panels = [Panel(image), Panel(overlay(overlay(pale(image), [truth], [TRUTH]), [shared], [SHARED]))]
        for assigned in weights.values():
            values = assigned[expressions.index(record.expression)]
            text = f"mean where shared {_mean(values, pair.shared):.2f}"
            heat = overlay(_heat(values, image.size), [truth], [OUTLINE])
            panels.append(Panel(overlay(heat, [shared], [SHARED]), corner=text))
        rows.append(PanelRow(panels, heading=record.expression))
    share = f"{LEAST_SHARED:.0%} to {MOST_SHARED:.0%}" if pair.apart else f"more than {MOST_SHARED:.0%}"
    contained = "" if pair.apart else CONTAINED.format(least=LEAST_SHARED, most=MOST_SHARED)
    rule = RULE.format(share=share, contained=contained, num_expressions=len(expressions))
    keys = {"true mask": TRUTH, "shared by both": SHARED}
    columns = ["image", "truth", *weights]
    write_panels(rows, columns, output, title=title, caption=f"{caption} {rule}", keys=keys, scale=SCALE)


def _maps(predictions: pd.DataFrame) -> Maps:
    names = ["image_id", "expression", "grid_height", "grid_width", "similarities"]
    columns = predictions.drop_duplicates(["image_id", "expression"])[names].to_numpy()
    return {(image, text): np.asarray(values, np.float32).reshape(grid) for image, text, *grid, values in columns}


def _choose(records: pd.DataFrame, maps: Maps) -> Pair:
    if records.empty:
        raise ValueError(
            "the records have no masks, and this figure needs true masks that overlap; draw expressions instead"
        )
    best = None
    images = records.drop_duplicates(["image_id", "expression"]).groupby("image_id", sort=False)
    for _, of_image in progress(images, "draw", "images", images.ngroups):
        for pair in _pairs(list(of_image.itertuples()), maps):
            best = pair if best is None or pair[:2] > best[:2] else best
    if best is None:
        raise ValueError(
            "no two expressions of an image have overlapping true masks; choose a data set with overlapping masks"
        )
    return best


def _pairs(records: list[Any], maps: Maps) -> Iterator[Pair]:
    """Yield the pairs of records of an image whose masks share enough."""
    decoded = [(record, decode_mask(record.mask, record.height, record.width)) for record in records]
    for (first, first_mask), (second, second_mask) in combinations(decoded, 2):
        shared = first_mask & second_mask
        share = shared.sum() / max(1, min(first_mask.sum(), second_mask.sum()))
        if share >= LEAST_SHARED:
            pair = first, second
            means = [_mean(_similarities(maps, record.image_id, record.expression), shared) for record in pair]
            yield Pair(bool(share <= MOST_SHARED), min(means), pair, shared)


def _similarities(maps: Maps, image_id: str, expression: str) -> np.ndarray:
    if (image_id, expression) not in maps:
        raise ValueError(f"there is no prediction for {expression!r} in the image {image_id}; predict it too")
    return maps[image_id, expression]


def _mean(values: np.ndarray, mask: np.ndarray) -> float:
    """Average values on a grid (h, w), each patch weighted by its overlap with the mask (height, width)."""
    portions = Image.fromarray(mask.astype(np.float32)).resize(values.shape[::-1], Image.Resampling.BOX)
    return float(np.average(values, weights=np.asarray(portions)))


def _weights(similarities: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the mask weights (L, h, w) by SPA and by MPA from similarities (L, h, w)."""
    import torch

    from tseg.model.pooling import mpa_masks, spa_masks

    expressions_last = torch.from_numpy(similarities).movedim(0, -1)
    assignments = {"SPA weights (eq. 5)": spa_masks, "MPA weights (eq. 6)": mpa_masks}
    return {name: assign(expressions_last).movedim(-1, 0).numpy() for name, assign in assignments.items()}


def _heat(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Draw values in [0, 1] on a grid as coloured patches."""
    from matplotlib import colormaps

    colours = colormaps[COLOUR_MAP](values, bytes=True)[..., :3]
    return Image.fromarray(np.ascontiguousarray(colours)).resize(size, Image.Resampling.NEAREST)
