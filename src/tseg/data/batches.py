"""Batches of pictures with some of their expressions (section 3.3, "Weakly-supervised learning")."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tseg.data.transforms import mirror_words, normalised, open_picture, random_crop


@dataclass(frozen=True)
class Batch:
    """B pictures and the L distinct expressions that were drawn for them."""

    pictures: Tensor
    """float32 (B, 3, resolution, resolution), normalised."""
    expressions: list[str]
    """L distinct expressions."""
    positives: list[frozenset[str]]
    """For each picture all its expressions, drawn or not."""


class WeakBatches(Dataset[Batch]):
    """Batch number `iteration` of a training, a function of the seed and that number alone.

    So a resumed training sees what an unbroken one sees, however many processes prepare the batches. No mask is read.
    """

    def __init__(
        self,
        records: pd.DataFrame,
        *,
        batch_size: int,
        expressions_per_picture: int,
        resolution: int,
        scale: tuple[float, float],
        flip: bool,
        flip_words: Literal["swap", "keep"],
        mean: float,
        std: float,
        seed: int,
    ):
        self.pictures = [
            (Path(str(file_name)), list(dict.fromkeys(expressions)))
            for file_name, expressions in records.groupby("file_name", sort=False)["expression"]
        ]
        self.batch_size = batch_size
        self.expressions_per_picture = expressions_per_picture
        self.resolution, self.scale, self.flip = resolution, scale, flip
        self.flip_words = flip_words
        self.mean, self.std = mean, std
        self.seed = seed

    def __getitem__(self, iteration: int) -> Batch:
        generator = np.random.default_rng([self.seed, iteration])
        pictures, drawn, positives = [], [], []
        for number in range(iteration * self.batch_size, (iteration + 1) * self.batch_size):
            path, expressions = self.pictures[self._shuffled(number)]
            picture = open_picture(path)
            crop = random_crop(generator, *picture.size, resolution=self.resolution, scale=self.scale, flip=self.flip)
            if crop.flipped and self.flip_words == "swap":
                expressions = list(dict.fromkeys(map(mirror_words, expressions)))
            pictures.append(normalised(crop(picture), self.mean, self.std))
            num_drawn = min(len(expressions), self.expressions_per_picture)
            drawn += [expressions[i] for i in generator.choice(len(expressions), num_drawn, replace=False)]
            positives.append(frozenset(expressions))
        return Batch(torch.from_numpy(np.stack(pictures)), list(dict.fromkeys(drawn)), positives)

    def _shuffled(self, number: int) -> int:
        """Index of the picture that comes `number`-th when every epoch is a new permutation of all pictures."""
        epoch, place = divmod(number, len(self.pictures))
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.pictures))
        return int(self._order[place])


def load_batches(batches: WeakBatches, start: int, stop: int, num_workers: int) -> DataLoader[Batch]:
    """Batches number `start` to `stop` - 1, in order, prepared by `num_workers` processes (0: by this one)."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=num_workers,
        # Fork would copy the threads of torch in an unknown state.
        multiprocessing_context="spawn" if num_workers else None,
    )
