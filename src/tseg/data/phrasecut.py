"""PhraseCut's annotation files (Wu et al. 2020, version 0), read into records: one per task."""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tseg.data.annotations import (
    Record,
    RecordError,
    Skipped,
    field,
    index,
    make_record,
    picture_size,
    polygon_points,
    read_json,
)
from tseg.files import existing
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


def read_phrasecut(annotations: Path, split: str) -> tuple[list[Record], list[Skipped]]:
    """The records of `refer_<split>.json` in file order, and those left out; `val+miniv` reads both files.

    `file_name` is the bare name of the picture. Raises ValueError when a file is missing or damaged.
    """
    paths = [split_path(annotations, part) for part in split.split("+")]
    pictures = index(read_json(annotations / "img_info.json", list), "image_id")
    ranks = name_ranks(annotations / "refer_train.json")
    records, skipped = [], []
    for path in paths:
        for number, task in enumerate(read_json(path, list)):
            try:
                records.append(read_task(task, pictures, ranks))
            except RecordError as reason:
                skipped.append(Skipped(path, str(task.get("task_id", f"number {number}")), str(reason)))
    return records, skipped


def split_path(annotations: Path, split: str) -> Path:
    """The file of one split. Raises ValueError that lists the splits there are."""
    there = sorted(path.stem.removeprefix("refer_") for path in annotations.glob("refer_*.json"))
    mend = f"choose among the splits there are: {', '.join(there)}" if there else "place PhraseCut's files there"
    return existing(annotations / f"refer_{split}.json", mend)


def name_ranks(path: Path) -> dict[str, int]:
    """The rank of each category name by frequency among the tasks of `path`, the most frequent 0."""

    # ASSUME the evaluator ranks by name_att_rel_count.json, which is not among the files that we ask for: the
    # frequency in the training split stands in for it, ties in the order of the file.
    def without_polygons(item: Record) -> Record:  # they are nearly all of the 400 MB
        item.pop("Polygons", None)
        return item

    structures = (task.get("phrase_structure") for task in read_json(path, list, without_polygons))
    names = Counter(str(structure.get("name")) for structure in structures if isinstance(structure, dict))
    return {name: rank for rank, (name, _) in enumerate(names.most_common())}


def read_task(task: Record, pictures: dict[str, Record], ranks: dict[str, int]) -> Record:
    """The record of one task. Raises RecordError."""
    image_id, task_id = str(task.get("image_id")), field(task, "task_id", str)
    size = picture_size(pictures, image_id, "img_info.json")
    coco_id = pictures[image_id].get("coco_id")  # about half of Visual Genome's pictures are COCO's
    instances = field(task, "Polygons", list)
    mask = rasterise(instances, size)
    return make_record(
        record_id=task_id,
        image_id=image_id,
        file_name=f"{image_id}.jpg",
        size=size,
        expression=field(task, "phrase", str),
        group_id=task_id,
        mask=encode_mask(mask),
        tags=subset_tags(field(task, "phrase_structure", dict), len(instances), float(mask.mean()), ranks),
        coco_id=None if coco_id is None else str(field(pictures[image_id], "coco_id", int)),
    )


def rasterise(instances: list[list], size: tuple[int, int]) -> np.ndarray:
    """The union (height, width), bool, of all polygons, drawn as PhraseCut's evaluator draws them.

    Coordinates are truncated, outlines belong to the region, a polygon of fewer than two points is skipped.
    """
    canvas = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(canvas)
    for instance in instances:
        if not isinstance(instance, list):
            raise RecordError("one of its Polygons is not a list of polygons; mend it in the file")
        for polygon in map(polygon_points, instance):
            if len(polygon) >= 2:
                draw.polygon(polygon.astype(int).ravel().tolist(), fill=1, outline=1)
    return np.asarray(canvas) > 0


def subset_tags(structure: Record, num_instances: int, share: float, ranks: dict[str, int]) -> list[str]:
    """The subsets of PhraseCut's evaluator that a task is in; `share` is its mask's part of the picture."""
    name, kind = field(structure, "name", str), structure.get("type")
    rank = ranks.get(name, 500)  # a name that training has not is a rare one
    subsets = {
        "c20": rank < 20,
        "c21-100": 20 <= rank < 100,
        "c101-500": 100 <= rank < 500,
        "c500+": rank >= 500,
        "c_coco": name in COCO_NAMES,
        "i_single": num_instances == 1,
        "i_multi": 2 <= num_instances <= 4,
        "i_many": num_instances >= 5,
        "p_name": kind == "name",  # the name alone tells the region from the rest of the picture
        "p_att": bool(structure.get("attributes")),
        "p_rel": bool(structure.get("relation_descriptions")),
        "p_verbose": kind == "verbose",  # not even all that is known of the region does
        "s_small": share < 0.02,
        "s_mid": 0.02 <= share <= 0.2,
        "s_large": share > 0.2,
    }
    return [subset for subset, holds in subsets.items() if holds]
