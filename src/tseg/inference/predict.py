"""Patch-level similarities of images and their expressions (section 3.3, "Inference").

Images of one size pass the encoder together, and so do the expressions of all these images.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, product
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from tseg.encoding.tokens import Tokens
from tseg.images import open_image
from tseg.model.tseg import TSEG
from tseg.parts import Parts
from tseg.records import PREDICTIONS, ImageRecords, tables_of_images
from tseg.threads import in_order
from tseg.transforms import each_view, mirror_words, whole_view

IMAGES_AT_ONCE = 32
"""Images whose views are sorted by size, and whose expressions are encoded together."""
PATCHES_AT_ONCE, PATCHES_AT_ONCE_ON_CPU = 32 * 768, 4 * 768
"""Patches, of views of one size, that an encoder sees at once; a processor is no faster with more."""
EXPRESSIONS_AT_ONCE = 256


class Seen(NamedTuple):
    """How a model sees an image: the views, their windows, and the encoders' precision."""

    resolution: int
    """Pixels of an image's shorter side at scale 1."""
    scales: Sequence[float] = (1.0,)
    flip: bool = False
    """Whether the mirror image is a view too, at every scale."""
    flip_words: Literal["swap", "keep"] = "keep"
    """Whether expressions swap left and right for a mirror image."""
    window: int | None = None
    """Pixels of the side of the windows that the encoder sees one by one, as Segmenter's; None: the image at once."""
    precision: torch.dtype = torch.float32


class View(NamedTuple):
    """The similarities of one image at one scale, or of its mirror image."""

    scale: float
    flipped: bool
    similarities: Tensor
    """s_ij, float32 (L, h, w), in the orientation of the image."""


class Texts:
    """Embedded expressions."""

    def __init__(self, model: TSEG, expressions: Iterable[str], seen: Seen):
        """Encode each distinct one of the `expressions`, those of about one length together, and its mirror image.

        Raises ValueError for an expression that is not a class of a model with class encoding.
        """
        self.swaps = seen.flip and seen.flip_words == "swap"
        known = dict.fromkeys(expressions)
        if self.swaps:
            known |= dict.fromkeys(map(mirror_words, known))
        ordered = sorted(known, key=len)
        self.rows = {expression: row for row, expression in enumerate(ordered)}
        some = (ordered[start : start + EXPRESSIONS_AT_ONCE] for start in range(0, len(ordered), EXPRESSIONS_AT_ONCE))
        with torch.inference_mode(), _autocast(model, seen):
            self.embedded = torch.cat([model.embed_expressions(expressions) for expressions in some])

    def __call__(self, expressions: Sequence[str], flipped: bool) -> Tensor:
        """Unit vectors y, float32 (L, D), of L expressions, or of what they say of the mirror image."""
        if flipped and self.swaps:
            expressions = [mirror_words(expression) for expression in expressions]
        return self.embedded[[self.rows[expression] for expression in expressions]]


def predict_records(
    model: TSEG,
    records: pd.DataFrame,
    seen: Seen,
    *,
    words: Sequence[str] | None,
    patches: Tokens | None = None,
    parts: Parts | None = None,
    num_threads: int = 1,
) -> Iterator[pa.Table]:
    """The similarities of every image to each of its expressions, as tables of `PREDICTIONS`, the images in order.

    With `words`, every image is compared to all of them instead; as in training with classes, a flip leaves them
    unchanged. `patches` holds the tokens of all views of every image, `parts` the rows of images that are done. Images
    are read in `num_threads` threads. Raises ValueError for an image that cannot be read, and for an expression that is
    not a class of a model with class encoding.
    """
    same = None if words is None else list(dict.fromkeys(words))
    seen = seen if same is None else seen._replace(flip_words="keep")
    of_all = None if same is None else Texts(model, same, seen)

    def read(image: ImageRecords) -> list[np.ndarray]:
        if patches:
            return patches.views(image.image_id)
        return view_pixels(model, open_image(image.file_name, size=image.size), seen)

    def rows_of(images: Iterator[ImageRecords]) -> Iterator[Iterator[dict[str, Any]]]:
        reading = in_order(lambda image: (image, read(image)), images, num_threads, ahead=IMAGES_AT_ONCE)
        while some := list(islice(reading, IMAGES_AT_ONCE)):
            questions = [image.expressions if same is None else same for image, _ in some]
            texts = of_all or Texts(model, chain(*questions), seen)
            answers = _predict(model, [views for _, views in some], questions, texts, seen)
            for (image, _), expressions, views in zip(some, questions, answers, strict=True):
                yield _rows(image.image_id, expressions, views)

    return tables_of_images(records, rows_of, PREDICTIONS, what="predict", parts=parts, batch_size=IMAGES_AT_ONCE)


def _rows(image_id: str, expressions: Sequence[str], views: Sequence[View]) -> Iterator[dict[str, Any]]:
    """The rows of one image: those of a view after those of another."""
    for scale, flipped, maps in views:
        for expression, values in zip(expressions, maps.half().numpy(), strict=True):
            row = (image_id, expression, scale, flipped, *values.shape, values.ravel())
            yield dict(zip(PREDICTIONS.names, row, strict=True))


def predict_views(
    model: TSEG, image: Image.Image | Sequence[np.ndarray], expressions: list[str], seen: Seen
) -> list[View]:
    """The similarities of one image to L expressions in all views: each scale and, with `flip`, its mirror image.

    `image` is an RGB image, or the tokens (h, w, D_I) of its views in order.
    """
    views = view_pixels(model, image, seen) if isinstance(image, Image.Image) else image
    return _predict(model, [views], [expressions], Texts(model, expressions, seen), seen)[0]


def view_pixels(model: TSEG, image: Image.Image, seen: Seen) -> list[np.ndarray]:
    """What the encoder sees of an RGB image in each view: uint8 (H, W, 3), its sides multiples of the patch size."""
    views: list[np.ndarray] = []
    for scale in seen.scales:
        size = seen.resolution * scale
        view = whole_view(*image.size, resolution=size, patch_size=model.patch_size, flipped=False)
        pixels = np.asarray(view(image))
        views += [pixels, pixels[:, ::-1]] if seen.flip else [pixels]
    return views


@torch.inference_mode()
def _predict(
    model: TSEG,
    images: Sequence[Sequence[np.ndarray]],
    questions: Sequence[Sequence[str]],
    texts: Texts,
    seen: Seen,
) -> list[list[View]]:
    """The similarities of each image, given as the pixels or tokens of its views, to its own expressions."""
    views: list[list[View]] = [[] for _ in images]
    kinds = list(each_view(seen.scales, seen.flip))
    for number, batch, patches in embed_views(model, images, seen):
        scale, flipped = kinds[number]
        compared = [
            model.compare(of_image.flatten(0, 1), texts(questions[index], flipped)).T.flatten()
            for index, of_image in zip(batch, patches, strict=True)
        ]
        # One transfer from a GPU.
        found = torch.cat(compared).cpu().split([len(each) for each in compared])
        for index, values in zip(batch, found, strict=True):
            maps = values.unflatten(0, (-1, *patches.shape[1:3]))
            views[index].append(View(scale, flipped, maps.flip(-1) if flipped else maps))
    return views


def embed_views(
    model: TSEG, images: Sequence[Sequence[np.ndarray]], seen: Seen
) -> Iterator[tuple[int, list[int], Tensor]]:
    """The patches of images, given as the pixels or tokens of their views; views of one size are embedded together.

    Yields, view after view, the number of the view, the indices of B images, and x, float32 (B, h, w, D).
    """
    for number in range(len(images[0])):
        for batch in _alike(model, [of_image[number] for of_image in images]):
            yield number, batch, _embed(model, np.stack([images[index][number] for index in batch]), seen)


def _alike(model: TSEG, views: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """The indices of the views, those of equal shapes together in batches of a limited number of patches."""
    most = PATCHES_AT_ONCE_ON_CPU if model.log_tau.device.type == "cpu" else PATCHES_AT_ONCE
    for shape in dict.fromkeys(view.shape for view in views):
        indices = [index for index, view in enumerate(views) if view.shape == shape]
        is_image = views[indices[0]].dtype == np.uint8
        size = max(1, most // (shape[0] * shape[1] // (model.patch_size**2 if is_image else 1)))
        yield from (indices[start : start + size] for start in range(0, len(indices), size))


def _embed(model: TSEG, views: np.ndarray, seen: Seen) -> Tensor:
    """Patches x, float32 (B, h, w, D), of the pixels, uint8 (B, H, W, 3), or tokens, float16 (B, h, w, D_I), of views.

    Where windows overlap, the embeddings of a patch, and thus its similarities, are averaged.
    """
    batch = torch.from_numpy(views).to(model.log_tau.device)
    with _autocast(model, seen):
        if batch.dtype != torch.uint8:
            return model.embed_patches(batch.flatten(1, 2)).unflatten(1, batch.shape[1:3])
        if seen.window is None:
            return _embed_pixels(model, batch)
        grid = [length // model.patch_size for length in batch.shape[1:3]]
        side = max(1, round(seen.window / model.patch_size))
        total = model.log_tau.new_zeros(len(batch), *grid, model.project_expressions.out_features)
        count = total.new_zeros(*grid, 1)
        for rows, columns in product(*(_windows(length, side) for length in grid)):
            pixels = (slice(part.start * model.patch_size, part.stop * model.patch_size) for part in (rows, columns))
            total[:, rows, columns] += _embed_pixels(model, batch[:, *pixels])
            count[rows, columns] += 1
        return total / count


def _embed_pixels(model: TSEG, pixels: Tensor) -> Tensor:
    """Patches x, float32 (B, h, w, D), of pixels, uint8 (B, H, W, 3)."""
    return model.embed_patches(pixels).unflatten(1, (pixels.shape[1] // model.patch_size, -1))


def _autocast(model: TSEG, seen: Seen) -> torch.autocast:
    return torch.autocast(model.log_tau.device.type, seen.precision, enabled=seen.precision != torch.float32)


def _windows(length: int, side: int) -> Iterable[slice]:
    """Cover `length` patches by windows of `side`: one beside the other, the last one moved back to the border.

    ASSUME: a stride of `side`, Segmenter's default.
    """
    last = max(0, length - side)
    return [slice(start, min(start + side, length)) for start in [*range(0, last, side), last]]
