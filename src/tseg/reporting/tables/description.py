"""Statistics of a file of records: images, words, mask sizes and overlaps."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from tseg.datasets.leakage import read_records_images
from tseg.progress import progress
from tseg.provenance import RecordsProvenance
from tseg.records import read_provenance
from tseg.reporting.tables.notes import split_name

BATCH_RECORDS = 1_000
# Images in memory at a time. The records of one image may be anywhere in the file.
IMAGES_AT_A_TIME = 10_000


@dataclass(frozen=True)
class SplitDescription:
    """Statistics of R records, M of which have a mask."""

    provenance: RecordsProvenance
    num_images: int
    num_of_coco: int
    """Images with a known COCO id."""
    num_references: int
    """Distinct regions that expressions refer to: pairs of image_id and group_id."""
    num_distinct: int
    """Distinct expressions, as written."""
    num_distinct_words: int
    """Distinct words: expressions in lower case, split at spaces."""
    lengths: np.ndarray
    """int64 (R,): number of words of each expression."""
    sizes: np.ndarray
    """float64 (M,): fraction of its image that each mask covers."""
    num_overlapping: int
    """Records whose mask shares a pixel with another region (another group_id) of the same image."""
    ious: np.ndarray
    """float64 (P,): IoU of each pair of regions of an image that share a pixel."""

    @property
    def name(self) -> str:
        """Data set and split."""
        return split_name(self.provenance)


class Region(NamedTuple):
    """The referent of an expression. `mask` is a compressed RLE."""

    group_id: str
    mask: str
    height: int
    width: int


def describe_records(path: Path) -> SplitDescription:
    """Describe the records that `tseg prepare` wrote to `path`.

    Memory grows with the number of images, references and words, not with the number of masks. Raises ValueError if the
    file is of another kind, of an earlier version, or has no records.
    """
    provenance, images = read_provenance(path, RecordsProvenance), read_records_images(path)
    if images.empty:
        raise ValueError(f"{path} has no records; its .skipped.csv says why")
    lengths, num_references, num_distinct, num_distinct_words = _describe_expressions(path)
    sizes, num_overlapping, ious = _describe_masks(path, list(images["image_id"]))
    return SplitDescription(
        provenance,
        num_images=len(images),
        num_of_coco=len(images.dropna(subset=["coco_id"])),
        num_references=num_references,
        num_distinct=num_distinct,
        num_distinct_words=num_distinct_words,
        lengths=lengths,
        sizes=sizes,
        num_overlapping=num_overlapping,
        ious=ious,
    )


def _describe_expressions(path: Path) -> tuple[np.ndarray, int, int, int]:
    """Return the number of words of each expression, of references, of distinct expressions, and of distinct words."""
    lengths, references, expressions, words = [], set[tuple[str, str]](), set[str](), set[str]()
    for batch in _batches(path, ["image_id", "group_id", "expression"]):
        references.update(zip(batch["image_id"].to_pylist(), batch["group_id"].to_pylist(), strict=True))
        for expression in batch["expression"].to_pylist():
            of_expression = expression.lower().split()
            lengths.append(len(of_expression))
            expressions.add(expression)
            words.update(of_expression)
    return np.array(lengths), len(references), len(expressions), len(words)


def _describe_masks(path: Path, image_ids: Sequence[str]) -> tuple[np.ndarray, int, np.ndarray]:
    """Return `sizes`, `num_overlapping` and `ious` as defined by `SplitDescription`."""
    sizes, num_overlapping, ious = [np.zeros(0)], 0, [np.zeros(0)]
    for regions in progress(_regions(path, image_ids), f"describe {path}", "images", len(image_ids)):
        rles: Any = [{"counts": mask.encode("ascii"), "size": size} for _, mask, *size in regions]
        counts = np.array(list(regions.values()))
        pixels = np.array([region.height * region.width for region in regions])
        sizes.append(np.repeat(coco_mask.area(rles) / pixels, counts))
        groups = np.array([region.group_id for region in regions])
        shared = np.where(groups[:, None] == groups, 0, coco_mask.iou(rles, rles, [0] * len(rles)))
        num_overlapping += int(counts[shared.any(axis=0)].sum())
        ious.append(shared[np.triu(shared) > 0])
    return np.concatenate(sizes), num_overlapping, np.concatenate(ious)


def _regions(path: Path, image_ids: Sequence[str]) -> Iterator[Counter[Region]]:
    """Yield the regions of each image that has masks, with the number of records of each region.

    Reads the whole file once per `IMAGES_AT_A_TIME` images.
    """
    for start in range(0, len(image_ids), IMAGES_AT_A_TIME):
        selected = pc.field("image_id").isin(image_ids[start : start + IMAGES_AT_A_TIME]) & pc.field("mask").is_valid()
        images = defaultdict[str, Counter[Region]](Counter)
        for batch in _batches(path, ["image_id", *Region._fields]):
            for record in batch.filter(selected).to_pylist():
                images[record.pop("image_id")][Region(**record)] += 1
        yield from images.values()


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Read in small batches on one thread: more threads would need as much memory as the file."""
    return pq.ParquetFile(path).iter_batches(BATCH_RECORDS, columns=columns, use_threads=False)
