"""Official annotation files and pictures in, one checked table of records out."""

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

from tseg.data.annotations import Record, Skipped
from tseg.data.phrasecut import read_phrasecut
from tseg.data.refer import read_refer
from tseg.data.voc import read_voc
from tseg.files import whole_file
from tseg.progress import progress
from tseg.records import write_records


class Picture(NamedTuple):
    """What the check of one picture found: its path, (height, width) in pixels, and its fault or ''."""

    path: Path
    size: tuple[int, int]
    fault: str


def prepare(
    name: str,
    split: str,
    *,
    format: Literal["phrasecut", "refer", "voc"],
    annotations: Path,
    images: Sequence[Path],
    split_by: str | None,
    masks: Sequence[Path],
    classes: Sequence[str] | None,
    sources: Sequence[str],
    output: Path,
) -> int:
    """Write the records of one split of the data set `name` to `output`; returns their number.

    `annotations` is the folder of the official files; a picture is taken from the first folder of `images`
    that has it; `split_by` names refer's pickle; `masks` are the folders of VOC's masks and `classes` the names
    of their values from 1 on, kept with the records as `sources` are, null for the other formats. What cannot be
    used is left out and listed, with its reason, in `<output's stem>.skipped.csv`.

    Raises ValueError when an annotation file or the split is missing or damaged, and when no record is left.
    """
    match format:
        case "phrasecut":
            records, skipped = read_phrasecut(annotations, split)
        case "refer":
            records, skipped = read_refer(annotations, split, split_by)
        case "voc":
            records, skipped = read_voc(annotations, split, masks=masks, classes=classes or ())
    records, rejected = with_pictures(records, images)
    skipped += rejected
    list_path = output.with_suffix(".skipped.csv")
    write_skipped(list_path, skipped)
    if not records:
        reason = f"the first, {skipped[0].record}: {skipped[0].reason}" if skipped else "the split is empty"
        raise ValueError(f"{name} {split} in {annotations}: all {len(skipped)} records are left out; {reason}")
    metadata = {"dataset": name, "split": split, "sources": list(sources), "num_skipped": len(skipped)}
    write_records(output, records, metadata | {"classes": list(classes) if classes else None})
    num_pictures = len({record["image_id"] for record in records})
    print(
        f"{name} {split}: {len(records):,} records of {num_pictures:,} pictures; "
        f"{len(skipped):,} left out, listed in {list_path}"
    )
    return len(records)


def with_pictures(records: list[Record], images: Sequence[Path]) -> tuple[list[Record], list[Skipped]]:
    """The records whose picture is whole and of their size, its path as their `file_name`; and the others."""
    pictures = check_pictures(list(dict.fromkeys(record["file_name"] for record in records)), images)
    kept: dict[str, Record] = {}
    skipped = []
    for record in records:
        path, size, fault = pictures[record["file_name"]]
        wanted = (record["height"], record["width"])
        if not fault and size != wanted:
            fault = f"its annotation is for a picture of {wanted[1]} x {wanted[0]} pixels, this one has "
            fault += f"{size[1]} x {size[0]}; fetch the original picture"
        if record["record_id"] in kept:
            fault = "an earlier record has the same id; give it another"
        if fault:
            skipped.append(Skipped(path, record["record_id"], fault))
        else:
            kept[record["record_id"]] = record | {"file_name": str(path)}
    return list(kept.values()), skipped


def check_pictures(names: list[str], images: Sequence[Path]) -> dict[str, Picture]:
    """Look at every picture once; Pillow decodes outside the interpreter's lock: threads share the work."""
    with ThreadPoolExecutor() as pool:
        checked = pool.map(lambda name: check_picture(name, images), names)
        return dict(zip(names, progress(checked, "check", "pictures", len(names)), strict=True))


def check_picture(name: str, images: Sequence[Path]) -> Picture:
    """Find the picture `name` in the first of the folders that has it and decode it to its end."""
    paths = [images_dir / name for images_dir in images if (images_dir / name).is_file()]
    if not paths:
        folders = ", ".join(map(str, images))
        return Picture(Path(name), (0, 0), f"the picture is in none of {folders}; fetch it into one of them")
    try:
        with Image.open(paths[0]) as picture:
            width, height = picture.size  # as stored: the annotations do not know EXIF's orientation
            picture.draft("L", (1, 1))  # a JPEG is read to its end, but only its coarsest version is made
            picture.load()
    except Exception as error:  # Pillow's decoders let many kinds through
        return Picture(paths[0], (0, 0), f"the picture cannot be read to its end ({error}); fetch it again")
    return Picture(paths[0], (height, width), "")


def write_skipped(path: Path, skipped: list[Skipped]) -> None:
    """Write the list of what was left out, its header alone when nothing was."""
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Skipped._fields)
        writer.writerows(skipped)
