"""Batches of images and expressions (section 3.3)."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import chain, combinations
from mmap import ACCESS_READ, mmap
from multiprocessing.reduction import DupFd
from typing import IO, Any, Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tseg.encoding.tokens import Tokens
from tseg.encoding.views import fixed_crop
from tseg.images import open_image
from tseg.records import decode_mask
from tseg.settings.encodings import CropViews
from tseg.training.interruption import ignore_signals
from tseg.training.ranks import ALONE, Ranks
from tseg.transforms import Crop, filled_box, mirror_words, random_crop

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """B images, L distinct expressions and, for supervision by pixels, P pairs of the two."""

    images: Tensor
    """Pixels, uint8 (B, resolution, resolution, 3); or, from a frozen encoder, their tokens (B, N, D_I).

    Of a training on several GPUs, those of this rank alone; all other fields are of the whole batch.
    """
    expressions: list[str]
    """L distinct expressions."""
    positives: list[frozenset[str]]
    """All expressions of each image, drawn or not."""
    texts: Tensor | None = None
    """The tokens (L, D_T) of the expressions, from a frozen encoder."""
    pairs: Tensor | None = None
    """int64 (P, 2): the image index and the expression index of each drawn record."""
    masks: Tensor | None = None
    """bool (P, resolution, resolution): the mask of each drawn record, or its filled box."""
    counted: Tensor | None = None
    """bool (P, resolution, resolution): False for pixels that the record ignores."""
    apart: Tensor | None = None
    """int64 (Q, 3): an image and two of its expressions that describe different regions, for every such pair."""

    def pin_memory(self) -> "Batch":
        """The batch in memory from which a GPU copies while it computes. PyTorch's loader calls this."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; pinned tensors are copied meanwhile."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        tensors = ((field.name, getattr(self, field.name)) for field in fields(self))
        return replace(self, **{name: change(value) for name, value in tensors if isinstance(value, Tensor)})


@dataclass(frozen=True)
class Sampling:
    """The order of the images, their crops, and how many expressions are drawn for them (section 4.2).

    A batch depends only on the seed and its `iteration`. A resumed training therefore sees the same batches as an
    uninterrupted one, with any number of worker processes.
    """

    batch_size: int
    expressions_per_image: int
    resolution: int
    scale: tuple[float, float]
    flip: bool
    flip_words: Literal["swap", "keep"]
    seed: int
    views: CropViews | None = None
    """The fixed crops of each image. Default: a new crop each time."""
    patches: Tokens | None = None
    """The patch tokens of the fixed crops."""
    texts: Tokens | None = None
    """The tokens of the expressions."""
    ranks: Ranks = ALONE
    """Whose share of the images is read."""

    def generator(self, iteration: int) -> np.random.Generator:
        """The random number generator of a batch."""
        return np.random.default_rng([self.seed, iteration])

    def crops(
        self, images: "ImageTable", iteration: int, generator: np.random.Generator
    ) -> "Iterator[tuple[ImageItems, Crop, list[np.ndarray]]]":
        """Yield each image of a batch with its records, its crop, and what the model sees.

        That is the pixels, uint8 (R, R, 3), or, with `patches`, the tokens (N, D_I); nothing for an image of another
        rank.
        """
        own = range(self.batch_size)[self.ranks.share(self.batch_size)]
        for index in range(self.batch_size):
            epoch, position = divmod(iteration * self.batch_size + index, len(images))
            image = images[int(_order(self.seed, epoch, len(images))[position])]
            view, size = 0, (image.width, image.height)
            if self.views is None:
                crop = random_crop(generator, *size, resolution=self.resolution, scale=self.scale, flip=self.flip)
            else:
                view = int(generator.integers(self.views.num_views))
                crop = fixed_crop(self.views, view, image.image_id, *size)
            if index not in own:
                yield image, crop, []
            elif self.patches is None:
                # Fixed crops are seen as `tseg encode` sees them.
                shorter_side = None if self.views else min(crop.width, crop.height)
                yield image, crop, [np.asarray(crop(open_image(image.path, size=size, shorter_side=shorter_side)))]
            else:
                tokens = self.patches[image.image_id, view]
                yield image, crop, [tokens.reshape(-1, tokens.shape[-1])]

    def draw(self, generator: np.random.Generator, items: Sequence[Sequence[T]]) -> list[list[T]]:
        """Draw some of the `items` of each of B images; those of an image are equally likely.

        The images share a budget of B times `expressions_per_image`. They give one item each in turn, in a random order
        of images, until the budget is spent: each gives at least one, and some give more than the average only if
        others have fewer.
        """
        orders = [generator.permutation(len(own)) for own in items]
        ranks = generator.permutation(len(items)).tolist()
        turns = sorted((turn, ranks[image], image) for image, own in enumerate(items) for turn in range(len(own)))
        drawn: list[list[T]] = [[] for _ in items]
        for turn, _, image in turns[: len(items) * self.expressions_per_image]:
            drawn[image].append(items[image][orders[image][turn]])
        return drawn

    def text_tokens(self, expressions: Iterable[str]) -> Tensor | None:
        """The tokens, (L, D_T), of L expressions; None if the model encodes them itself."""
        if self.texts is None:
            return None
        return torch.from_numpy(np.concatenate([self.texts[expression, 0][0] for expression in expressions]))

    def as_seen(self, expression: str, crop: Crop) -> str:
        """The expression with left and right swapped if the crop is flipped and `flip_words` is "swap"."""
        return mirror_words(expression) if crop.flipped and self.flip_words == "swap" else expression


class WeakBatches(Dataset[Batch]):
    """Batches for weak supervision: images and expressions, without masks.

    With `classes`, those of a semantic data set, the expressions of every batch are all classes in order. A flip does
    not swap left and right in their names. With `apart`, batches say which expressions of an image describe different
    regions: those that share no `group_id`. Otherwise, no `group_id` is read.
    """

    def __init__(
        self,
        records: pd.DataFrame,
        sampling: Sampling,
        *,
        classes: Sequence[str] | None = None,
        apart: bool = False,
    ):
        self.images = ImageTable(records, ["expression", "group_id"] if apart else ["expression"])
        self.sampling = sampling if classes is None else replace(sampling, flip_words="keep")
        self.classes = classes
        self.apart = apart

    def __getitem__(self, iteration: int) -> Batch:
        sampling, generator = self.sampling, self.sampling.generator(iteration)
        images: list[np.ndarray] = []
        regions: list[dict[str, set[str]]] = []
        for image, crop, seen in sampling.crops(self.images, iteration, generator):
            images += seen
            regions.append({})
            for item in image.items:
                regions[-1].setdefault(sampling.as_seen(item["expression"], crop), set()).add(item.get("group_id", ""))
        drawn = chain(*sampling.draw(generator, [list(own) for own in regions]))
        expressions = list(self.classes or dict.fromkeys(drawn))
        apart = _different_regions(regions, expressions) if self.apart else None
        positives = [frozenset(own) for own in regions]
        texts = sampling.text_tokens(expressions)
        return Batch(torch.from_numpy(np.stack(images)), expressions, positives, texts, apart=apart)


class PixelBatches(Dataset[Batch]):
    """Batches for supervision by pixels: images and some of their records, each with its `region`.

    The region is the record's mask (full supervision) or its filled box (box pretraining), cropped like the image.
    Records are drawn, not expressions: two records of one image may share an expression and differ in their regions.
    `known` has all records of the images, if `records` are only those with a region. Raises ValueError if a record has
    no region, or if `known` lacks its image.
    """

    def __init__(
        self,
        records: pd.DataFrame,
        sampling: Sampling,
        *,
        region: Literal["mask", "box"],
        known: pd.DataFrame | None = None,
    ):
        if num_without := np.count_nonzero(records[region].isna()):
            raise ValueError(
                f"{num_without} of the {len(records)} records to train on have no {region}; give every record a mask "
                "and prepare them again, or choose weak supervision, which needs none"
            )
        self.images = ImageTable(records, ["expression", "height", "width", region, "ignore"])
        known = records if known is None else known
        if missing := sorted(set(records["file_name"]) - set(known["file_name"])):
            raise ValueError(
                f"the records that were labelled lack the image {missing[0]}; make the pseudo labels again"
            )
        self.known = ImageTable(known, ["expression"])
        self.sampling = sampling

    def __getitem__(self, iteration: int) -> Batch:
        sampling, generator = self.sampling, self.sampling.generator(iteration)
        images: list[np.ndarray] = []
        positives: list[frozenset[str]] = []
        indices: dict[str, int] = {}
        pairs: list[tuple[int, int]] = []
        masks: list[np.ndarray] = []
        counted: list[np.ndarray] = []
        views = list(sampling.crops(self.images, iteration, generator))
        drawn = sampling.draw(generator, [image.items for image, _, _ in views])
        for (image, crop, seen), chosen in zip(views, drawn, strict=True):
            for record in (_Record(*item.values()) for item in chosen):
                expression = sampling.as_seen(record.expression, crop)
                pairs.append((len(positives), indices.setdefault(expression, len(indices))))
                masks.append(_cropped(record.mask(), crop))
                # ASSUME: padding around the image counts as background: the encoder sees it, and no expression refers
                # to it.
                ignored = record.ignored()
                counted.append(np.ones_like(masks[-1]) if ignored is None else ~_cropped(ignored, crop))
            images += seen
            own = self.known.of_path(image.path)
            positives.append(frozenset(sampling.as_seen(item["expression"], crop) for item in own))
        pixels, *of_pairs = (torch.from_numpy(np.stack(arrays)) for arrays in (images, pairs, masks, counted))
        return Batch(pixels, list(indices), positives, sampling.text_tokens(indices), *of_pairs)


class _Record(NamedTuple):
    """The fields of a record that `PixelBatches` needs."""

    expression: str
    height: int
    width: int
    region: str | list[float]
    ignore: str | None

    def mask(self) -> np.ndarray:
        if isinstance(self.region, str):
            return decode_mask(self.region, self.height, self.width)
        return filled_box(np.array(self.region, np.float32), self.height, self.width)

    def ignored(self) -> np.ndarray | None:
        return None if self.ignore is None else decode_mask(self.ignore, self.height, self.width)


def load_batches(
    batches: Dataset[Batch], start: int, stop: int, num_workers: int, pin_memory: bool = False
) -> DataLoader[Batch]:
    """Load the batches `start` to `stop` - 1, in order, in `num_workers` processes (0: in this one)."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=num_workers,
        pin_memory=pin_memory,
        # A fork would copy torch's threads in an unknown state.
        multiprocessing_context="spawn" if num_workers else None,
        worker_init_fn=ignore_signals,
    )


def share_of(records: pd.DataFrame, share: float, seed: int = 0) -> pd.DataFrame:
    """The records of a random `share` in (0, 1] of the images, at least one image (Table 2d).

    With the same seed, a larger share includes every image of a smaller one. A share of 1 returns `records` unchanged.
    """
    if share == 1:
        return records
    files = list(dict.fromkeys(records["file_name"]))
    order = np.random.default_rng(seed).permutation(len(files))
    chosen = [files[index] for index in order[: max(1, round(share * len(files)))]]
    return records.loc[records["file_name"].isin(chosen)].reset_index(drop=True)


class ImageItems(NamedTuple):
    """A training image and its records."""

    path: str
    image_id: str
    width: int
    height: int
    items: list[dict[str, Any]]
    """Columns of its records."""


class ImageTable:
    """Records by image, in the order of the images' first records.

    Arrow holds them. Worker processes map one file of them, and share its memory.
    """

    def __init__(self, records: pd.DataFrame, columns: Sequence[str]):
        """`columns`: what `ImageItems.items` has."""
        codes, _ = pd.factorize(records["file_name"])
        counts = np.bincount(codes)
        by_image, self.ends = codes.argsort(kind="stable"), counts.cumsum()
        firsts = by_image[self.ends - counts]
        self.images = _arrow(records[["file_name", "image_id", "width", "height"]].iloc[firsts])
        self.items = _arrow(records[list(columns)].iloc[by_image])
        self.file: IO[bytes] | None = None
        """What the workers map. It has no name, and is gone with the last of them."""

    def __getstate__(self) -> dict[str, Any]:
        if self.file is None:
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the table)
            for table in (self.images, self.items):
                with pa.ipc.new_stream(self.file, table.schema) as stream:
                    stream.write_table(table)
            self.file.flush()
        return {"ends": self.ends, "file": DupFd(self.file.fileno())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"file": None}
        descriptor = state["file"].detach()
        mapped = pa.BufferReader(pa.py_buffer(mmap(descriptor, 0, access=ACCESS_READ)))
        os.close(descriptor)
        self.images, self.items = (pa.ipc.open_stream(mapped).read_all() for _ in range(2))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> ImageItems:
        path, image_id, width, height = self.images.slice(index, 1).to_pylist()[0].values()
        return ImageItems(path, image_id, width, height, self._items(index))

    def of_path(self, path: str) -> list[dict[str, Any]]:
        """The items of an image."""
        index: Any = self._rows.get_loc(path)
        return self._items(index)

    @cached_property
    def _rows(self) -> pd.Index:
        return pd.Index(self.images["file_name"].to_pandas())

    def _items(self, index: int) -> list[dict[str, Any]]:
        start = self.ends[index - 1] if index else 0
        return self.items.slice(start, self.ends[index] - start).to_pylist()


def _arrow(table: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(table, preserve_index=False).combine_chunks()


def _different_regions(regions: Sequence[Mapping[str, Set[str]]], expressions: Sequence[str]) -> Tensor:
    """`Batch.apart` of images whose `regions` map each expression to the groups that it describes."""
    indices = {expression: index for index, expression in enumerate(expressions)}
    triples = [
        (image, indices[one], indices[other])
        for image, own in enumerate(regions)
        for one, other in combinations([expression for expression in own if expression in indices], 2)
        if own[one].isdisjoint(own[other])
    ]
    return torch.tensor(triples, dtype=torch.int64).reshape(-1, 3)


@lru_cache(maxsize=2)  # a batch may span two epochs
def _order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """A random permutation of the images for an epoch."""
    return np.random.default_rng([seed, epoch, 1]).permutation(num_images)


def _cropped(mask: np.ndarray, crop: Crop) -> np.ndarray:
    """Crop a mask, bool (height, width), to bool (R, R)."""
    return np.asarray(crop(Image.fromarray(mask.astype(np.uint8)))) > 0
