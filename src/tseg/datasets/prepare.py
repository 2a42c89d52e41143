"""Official annotation files and images in, one checked table of records out."""

import csv
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa

from tseg.datasets.readers.annotations import OpenSplit, Skipped
from tseg.datasets.readers.on_disk import Distinct
from tseg.datasets.readers.pairs import open_pairs
from tseg.datasets.readers.phrasecut import open_phrasecut
from tseg.datasets.readers.refer import open_refer
from tseg.datasets.readers.voc import open_voc
from tseg.datasets.shards import Shard, read_shards
from tseg.files import atomic_write
from tseg.provenance import RecordsProvenance
from tseg.records import RecordsWriter

Format = Literal["phrasecut", "refer", "voc", "pairs"]


class Found(NamedTuple):
    """What a split has; the images are those of the records."""

    num_records: int
    num_images: int
    num_skipped: int
    first_skipped: Skipped | None


def prepare(
    name: str,
    split: str,
    *,
    format: Format,
    annotations: Path,
    images: Sequence[Path],
    split_by: str | None,
    masks: Sequence[Path],
    classes: Sequence[str] | None,
    sources: Sequence[str],
    published: dict[str, int | None] | None,
    output: Path,
    num_workers: int = 1,
) -> int:
    """Write the records of one split of the data set `name` to `output`; returns their number.

    `annotations` is the folder of the annotation files; an image is taken from the first folder of `images`
    that has it; `split_by` names refer's pickle; `masks` are the folders of VOC's masks and `classes` the names
    of their values from 1 on, kept with the records as `sources` are, null for the other formats. `published` are
    the numbers of `expressions` and `images` that the split should have, null where nobody says: they are kept with
    the records too, and compared with what there is. What cannot be used is left out and listed, with its reason, in
    `<output's stem>.skipped.csv`.

    `num_workers` processes share the work. What is written does not depend on their number, nor the memory that they
    need on the number of records.

    Raises ValueError when an annotation file or the split is missing or damaged, and when no record is left.
    """
    list_path = output.with_suffix(".skipped.csv")
    try:
        opened = open_split(format, annotations, split, split_by=split_by, masks=masks, classes=classes or ())
        with atomic_write(output) as partial, RecordsWriter(partial) as writer:
            with closing(read_shards(opened, images, num_workers)) as shards:
                found = write_shards(shards, writer, list_path)
            if not found.num_records:
                first = found.first_skipped
                reason = f"the first, {first.record}: {first.reason}" if first else "the split is empty"
                raise ValueError(
                    f"{name} {split} in {annotations}: all {found.num_skipped} records are left out; {reason}"
                )
            writer.finish(
                RecordsProvenance(
                    dataset=name,
                    split=split,
                    sources=list(sources),
                    classes=list(classes) if classes else None,
                    num_skipped=found.num_skipped,
                    num_images=found.num_images,
                    published=published,
                )
            )
    except RecursionError as error:
        raise ValueError(f"{annotations}: one of its files is nested too deep ({error}); fetch it again") from error
    print(
        f"{name} {split}: {found.num_records:,} records of {found.num_images:,} images; "
        f"{found.num_skipped:,} left out, listed in {list_path}"
    )
    if published:
        print(f"{name} {split}: {compare(found, published)}")
    return found.num_records


def open_split(
    format: Format,
    annotations: Path,
    split: str,
    *,
    split_by: str | None,
    masks: Sequence[Path],
    classes: Sequence[str],
) -> OpenSplit:
    """The split as the reader of its format opens it. Raises ValueError."""
    match format:
        case "phrasecut":
            return open_phrasecut(annotations, split)
        case "refer":
            return open_refer(annotations, split, split_by)
        case "voc":
            return open_voc(annotations, split, masks=masks, classes=classes)
        case "pairs":
            return open_pairs(annotations, split)


def write_shards(shards: Iterable[Shard], writer: RecordsWriter, list_path: Path) -> Found:
    """Write the records of all shards, of two with one id the first, and the list of what was left out."""
    ids, images, num_skipped, first = Distinct(), Distinct(), 0, None
    with (
        atomic_write(list_path) as partial,
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
            num_skipped += len(skipped)
            first = first or next(iter(skipped), None)
    return Found(len(ids), len(images), num_skipped, first)


def without_repeated(records: pa.Table, ids: Distinct) -> tuple[pa.Table, list[Skipped]]:
    """The records whose id is not among `ids` yet, where they are added; and the others."""
    is_new = [ids.add(record_id) for record_id in records["record_id"].to_pylist()]
    kept, others = (records.filter(pa.array([new is wanted for new in is_new], pa.bool_())) for wanted in (True, False))
    reason = "an earlier record has the same id; give it another"
    named = zip(others["file_name"].to_pylist(), others["record_id"].to_pylist(), strict=True)
    return kept, [Skipped(Path(file_name), record_id, reason) for file_name, record_id in named]


def compare(found: Found, published: dict[str, int | None]) -> str:
    """One line: whether the split has what its authors say, as far as they do."""
    ours = {"expressions": found.num_records + found.num_skipped, "images": found.num_images}
    said = {what: count for what, count in published.items() if count is not None}
    counts = "; ".join(f"{count:,} {what} are published, {ours[what]:,} are here" for what, count in said.items())
    verdict = "as published" if all(ours[what] == count for what, count in said.items()) else "NOT AS PUBLISHED"
    return f"{verdict}: {counts}" if said else "no count is published"
