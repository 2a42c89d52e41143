"""Batches of images with some of what is said of them (section 3.3)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tseg.images import normalised, open_image
from tseg.records import decode_mask
from tseg.transforms import Crop, filled_box, mirror_words, random_crop

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """B images, the L distinct expressions they are asked for and, with pixels, P pairs of the two."""

    images: Tensor
    """float32 (B, 3, resolution, resolution), normalised."""
    expressions: list[str]
    """L distinct expressions."""
    positives: list[frozenset[str]]
    """For each image all its expressions, drawn or not."""
    pairs: Tensor | None = None
    """int64 (P, 2): index of the image and index of the expression of each record drawn."""
    masks: Tensor | None = None
    """bool (P, resolution, resolution): the mask of each record drawn, or its box filled."""
    counted: Tensor | None = None
    """bool (P, resolution, resolution): False where the record says that a pixel does not count."""


@dataclass(frozen=True)
class Sampling:
    """Which images come when, how they are cropped, and how much of what is said of them (section 4.2).

    Batch number `iteration` is a function of the seed and that number alone: a resumed training sees what an unbroken
    one sees, however many processes prepare the batches.
    """

    batch_size: int
    expressions_per_image: int
    resolution: int
    scale: tuple[float, float]
    flip: bool
    flip_words: Literal["swap", "keep"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    seed: int

    def generator(self, iteration: int) -> np.random.Generator:
        """The random numbers of a batch."""
        return np.random.default_rng([self.seed, iteration])

    def crops(
        self, images: Sequence[tuple[Path, T]], iteration: int, generator: np.random.Generator
    ) -> Iterator[tuple[T, Crop, np.ndarray]]:
        """What is said of each image of a batch, its crop, and its pixels so cropped and normalised, (3, R, R)."""
        for number in range(iteration * self.batch_size, (iteration + 1) * self.batch_size):
            epoch, place = divmod(number, len(images))
            path, said = images[_order(self.seed, epoch, len(images))[place]]
            image = open_image(path)
            crop = random_crop(generator, *image.size, resolution=self.resolution, scale=self.scale, flip=self.flip)
            yield said, crop, normalised(crop(image), self.mean, self.std)

    def draw(self, generator: np.random.Generator, said: Sequence[T]) -> list[T]:
        """So many of them as an image is asked for, each equally likely."""
        num_drawn = min(len(said), self.expressions_per_image)
        return [said[i] for i in generator.choice(len(said), num_drawn, replace=False)]

    def as_seen(self, expression: str, crop: Crop) -> str:
        """The expression as it reads in the crop."""
        return mirror_words(expression) if crop.flipped and self.flip_words == "swap" else expression


class WeakBatches(Dataset[Batch]):
    """Batches of weak supervision: images and expressions; no mask is read.

    Given the `classes` of a semantic data set, the expressions of every batch are all of these, in order, and no flip
    changes their words.
    """

    def __init__(self, records: pd.DataFrame, sampling: Sampling, *, classes: Sequence[str] | None = None):
        self.images = [
            (path, list(dict.fromkeys(expressions))) for path, expressions in _by_image(records, records["expression"])
        ]
        self.sampling = sampling if classes is None else replace(sampling, flip_words="keep")
        self.classes = classes

    def __getitem__(self, iteration: int) -> Batch:
        generator = self.sampling.generator(iteration)
        images, drawn, positives = [], [], []
        for said, crop, image in self.sampling.crops(self.images, iteration, generator):
            expressions = list(dict.fromkeys(self.sampling.as_seen(expression, crop) for expression in said))
            drawn += self.sampling.draw(generator, expressions)
            images.append(image)
            positives.append(frozenset(expressions))
        return Batch(torch.from_numpy(np.stack(images)), list(self.classes or dict.fromkeys(drawn)), positives)


class PixelBatches(Dataset[Batch]):
    """Batches with pixels: images and some of their records, each with its `region`.

    That is the record's mask (full supervision) or its box filled (box pretraining), cropped as the image is. Records
    are drawn, not expressions: two records of one image may say the same of two regions. Raises ValueError where a
    record has no such region.
    """

    def __init__(self, records: pd.DataFrame, sampling: Sampling, *, region: Literal["mask", "box"]):
        if num_without := np.count_nonzero(records[region].isna()):
            raise ValueError(
                f"{num_without} of the {len(records)} records to train on have no {region}; give every record a mask "
                "and prepare them again, or choose weak supervision, which needs none"
            )
        columns = records[["expression", "height", "width", region, "ignore"]]
        self.images = _by_image(records, map(_Said._make, columns.itertuples(index=False, name=None)))
        self.sampling = sampling

    def __getitem__(self, iteration: int) -> Batch:
        sampling, generator = self.sampling, self.sampling.generator(iteration)
        images, positives, pairs, masks, counted = [], [], [], [], []
        numbers: dict[str, int] = {}
        for said, crop, image in sampling.crops(self.images, iteration, generator):
            for record in sampling.draw(generator, said):
                expression = sampling.as_seen(record.expression, crop)
                pairs.append((len(images), numbers.setdefault(expression, len(numbers))))
                masks.append(_cropped(record.mask(), crop))
                # ASSUME: what a crop adds around the image counts, as background: the encoder sees it, and nothing
                # that is referred to is there.
                counted.append(~_cropped(record.ignored(), crop))
            images.append(image)
            positives.append(frozenset(sampling.as_seen(record.expression, crop) for record in said))
        arrays = (np.stack(parts) for parts in (images, pairs, masks, counted))
        pixels, *of_pairs = map(torch.from_numpy, arrays)
        return Batch(pixels, list(numbers), positives, *of_pairs)


class _Said(NamedTuple):
    """What `PixelBatches` keeps of a record."""

    expression: str
    height: int
    width: int
    region: str | np.ndarray
    ignore: str | None

    def mask(self) -> np.ndarray:
        if isinstance(self.region, str):
            return decode_mask(self.region, self.height, self.width)
        return filled_box(self.region, self.height, self.width)

    def ignored(self) -> np.ndarray:
        if isinstance(self.ignore, str):
            return decode_mask(self.ignore, self.height, self.width)
        return np.zeros((self.height, self.width), bool)


def load_batches(batches: Dataset[Batch], start: int, stop: int, num_workers: int) -> DataLoader[Batch]:
    """Batches number `start` to `stop` - 1, in order, prepared by `num_workers` processes (0: by this one)."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=num_workers,
        # Fork would copy the threads of torch in an unknown state.
        multiprocessing_context="spawn" if num_workers else None,
    )


def share_of(records: pd.DataFrame, share: float, seed: int = 0) -> pd.DataFrame:
    """The records of a `share` in (0, 1] of the images, at least of one, drawn at random (Table 2d).

    For the same seed a larger share holds every image of a smaller one. A share of 1 is the records unchanged.
    """
    if share == 1:
        return records
    files = list(dict.fromkeys(records["file_name"]))
    order = np.random.default_rng(seed).permutation(len(files))
    chosen = [files[place] for place in order[: max(1, round(share * len(files)))]]
    return records.loc[records["file_name"].isin(chosen)].reset_index(drop=True)


def _by_image(records: pd.DataFrame, said: Iterable[T]) -> list[tuple[Path, list[T]]]:
    """Path of every image, in the order of their first records, and what its records say."""
    images: dict[str, list[T]] = {}
    for file_name, of_record in zip(records["file_name"], said, strict=True):
        images.setdefault(file_name, []).append(of_record)
    return [(Path(file_name), of_image) for file_name, of_image in images.items()]


@lru_cache(maxsize=2)  # a batch may lie in two epochs
def _order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """In which order an epoch shows the images."""
    return np.random.default_rng([seed, epoch, 1]).permutation(num_images)


def _cropped(mask: np.ndarray, crop: Crop) -> np.ndarray:
    return np.asarray(crop(Image.fromarray(mask.astype(np.uint8)))) > 0
