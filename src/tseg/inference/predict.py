"""Patch-level similarities of pictures and their expressions (section 3.3, "Inference")."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.data.transforms import mirror_words, normalised, open_picture
from tseg.model.image_encoder import MEAN, STD
from tseg.model.tseg import TSEG
from tseg.records import pictures_of

PREDICTIONS = pa.schema(
    [
        ("record_id", pa.string()),
        ("grid_height", pa.int32()),  # patches
        ("grid_width", pa.int32()),
        ("similarities", pa.list_(pa.float16())),  # row by row
    ]
)


def predict_records(
    model: TSEG, records: pd.DataFrame, *, resolution: int, scales: Sequence[float], flip: bool
) -> pa.Table:
    """The similarities of every record, as `PREDICTIONS`, all expressions of a picture at once."""
    rows = []
    for file_name, of_picture, expressions in pictures_of(records, "predict"):
        maps = predict_similarities(
            model, open_picture(file_name), expressions, resolution=resolution, scales=scales, flip=flip
        )
        for record_id, expression in zip(of_picture["record_id"], of_picture["expression"], strict=True):
            similarities = maps[expressions.index(expression)]
            values = similarities.numpy().astype(np.float16).ravel()
            rows.append(dict(zip(PREDICTIONS.names, (record_id, *similarities.shape, values), strict=True)))
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
) -> Tensor:
    """s_ij of one picture, float32 (L, h, w), averaged over `scales` and, where `flip` is true, mirror images.

    The grid (h, w) is that of scale 1, the picture's longer side at `resolution` pixels; other scales are resized to it
    bilinearly. A mirror image is asked for the mirrored expression ("left" for "right").

    ASSUME: similarities are averaged before masks are made of them; the paper does not say where scales meet.
    """
    grid = grid_size(picture, resolution, model.patch_size)
    total = torch.zeros(len(expressions), *grid)
    views = [(scale, mirrored) for scale in scales for mirrored in ([False, True] if flip else [False])]
    for scale, mirrored in views:
        view = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture
        texts = [mirror_words(expression) for expression in expressions] if mirrored else expressions
        similarities = _similarities(model, view, texts, grid_size(picture, resolution * scale, model.patch_size))
        similarities = similarities.flip(-1) if mirrored else similarities
        total += interpolate(similarities[None], size=grid, mode="bilinear", align_corners=False)[0]
    return total / len(views)


def _similarities(model: TSEG, picture: Image.Image, expressions: list[str], grid: tuple[int, int]) -> Tensor:
    """S of one picture resized to a grid (h, w) of patches, on the CPU as (L, h, w)."""
    height, width = (side * model.patch_size for side in grid)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    pictures = torch.from_numpy(normalised(resized, MEAN, STD))[None].to(model.log_tau.device)
    return model(pictures, expressions)[0].T.unflatten(1, grid).float().cpu()
