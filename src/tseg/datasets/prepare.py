"""Prepare a split: official annotation files and images in, one checked table of records out."""

import csv
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from tseg.datasets.readers.annotations import OpenSplit, Skipped
from tseg.datasets.readers.on_disk import DistinctStrings
from tseg.datasets.readers.pairs import open_pairs
from tseg.datasets.readers.phrasecut import open_phrasecut
from tseg.datasets.readers.refer import open_refer
from tseg.datasets.readers.voc import open_voc
from tseg.datasets.shards import Shard, read_shards
from tseg.files import atomic_write, warn
from tseg.provenance import RecordsProvenance
from tseg.records import RECORDS, TableWriter
from tseg.settings.schema import DatasetSettings, PublishedCounts


class SplitCounts(NamedTuple):
    """Counts of written and skipped records; `num_images` counts the images of the written ones."""

    num_records: int
    num_images: int
    num_skipped: int
    first_skipped: Skipped | None
    causes: dict[str, int]
    """The number of skipped records by cause, most frequent first."""


DIFFERS = "NOT AS PUBLISHED"
MAX_CAUSES = 5
"""Causes that a message names."""


def prepare_split(name: str, split: str, settings: DatasetSettings, output: Path, num_workers: int = 1) -> int:
    """Write the records of one split of the data set `name` to `output`; return their number.

    The file's metadata holds the sources, the classes and the published counts of `settings`. Unusable records are
    skipped and listed, with the reason, in `<stem of output>.skipped.csv`.

    `num_workers` processes share the work; their number does not change the files. Memory grows only with what a reader
    loads whole: the pickle of format refer, VOC's lists, and the images of COCO's captions.

    Raises ValueError if an annotation file or the split is missing or damaged, or if no record is left.
    """
    skipped_path = output.with_suffix(".skipped.csv")
    published = settings.published.get(split)
    try:
        opened = open_split(settings, split)
        with atomic_write(output) as partial, TableWriter(partial, RECORDS) as writer:
            with closing(read_shards(opened, [Path(dir) for dir in settings.images], num_workers)) as shards:
                counts = write_shards(shards, writer, skipped_path)
            if not counts.num_records:
                origin = f"{name} {split} in {settings.annotations}"
                raise ValueError(f"{origin}: all {counts.num_skipped} records are skipped; {why_skipped(counts)}")
            writer.finish(
                RecordsProvenance(
                    dataset=name,
                    split=split,
                    sources=settings.sources,
                    classes=settings.classes,
                    num_skipped=counts.num_skipped,
                    num_images=counts.num_images,
                    name_ranks=opened.name_ranks,
                    published=published.model_dump() if published else None,
                )
            )
    except RecursionError as error:
        raise ValueError(f"{settings.annotations}: a file is nested too deeply ({error}); fetch it again") from error
    (warn if counts.num_skipped else print)(
        f"{name} {split}: {counts.num_records:,} records of {counts.num_images:,} images; "
        f"{counts.num_skipped:,} skipped, listed in {skipped_path}"
        + (f" ({list_causes(counts)})" if counts.num_skipped else "")
    )
    if published:
        compared = compare(counts, published)
        (warn if compared.startswith(DIFFERS) else print)(f"{name} {split}: {compared}")
    return counts.num_records


def open_split(settings: DatasetSettings, split: str) -> OpenSplit:
    """Open a split with the reader of its format. Raises ValueError."""
    annotations = Path(settings.annotations)
    match settings.format:
        case "phrasecut":
            return open_phrasecut(annotations, split)
        case "refer":
            return open_refer(annotations, split, settings.split_by)
        case "voc":
            masks = [Path(dir) for dir in settings.masks]
            return open_voc(annotations, split, masks=masks, classes=settings.classes or ())
        case "pairs":
            return open_pairs(annotations, split)


def write_shards(shards: Iterable[Shard], writer: TableWriter, skipped_path: Path) -> SplitCounts:
    """Write the records of all shards, and the list of skipped ones. Of records with the same id, keep the first."""
    ids, images, first, causes = DistinctStrings(), DistinctStrings(), None, Counter[str]()
    with (
        atomic_write(skipped_path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(Skipped._fields)
        for shard in shards:
            records, repeated = without_repeated(shard.records, ids)
            writer.write(records)
            for image_id in dict.fromkeys(records["image_id"].to_pylist()):
                images.add(image_id)
            skipped = shard.skipped + repeated
            rows.writerows(skipped)
            causes.update(cause_of(each.reason) for each in skipped)
            first = first or next(iter(skipped), None)
    return SplitCounts(len(ids), len(images), causes.total(), first, dict(causes.most_common()))


def cause_of(reason: str) -> str:
    """A reason without the fix, and without what differs between records: quoted text, parentheses and numbers."""
    cause = reason.partition(";")[0]
    return re.sub(r"\s*(\(.*\)|'[^']*')", "", re.sub(r"(?<!\S)\d[\d,.]*(?!\S)", "n", cause))[:99]


def list_causes(counts: SplitCounts) -> str:
    """The most frequent causes of skipped records, with their numbers."""
    causes = [f"{number:,}: {cause}" for cause, number in counts.causes.items()]
    more = ["other causes"] if len(causes) > MAX_CAUSES else []
    return "; ".join(causes[:MAX_CAUSES] + more)


def why_skipped(counts: SplitCounts) -> str:
    """Name the first skipped record, its file and its reason, and count all by cause."""
    first = counts.first_skipped
    if first is None:
        return "the split is empty"
    several = f". By cause: {list_causes(counts)}" if len(counts.causes) > 1 else ""
    return f"the first, {first.record} ({first.file}): {first.reason}{several}"


def without_repeated(records: pa.Table, ids: DistinctStrings) -> tuple[pa.Table, list[Skipped]]:
    """Separate records whose id is in `ids` already, as skipped, from new ones; add the new ids to `ids`."""
    is_new = [ids.add(record_id) for record_id in records["record_id"].to_pylist()]
    kept, repeated = (
        records.filter(pa.array([new is wanted for new in is_new], pa.bool_())) for wanted in (True, False)
    )
    reason = "an earlier record has the same id; give it another id"
    named = zip(repeated["file_name"].to_pylist(), repeated["record_id"].to_pylist(), strict=True)
    return kept, [Skipped(Path(file_name), record_id, reason) for file_name, record_id in named]


def compare(counts: SplitCounts, published: PublishedCounts) -> str:
    """Compare the counts with those that are published, in one line."""
    found = {"expressions": counts.num_records + counts.num_skipped, "images": counts.num_images}
    expected = {unit: count for unit, count in published.model_dump().items() if count is not None}
    details = "; ".join(f"{count:,} {unit} published, {found[unit]:,} found" for unit, count in expected.items())
    verdict = "as published" if all(found[unit] == count for unit, count in expected.items()) else DIFFERS
    return f"{verdict}: {details}" if expected else "no count is published"
