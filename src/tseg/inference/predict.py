"""Patch-level similarities of images and their expressions (section 3.3, "Inference")."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.images import normalised, open_image
from tseg.model.tseg import TSEG
from tseg.records import PREDICTIONS, images_of
from tseg.transforms import mirror_words


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
    """The similarities of every image to each of its expressions, as a table of `PREDICTIONS`.

    With `words`, every image is compared to all of them instead; as in training with classes, a flip leaves them
    unchanged. `flip_words`: whether a flip swaps left and right in the expressions. Raises ValueError for an image that
    cannot be read, and for an expression that is not a class of a model with class encoding.
    """
    rows: list[dict[str, Any]] = []
    for file_name, image_records, own_expressions in images_of(records, "predict"):
        expressions = own_expressions if words is None else list(dict.fromkeys(words))
        maps = predict_similarities(
            model,
            open_image(file_name),
            expressions,
            resolution=resolution,
            scales=scales,
            flip=flip,
            flip_words=flip_words if words is None else "keep",
        )
        image_id: str = image_records["image_id"].iloc[0]
        for expression, similarities in zip(expressions, maps, strict=True):
            values = similarities.numpy().astype(np.float16).ravel()
            row = (image_id, expression, *similarities.shape, values)
            rows.append(dict(zip(PREDICTIONS.names, row, strict=True)))
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def grid_size(image: Image.Image, resolution: float, patch_size: int) -> tuple[int, int]:
    """Grid of patches (rows, columns) of an image whose longer side is resized to `resolution` pixels."""
    scale = resolution / max(image.size) / patch_size
    width, height = (max(1, round(side * scale)) for side in image.size)
    return height, width


@torch.inference_mode()
def predict_similarities(
    model: TSEG,
    image: Image.Image,
    expressions: list[str],
    *,
    resolution: int,
    scales: Sequence[float],
    flip: bool,
    flip_words: Literal["swap", "keep"],
) -> Tensor:
    """s_ij of one image, float32 (L, h, w), averaged over `scales` and, with `flip`, their mirror images.

    The grid (h, w) is that of scale 1, at which the image's longer side has `resolution` pixels; the similarities at
    other scales are resized to it bilinearly. With `flip_words` "swap", expressions are mirrored with the image.

    ASSUME: scales are averaged as similarities, before masks; the paper does not say where they are combined.
    """
    grid = grid_size(image, resolution, model.patch_size)
    total = torch.zeros(len(expressions), *grid)
    views = [(scale, mirrored) for scale in scales for mirrored in ([False, True] if flip else [False])]
    for scale, mirrored in views:
        view = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
        swapped = mirrored and flip_words == "swap"
        texts = [mirror_words(expression) for expression in expressions] if swapped else expressions
        similarities = _similarities(model, view, texts, grid_size(image, resolution * scale, model.patch_size))
        similarities = similarities.flip(-1) if mirrored else similarities
        total += interpolate(similarities[None], size=grid, mode="bilinear", align_corners=False)[0]
    return total / len(views)


def _similarities(model: TSEG, image: Image.Image, expressions: list[str], grid: tuple[int, int]) -> Tensor:
    """S of one image resized to a `grid` (h, w) of patches: float32 (L, h, w) on the CPU."""
    height, width = (side * model.patch_size for side in grid)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    values = normalised(resized, model.image_encoder.mean, model.image_encoder.std)
    images = torch.from_numpy(values)[None].to(model.log_tau.device)
    return model(images, expressions)[0].T.unflatten(1, grid).float().cpu()
