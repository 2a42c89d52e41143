"""Patch-level similarities of pictures and their expressions (section 3.3, "Inference")."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.data.transforms import mirror_words, normalised, open_picture
from tseg.model.tseg import TSEG
from tseg.records import pictures_of

PREDICTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("expression", pa.string()),
        ("grid_height", pa.int32()),  # patches
        ("grid_width", pa.int32()),
        ("similarities", pa.list_(pa.float16())),  # row by row
    ]
)


def predict_records(
    model: TSEG,
    records: pd.DataFrame,
    *,
    words: Sequence[str] | None,
    resolution: int,
    scales: Sequence[float],
    flip: bool,
    flip_words: Literal["swap", "keep"],
) -> pa.Table:
    """The similarities of every picture to each of its expressions, or else of `words`, as `PREDICTIONS`.

    Where `words` are given every picture is asked for all of them, whatever its records say, and no flip changes them,
    as in training. `flip_words`: what a flip does to left and right in other expressions. Raises ValueError for a
    picture that cannot be read, and for an expression that a model with class encoding does not know.
    """
    views: dict[str, Any] = {"resolution": resolution, "scales": scales, "flip": flip}
    views["flip_words"] = flip_words if words is None else "keep"
    rows = []
    for file_name, of_picture, expressions in pictures_of(records, "predict"):
        asked = expressions if words is None else list(dict.fromkeys(words))
        maps = predict_similarities(model, open_picture(file_name), asked, **views)
        image_id = of_picture["image_id"].iloc[0]
        for expression, similarities in zip(asked, maps, strict=True):
            values = similarities.numpy().astype(np.float16).ravel()
            row = (image_id, expression, *similarities.shape, values)
            rows.append(dict(zip(PREDICTIONS.names, row, strict=True)))
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def grid_size(picture: Image.Image, resolution: float, patch_size: int) -> tuple[int, int]:
    """Patches (rows, columns) of a picture whose longer side is brought to `resolution` pixels, its aspect kept."""
    scale = resolution / max(picture.size) / patch_size
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return height, width


@torch.inference_mode()
def predict_similarities(
    model: TSEG,
    picture: Image.Image,
    expressions: list[str],
    *,
    resolution: int,
    scales: Sequence[float],
    flip: bool,
    flip_words: Literal["swap", "keep"],
) -> Tensor:
    """s_ij of one picture, float32 (L, h, w), averaged over `scales` and, where `flip` is true, mirror images.

    The grid (h, w) is that of scale 1, the picture's longer side at `resolution` pixels; other scales are resized to it
    bilinearly. Where `flip_words` is "swap" a mirror image is asked for the mirrored expression ("left" for "right").

    ASSUME: similarities are averaged before masks are made of them; the paper does not say where scales meet.
    """
    grid = grid_size(picture, resolution, model.patch_size)
    total = torch.zeros(len(expressions), *grid)
    views = [(scale, mirrored) for scale in scales for mirrored in ([False, True] if flip else [False])]
    for scale, mirrored in views:
        view = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture
        swapped = mirrored and flip_words == "swap"
        texts = [mirror_words(expression) for expression in expressions] if swapped else expressions
        similarities = _similarities(model, view, texts, grid_size(picture, resolution * scale, model.patch_size))
        similarities = similarities.flip(-1) if mirrored else similarities
        total += interpolate(similarities[None], size=grid, mode="bilinear", align_corners=False)[0]
    return total / len(views)


def _similarities(model: TSEG, picture: Image.Image, expressions: list[str], grid: tuple[int, int]) -> Tensor:
    """S of one picture resized to a grid (h, w) of patches, on the CPU as (L, h, w)."""
    height, width = (side * model.patch_size for side in grid)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    values = normalised(resized, model.image_encoder.mean, model.image_encoder.std)
    pictures = torch.from_numpy(values)[None].to(model.log_tau.device)
    return model(pictures, expressions)[0].T.unflatten(1, grid).float().cpu()
