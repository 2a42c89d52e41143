"""`tseg segment`: phrases in many image files. One that fails does not stop the others."""

import os
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from PIL import Image

from tseg.files import require_file
from tseg.progress import progress
from tseg.segmenting.inputs import read_image, read_phrases
from tseg.segmenting.segmenter import Segmenter


class ImageFile(NamedTuple):
    """An image file."""

    path: Path
    name: Path
    """Its path below the folder that holds all images: no two are alike."""


def find_images(sources: Sequence[str], output: Path | None = None) -> list[ImageFile]:
    """Files, the images in folders and below them, and those that patterns such as "*.jpg" match; each once.

    What lies in the folder `output` is left out: an earlier call wrote it. Raises ValueError for a source that is,
    holds or matches no image.
    """
    found = [path for source in sources for path in _paths_of(source, output)]
    once: dict[Path, Path] = {}
    for path in found:
        once.setdefault(path.resolve(), path)
    shown = {path: Path(os.path.abspath(path)) for path in once.values()}  # noqa: PTH100 (a link keeps its name)
    folder = Path(os.path.commonpath([path.parent for path in shown.values()]))
    files = [ImageFile(path, own.relative_to(folder)) for path, own in shown.items()]
    for file in files:
        if output and (output / file.name).is_file():
            raise ValueError(
                f"{output}: the masks of {file.path} would go to {output / file.name}, a file; choose another"
            )
    return files


def _paths_of(source: str, output: Path | None) -> list[Path]:
    def is_given(path: Path) -> bool:
        return path.is_file() and (output is None or output.resolve() not in path.resolve().parents)

    elsewhere = f" outside of {output}" if output and output.exists() else ""
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
        inside = sorted(each for each in path.rglob("*") if is_given(each) and each.suffix.lower() in known)
        if not inside:
            raise ValueError(f"{source} is a folder without images{elsewhere}; name another")
        return inside
    matched = sorted(glob(source, recursive=True))  # noqa: PTH207 (a pattern may be absolute)
    matches = [Path(each) for each in matched if is_given(Path(each))]
    if not matches:
        raise ValueError(f"{source}: there is no such image{elsewhere}; correct its path, and give phrases by --phrase")
    return matches


def all_phrases(phrases: Sequence[str], file: Path | None) -> list[str]:
    """The phrases given one by one, and those of a text file, one a line. Raises ValueError if there is none."""
    lines: list[str] = []
    if file is not None:
        try:
            text = require_file(file, "give a text file with a phrase on each line").read_text(encoding="utf-8-sig")
        except (UnicodeDecodeError, IsADirectoryError) as error:
            raise ValueError(f"{file} is no text in UTF-8; save it as such") from error
        lines = [line for line in text.splitlines() if line.strip()]
    if not [*phrases, *lines]:
        raise ValueError('there is no phrase; add --phrase "red umbrella", as often as needed, or --phrases FILE')
    return list(dict.fromkeys(read_phrases([*phrases, *lines])))


class Segmented(NamedTuple):
    """What became of the images."""

    coco: dict[str, Any]
    """Images, annotations and categories in COCO's format; a category is a phrase."""
    lines: list[str]
    """What was found, a line for each image and phrase."""
    failures: list[str]
    """The images that failed, and why."""


def segment_files(
    segmenter: Segmenter,
    files: Sequence[ImageFile],
    phrases: Sequence[str],
    *,
    output: Path | None,
    heatmaps: bool = False,
    **how: Any,
) -> Segmented:
    """Segment the phrases in every image; `how` are options of the segmenter.

    The masks and the overlay of an image are written to a folder of its name in `output`. Raises ValueError for a
    phrase that cannot be asked, and for an output that cannot be written.
    """
    segmenter.encode(phrases)
    categories = [{"id": number, "name": phrase} for number, phrase in enumerate(phrases, 1)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    lines: list[str] = []
    failures: list[str] = []
    for number, file in enumerate(progress(files, "segment", "images"), 1):
        try:
            image = read_image(file.path)
        except ValueError as error:
            failures.append(str(error))
            continue
        try:
            found = segmenter(image, phrases, **how)
        except (torch.OutOfMemoryError, MemoryError):
            failures.append(f"{file.path}: the memory does not suffice; choose a smaller --resolution or --device cpu")
            continue
        if output is not None:
            found.save_pngs(output / file.name, heatmaps)
        size = {"height": image.height, "width": image.width}
        images.append({"id": number, "file_name": str(file.name)} | size)
        of_image = found.to_coco(number, len(annotations) + 1)
        annotations += of_image
        pixels = image.height * image.width
        for each in of_image:
            measured = f"{each['area'] / pixels:.1%} of the image, score {each['score']:.2f}"
            lines.append(f"{file.path}: {shorten(each['phrase'], 60)}, {measured}")
    return Segmented({"images": images, "annotations": annotations, "categories": categories}, lines, failures)
