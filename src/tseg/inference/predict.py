"""Patch-level similarities of images and their expressions (section 3.3, "Inference")."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from tseg.encoding.tokens import Tokens
from tseg.images import normalised, open_image
from tseg.model.tseg import TSEG
from tseg.parts import Parts
from tseg.records import PREDICTIONS, ImageRecords, table_of_images
from tseg.transforms import each_view, mirror_words, whole_view


class View(NamedTuple):
    """The similarities of one image at one scale, or of its mirror image."""

    scale: float
    flipped: bool
    similarities: Tensor
    """s_ij, float32 (L, h, w), in the orientation of the image."""


def predict_records(
    model: TSEG,
    records: pd.DataFrame,
    *,
    words: Sequence[str] | None,
    resolution: int,
    scales: Sequence[float],
    flip: bool,
    flip_words: Literal["swap", "keep"],
    window: int | None = None,
    patches: Tokens | None = None,
    parts: Parts | None = None,
) -> pa.Table:
    """The similarities of every image to each of its expressions, as a table of `PREDICTIONS`.

    With `words`, every image is compared to all of them instead; as in training with classes, a flip leaves them
    unchanged. `patches` holds the tokens of all views of every image, `parts` the rows of images that are done. For the
    other arguments see `predict_views`.
    Raises ValueError for an image that cannot be read, and for an expression that is not a class of a model with class
    encoding.
    """

    def rows_of(image: ImageRecords) -> Iterator[dict[str, Any]]:
        expressions = image.expressions if words is None else list(dict.fromkeys(words))
        views = predict_views(
            model,
            open_image(image.file_name) if patches is None else patches.views(image.image_id),
            expressions,
            resolution=resolution,
            scales=scales,
            flip=flip,
            flip_words=flip_words if words is None else "keep",
            window=window,
        )
        for scale, flipped, maps in views:
            for expression, similarities in zip(expressions, maps, strict=True):
                values = similarities.numpy().astype(np.float16).ravel()
                row = (image.image_id, expression, scale, flipped, *similarities.shape, values)
                yield dict(zip(PREDICTIONS.names, row, strict=True))

    return table_of_images(records, rows_of, PREDICTIONS, what="predict", parts=parts)


@torch.inference_mode()
def predict_views(
    model: TSEG,
    image: Image.Image | Sequence[np.ndarray],
    expressions: list[str],
    *,
    resolution: int,
    scales: Sequence[float],
    flip: bool,
    flip_words: Literal["swap", "keep"],
    window: int | None = None,
) -> list[View]:
    """The similarities of one image to L expressions at all `scales` and, with `flip`, those of its mirror images.

    `image` is an RGB image, or the tokens (h, w, D_I) of its views in order: each scale, and then its mirror image.
    At scale 1, the image's shorter side has `resolution` pixels. With `flip_words` "swap", expressions swap left and
    right for a mirror image. `window`: pixels of the side of the windows that the encoder sees one by one, as
    Segmenter's; None for the whole image at once.
    """
    views: list[View] = []
    for number, (scale, flipped) in enumerate(each_view(scales, flip)):
        swapped = flipped and flip_words == "swap"
        texts = [mirror_words(expression) for expression in expressions] if swapped else expressions
        if isinstance(image, Image.Image):
            size = resolution * scale
            view = whole_view(*image.size, resolution=size, patch_size=model.patch_size, flipped=flipped)
            similarities = _similarities(model, view(image), texts, window)
        else:
            tokens = torch.tensor(image[number], device=model.log_tau.device)
            similarities = model(tokens.flatten(0, 1)[None], texts)[0].T.unflatten(1, tokens.shape[:2]).float().cpu()
        views.append(View(scale, flipped, similarities.flip(-1) if flipped else similarities))
    return views


def _similarities(model: TSEG, image: Image.Image, expressions: list[str], window: int | None) -> Tensor:
    """S of one image, whose sides are multiples of the patch size: float32 (L, h, w) on the CPU.

    Where windows overlap, the similarities of a patch are averaged.
    """
    grid = image.height // model.patch_size, image.width // model.patch_size
    values = normalised(image, model.image_encoder.mean, model.image_encoder.std)
    images = torch.from_numpy(values)[None].to(model.log_tau.device)
    side = max(1, round(window / model.patch_size)) if window else max(grid)
    total, count = torch.zeros(len(expressions), *grid), torch.zeros(grid)
    for rows, columns in product(*(_windows(length, side) for length in grid)):
        pixels = (slice(part.start * model.patch_size, part.stop * model.patch_size) for part in (rows, columns))
        inside = images[:, :, *pixels]
        shape = rows.stop - rows.start, columns.stop - columns.start
        total[:, rows, columns] += model(inside, expressions)[0].T.unflatten(1, shape).float().cpu()
        count[rows, columns] += 1
    return total / count


def _windows(length: int, side: int) -> Iterable[slice]:
    """Cover `length` patches by windows of `side`: one beside the other, the last one moved back to the border.

    ASSUME: a stride of `side`, Segmenter's default.
    """
    last = max(0, length - side)
    return [slice(start, min(start + side, length)) for start in [*range(0, last, side), last]]
