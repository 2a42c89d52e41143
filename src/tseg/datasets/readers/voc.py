"""Read VOC 2012's semantic segmentation, with or without SBD's masks, one record per image and class."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tseg.datasets.readers.annotations import OpenSplit, Record, RecordError, Skipped, make_record
from tseg.datasets.readers.voc_masks import VOID, read_mask
from tseg.files import require_file
from tseg.progress import progress
from tseg.records import encode_mask

Line = tuple[Path, str, bool]
"""A line of a list of images: the list, the image's name, and whether an earlier line has the same name."""


def open_voc(annotations: Path, split: str, *, masks: Sequence[Path], classes: Sequence[str]) -> OpenSplit:
    """Open the images of a split in the order of its list, one record per class; `train_aug+val` joins two splits.

    `annotations` is VOCdevkit/VOC2012. A mask is taken from the first folder of `masks` that has `<image>.png` or
    `<image>.mat`; its value i means `classes[i - 1]`. An image with a bad mask is skipped. `file_name` is the name of
    the image without a folder. Raises ValueError if a list is missing, damaged or empty.
    """
    names = image_names(annotations, split, masks)
    return OpenSplit(stream_lines(names), partial(read_image, tuple(masks), tuple(classes)))


def stream_lines(names: list[tuple[Path, str]]) -> Iterator[Line]:
    """Yield the lines in order, and mark names that an earlier line has."""
    seen = set()
    for path, name in progress(names, "masks", "images", len(names)):
        yield path, name, name in seen
        seen.add(name)


def read_image(masks: Sequence[Path], classes: Sequence[str], line: Line) -> Iterator[Record | Skipped]:
    """The records of the image that a line names, or why it is skipped."""
    path, name, is_repeated = line
    try:
        if is_repeated:
            raise RecordError("an earlier line names the same image; remove one of the lines")
        path = find_mask(name, masks)
        yield from read_classes(name, read_mask(path), classes)
    except RecordError as reason:
        yield Skipped(path, name, str(reason))


def image_names(annotations: Path, split: str, masks: Sequence[Path]) -> list[tuple[Path, str]]:
    """The images of a split, each with the list that names it. Raises ValueError that lists the existing splits."""
    lists_dir = annotations / "ImageSets" / "Segmentation"
    splits = ", ".join(sorted(path.stem for path in lists_dir.glob("*.txt")))
    hint = f"choose one of {splits}; train_aug needs SBD's folder cls in masks" if splits else "put VOC's lists there"
    sbd_dir = next((folder.parent for folder in masks if folder.name == "cls"), None)
    names = []
    for part in split.split("+"):
        path = lists_dir / f"{part}.txt"
        if part == "train_aug" and sbd_dir and not path.exists():
            names += train_aug(lists_dir, sbd_dir)
        else:
            names += [(path, name) for name in read_list(require_file(path, hint))]
    return names


def train_aug(lists_dir: Path, sbd_dir: Path) -> list[tuple[Path, str]]:
    """All images of VOC's training split and of SBD except VOC's validation images, sorted (section 4.1)."""
    lists = [sbd_dir / "val.txt", sbd_dir / "train.txt", lists_dir / "train.txt"]
    named = {name: path for path in lists for name in read_list(path)}
    return [(named[name], name) for name in sorted(named.keys() - set(read_list(lists_dir / "val.txt")))]


def read_list(path: Path) -> list[str]:
    """The image names in a list, one per line. Raises ValueError if there are none."""
    try:
        lines = require_file(path, "put the official list there").read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text ({error}); put the official list there") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"{path} names no image; put the official list there")
    return names


def find_mask(name: str, masks: Sequence[Path]) -> Path:
    """The path of an image's mask in the first folder that has one. Raises RecordError."""
    if "/" in name or len(name.encode()) > 200:
        raise RecordError("it is not the name of an image; write one name per line, without folder or suffix")
    for path in (folder / f"{name}{suffix}" for folder in masks for suffix in (".png", ".mat")):
        if path.is_file():
            return path
    raise RecordError(f"its mask is in none of {', '.join(map(str, masks))}; fetch it into one of them")


def read_classes(name: str, labels: np.ndarray, classes: Sequence[str]) -> list[Record]:
    """One record for each class in `labels` (H, W). Raises RecordError if there is none."""
    void = labels == VOID
    values = [int(value) for value in np.unique(labels[~void]) if value]
    if not values:
        raise RecordError("its mask contains no class; remove the image from the list")
    if values[-1] > len(classes):
        raise RecordError(f"its mask has the value {values[-1]}, but {len(classes)} classes exist; correct the mask")
    ignore = encode_mask(void) if void.any() else None
    return [
        make_record(
            record_id=f"{name}/{classes[value - 1]}",
            image_id=name,
            file_name=f"{name}.jpg",
            size=labels.shape,
            expression=classes[value - 1],
            group_id=f"{name}/{classes[value - 1]}",
            mask=encode_mask(labels == value),
            tags=[],
            ignore=ignore,
        )
        for value in values
    ]
