"""Read PhraseCut's annotation files (Wu et al. 2020, version 0), one record per task."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tseg.datasets.readers.annotations import (
    OpenSplit,
    Record,
    RecordError,
    Skipped,
    field,
    image_size,
    make_record,
    region_points,
)
from tseg.datasets.readers.json_stream import stream_list
from tseg.datasets.readers.on_disk import Lookup, id_text
from tseg.datasets.readers.polygons import fill_polygons
from tseg.files import require_file
from tseg.records import encode_mask

# fmt: off
COCO_NAMES = frozenset({
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag",
    "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork",
    "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog",
    "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv",
    "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
})
# fmt: on


RANKED = 500
"""Number of ranked category names, as the evaluator's last subset is c500+."""


OFFICIAL_COUNTS, COUNTED = "name_att_rel_count.json", "refer_train.json"
"""The files that rank category names: that of the evaluator, and its substitute."""


class Task(NamedTuple):
    """A task, its `number` in `file` from 0, and its image's entry in img_info.json, if any."""

    file: Path
    number: int
    content: Record
    image: Record | None


def open_phrasecut(annotations: Path, split: str) -> OpenSplit:
    """Open the tasks of `refer_<split>.json`, one record each, in file order; `val+miniv` joins two splits.

    `file_name` is the name of the image without a folder. Raises ValueError if a file is missing or damaged.
    """
    paths = [split_path(annotations, part) for part in split.split("+")]
    images = Lookup(stream_list(annotations / "img_info.json"), "image_id")
    official = annotations / OFFICIAL_COUNTS
    ranks = official_ranks(official) if official.is_file() else counted_ranks(annotations / COUNTED)
    name_ranks = OFFICIAL_COUNTS if official.is_file() else COUNTED
    return OpenSplit(stream_tasks(paths, images), partial(read_task, ranks), name_ranks=name_ranks)


def stream_tasks(paths: list[Path], images: Lookup) -> Iterator[Task]:
    """Yield the tasks of the files in order. Raises ValueError if a file is damaged."""
    for path in paths:
        for number, task in enumerate(stream_list(path)):
            yield Task(path, number, task, images.get(id_text(task.get("image_id"))))


def split_path(annotations: Path, split: str) -> Path:
    """The file of one split. Raises ValueError that lists the existing splits."""
    splits = sorted(path.stem.removeprefix("refer_") for path in annotations.glob("refer_*.json"))
    hint = f"choose one of {', '.join(splits)}" if splits else "put PhraseCut's files there"
    return require_file(annotations / f"refer_{split}.json", hint)


def official_ranks(path: Path) -> dict[str, int]:
    """Rank the first `RANKED` category names in the data set's own list, from 0. Raises ValueError if it is damaged."""
    try:
        names = [name for name, _ in json.loads(path.read_text(encoding="utf-8"))["cat"]]
    except (ValueError, TypeError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} lists no categories with their counts under cat ({reason}); fetch it again") from None
    return {id_text(name): rank for rank, name in enumerate(names[:RANKED])}


def counted_ranks(path: Path) -> dict[str, int]:
    """Rank the `RANKED` most frequent category names in the tasks of `path`, from 0."""
    # ASSUME without the data set's own list, names are ranked by their frequency in the training split. Ties keep the
    # order of the file.
    structures = (task.get("phrase_structure") for task in stream_list(path))
    names = Counter(id_text(structure.get("name")) for structure in structures if isinstance(structure, dict))
    return {name: rank for rank, (name, _) in enumerate(names.most_common(RANKED))}


def read_task(ranks: dict[str, int], task: Task) -> Iterator[Record | Skipped]:
    """The record of one task, or why it is skipped; `ranks`: category names to ranks, from 0."""
    try:
        yield make_task_record(task.content, task.image, ranks)
    except RecordError as reason:
        name = id_text(task.content.get("task_id", f"number {task.number}"))
        yield Skipped(task.file, name, str(reason))


def make_task_record(task: Record, image: Record | None, ranks: dict[str, int]) -> Record:
    """The record of one task. Raises RecordError."""
    image_id, task_id = id_text(task.get("image_id")), field(task, "task_id", str)
    size = image_size(image, image_id, "img_info.json")
    assert image is not None, "image_size raises for None"
    coco_id = image.get("coco_id")  # about half of Visual Genome's images are COCO's
    instances = field(task, "Polygons", list)
    mask = rasterise(instances, size)
    share = np.count_nonzero(mask) / mask.size
    return make_record(
        record_id=task_id,
        image_id=image_id,
        file_name=f"{image_id}.jpg",
        size=size,
        expression=field(task, "phrase", str),
        group_id=task_id,
        mask=encode_mask(mask),
        tags=subset_tags(field(task, "phrase_structure", dict), len(instances), share, ranks),
        coco_id=None if coco_id is None else id_text(field(image, "coco_id", int)),
    )


def rasterise(instances: list[Any], size: tuple[int, int]) -> np.ndarray:
    """Draw the union of all polygons, bool (height, width), as PhraseCut's evaluator does.

    Coordinates are truncated, outlines belong to the region, and polygons of fewer than two points are ignored.
    """
    if not all(isinstance(instance, list) for instance in instances):
        raise RecordError("one of its Polygons is not a list of polygons; correct it in the file")
    polygons = region_points(polygon for instance in instances for polygon in instance)
    return fill_polygons([polygon.astype(int) for polygon in polygons if len(polygon) >= 2], size)


def subset_tags(structure: Record, num_instances: int, share: float, ranks: dict[str, int]) -> list[str]:
    """The subsets of PhraseCut's evaluator that contain a task; `share` is the fraction of the image in its mask."""
    name, kind = field(structure, "name", str), structure.get("type")
    rank = ranks.get(name, RANKED)  # a name that does not occur in the training split is rare
    subsets = {
        "c20": rank < 20,
        "c21-100": 20 <= rank < 100,
        "c101-500": 100 <= rank < RANKED,
        "c500+": rank >= RANKED,
        "c_coco": name in COCO_NAMES,
        "i_single": num_instances == 1,
        "i_multi": 2 <= num_instances <= 4,
        "i_many": num_instances >= 5,
        "p_name": kind == "name",  # the name alone identifies the region
        "p_att": bool(structure.get("attributes")),
        "p_rel": bool(structure.get("relation_descriptions")),
        "p_verbose": kind == "verbose",  # even the full description does not identify it
        "s_small": share < 0.02,
        "s_mid": 0.02 <= share <= 0.2,
        "s_large": share > 0.2,
    }
    return [subset for subset, holds in subsets.items() if holds]
