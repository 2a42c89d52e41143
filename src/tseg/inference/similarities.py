"""The similarities that `tseg predict` wrote, read image by image: only an index of their rows is in memory."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tseg.provenance import PredictionsProvenance
from tseg.records import PREDICTIONS, ImageRecords, undamaged
from tseg.threads import in_order

R = TypeVar("R")

Maps = dict[str, dict[tuple[float, bool], np.ndarray]]
"""Expression to (scale, flipped) to the similarities, float16 (h, w), of one image."""


class Similarities:
    """An index of the rows of each image. Images are read fast in the order of the file, slowly in another."""

    def __init__(self, path: Path):
        """Index a file of `PREDICTIONS`. Raises ValueError, like the methods, if it is damaged."""
        self.path = path
        with undamaged(path, PredictionsProvenance):
            self.file = pq.ParquetFile(path, page_checksum_verification=True)
            questions: pd.DataFrame = self.file.read(["image_id", "expression"]).to_pandas()
        self.questions = _hashed(questions)
        codes, images = pd.factorize(questions["image_id"])
        self.numbers = {str(image_id): number for number, image_id in enumerate(images)}
        self.rows = codes.argsort(kind="stable")
        self.ends = np.bincount(codes, minlength=len(images)).cumsum()
        sizes = [self.file.metadata.row_group(index).num_rows for index in range(self.file.num_row_groups)]
        self.groups = np.cumsum([0, *sizes])
        self.read: dict[int, pa.Table] = {}
        """The two row groups that were needed last."""

    def unanswered(self, questions: pd.DataFrame) -> np.ndarray:
        """Whether an image and its expression, the columns of `questions`, lack a prediction: bool (number of rows)."""
        return ~np.isin(_hashed(questions[["image_id", "expression"]]), self.questions)

    def views(self, image_id: str, expressions: Sequence[str]) -> list[Tensor]:
        """The similarities of L expressions in one image: float32 (L, h, w) for each view."""
        maps = self._maps(image_id)
        of_views = [maps[expression] for expression in expressions]
        assert all(of_view.keys() == of_views[0].keys() for of_view in of_views), "expressions have different views"
        return [
            torch.from_numpy(np.stack([of_view[view] for of_view in of_views]).astype(np.float32))
            for view in sorted(of_views[0])
        ]

    def mapped(
        self,
        rows_of: Callable[[ImageRecords, list[Tensor]], R],
        num_threads: int,
        words: Sequence[str] | None = None,
    ) -> Callable[[Iterator[ImageRecords]], Iterator[R]]:
        """A function that maps images, in threads, to `rows_of` each image and its `views`.

        Each image is compared to its own expressions or to all `words`.
        """

        def of_all(images: Iterator[ImageRecords]) -> Iterator[R]:
            # This thread alone reads the file.
            questions = (
                (image, self.views(image.image_id, image.expressions if words is None else words)) for image in images
            )
            return in_order(lambda question: rows_of(*question), questions, num_threads)

        return of_all

    def _maps(self, image_id: str) -> Maps:
        number = self.numbers[image_id]
        rows = self.rows[self.ends[number - 1] if number else 0 : self.ends[number]]
        groups = np.searchsorted(self.groups, rows, side="right") - 1
        maps: Maps = {}
        for group in np.unique(groups).tolist():
            of_image = self._group(group).take(rows[groups == group] - self.groups[group]).combine_chunks()
            lists = of_image["similarities"].chunk(0)
            values = np.split(lists.flatten().to_numpy(), lists.offsets.to_numpy()[1:-1])
            named = (of_image[name].to_pylist() for name in PREDICTIONS.names[1:-1])
            for expression, scale, flipped, *grid, of_view in zip(*named, values, strict=True):
                maps.setdefault(expression, {})[scale, flipped] = of_view.reshape(grid)
        return maps

    def _group(self, index: int) -> pa.Table:
        group = self.read.pop(index, None)
        if group is None:
            with undamaged(self.path, PredictionsProvenance):
                group = self.file.read_row_group(index, PREDICTIONS.names)
        while len(self.read) > 1:
            del self.read[next(iter(self.read))]
        self.read[index] = group
        return group


def _hashed(questions: Any) -> np.ndarray:
    """A hash, uint64, of the image and the expression of each row."""
    types_lack: Any = pd
    return types_lack.util.hash_pandas_object(questions, index=False).to_numpy()
