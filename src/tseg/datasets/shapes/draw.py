"""Draw the embedded data set *shapes* and write it in the official formats.

It has three sets of images, annotated like PhraseCut, like the RefCOCOs (RefCOCOg split by umd) and like VOC 2012.
"""

import json
import pickle
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tseg.datasets.shapes.images import DrawnImage, draw_images
from tseg.datasets.shapes.outlines import coco_segmentation, phrasecut_polygons
from tseg.datasets.shapes.phrases import EXPRESSION_STYLES, phrasecut_phrases, references
from tseg.datasets.shapes.scenes import OUTLINES, Thing
from tseg.datasets.shapes.voc import draw_voc

CATEGORY_IDS = {category: number for number, category in enumerate(OUTLINES, start=1)}
MINIV_PART = 10  # val has this many times the images of miniv
REFS_NAMES = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}


def draw_shapes(dir: Path, *, sets: Sequence[str], num_train: int, num_val: int, seed: int) -> dict[str, int]:
    """Draw `num_train` and `num_val` images per image set; replace the folder `dir` when all are drawn.

    `sets`: any of phrasecut, coco and voc. PhraseCut has two more splits: test is as large as val, miniv has a tenth of
    its images. An image and its expressions depend only on `seed`, the set, the split and
    the index in the split. Returns the counts of images and expressions, with keys such as `phrasecut train images`.
    """
    partial = dir.with_name(f"{dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    num_images = {"train": num_train, "val": num_val}
    counts: dict[str, int] = {}
    for image_set in sets:
        counts |= WRITERS[image_set](partial, num_images, seed)
    shutil.rmtree(dir, ignore_errors=True)
    partial.rename(dir)
    return counts


def _draw_phrasecut(dir: Path, num_images: dict[str, int], seed: int) -> dict[str, int]:
    """Draw images and write tasks as in VGPhraseCut_v0; return their counts."""
    dir /= Path("phrasecut", "VGPhraseCut_v0")
    num_images = num_images | {"miniv": -(-num_images["val"] // MINIV_PART), "test": num_images["val"]}
    infos: list[dict[str, Any]] = []
    tasks: dict[str, list[dict[str, Any]]] = {split: [] for split in num_images}
    for image in draw_images(dir / "images", "{}.jpg", "phrasecut", num_images, seed):
        sizes = {key: image.info[key] for key in ("width", "height")}
        infos.append({"image_id": image.info["id"], **sizes, "split": image.split, "coco_id": None})
        tasks[image.split] += _phrasecut_tasks(image)
    _write_json(dir / "img_info.json", infos)
    counts: dict[str, int] = {}
    for split, split_tasks in tasks.items():
        _write_json(dir / f"refer_{split}.json", split_tasks)
        counts[f"phrasecut {split} images"] = num_images[split]
        counts[f"phrasecut {split} expressions"] = len(split_tasks)
    return counts


def _phrasecut_tasks(image: DrawnImage) -> Iterator[dict[str, Any]]:
    for number, (things, fields) in enumerate(phrasecut_phrases(image.things, image.rng)):
        # As in Visual Genome, each phrase has its own annotations of its things.
        ann_ids = [100 * image.ann_id(thing) + number for thing in things]
        yield {
            "task_id": f"{image.info['id']}__{'_'.join(map(str, ann_ids))}",
            "image_id": image.info["id"],
            "ann_ids": ann_ids,
            "instance_boxes": [thing.box for thing in things],
            "Polygons": [phrasecut_polygons(thing.visible) for thing in things],
            **fields,
        }


def _draw_coco(dir: Path, num_images: dict[str, int], seed: int) -> dict[str, int]:
    """Draw images as in COCO's train2014 and write the three RefCOCOs; return their counts."""
    dir /= "coco"
    categories = [{"supercategory": "shape", "id": id, "name": name} for name, id in CATEGORY_IDS.items()]
    instances: dict[str, Any] = {"info": {"description": "shapes"}, "licenses": [], "categories": categories}
    instances |= {"images": [], "annotations": []}
    refs: dict[str, list[dict[str, Any]]] = {dataset: [] for dataset in EXPRESSION_STYLES}
    file_name = "COCO_train2014_{:012d}.jpg"
    for image in draw_images(dir / "images" / "train2014", file_name, "coco", num_images, seed):
        instances["images"].append(image.info)
        instances["annotations"] += [_coco_annotation(image, thing) for thing in image.things]
        for dataset in EXPRESSION_STYLES:
            refs[dataset] += _coco_refs(dataset, image)
    counts: dict[str, int] = {}
    for dataset, dataset_refs in refs.items():
        dataset_dir = dir / "refer" / "data" / dataset
        _write_json(dataset_dir / "instances.json", instances)
        (dataset_dir / REFS_NAMES[dataset]).write_bytes(pickle.dumps(dataset_refs, protocol=2))
        for split, num in num_images.items():
            counts[f"{dataset} {split} images"] = num
            num_expressions = [len(ref["sent_ids"]) for ref in dataset_refs if ref["split"] == split]
            counts[f"{dataset} {split} expressions"] = sum(num_expressions)
    return counts


def _coco_annotation(image: DrawnImage, thing: Thing) -> dict[str, Any]:
    ann_id = image.ann_id(thing)
    return {
        "id": ann_id,
        "image_id": image.info["id"],
        "category_id": CATEGORY_IDS[thing.category],
        "bbox": [float(number) for number in thing.box],
        "area": float(thing.visible.sum()),
        "iscrowd": 0,
        # Both kinds of run lengths occur in the official files.
        "segmentation": coco_segmentation(thing.visible, compressed=ann_id % 2 == 0),
    }


def _coco_refs(dataset: str, image: DrawnImage) -> Iterator[dict[str, Any]]:
    for thing, expressions in references(dataset, image.things, image.rng).items():
        ann_id = image.ann_id(thing)
        sent_ids = [10 * ann_id + index for index in range(len(expressions))]
        yield {
            "ref_id": ann_id,
            "ann_id": ann_id,
            "category_id": CATEGORY_IDS[thing.category],
            "image_id": image.info["id"],
            "file_name": image.info["file_name"].replace(".jpg", f"_{ann_id}.jpg"),
            "split": image.split,
            "sent_ids": sent_ids,
            "sentences": [
                {"raw": expression, "sent": expression, "sent_id": sent_id, "tokens": expression.split()}
                for sent_id, expression in zip(sent_ids, expressions, strict=True)
            ],
        }


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


WRITERS = {"phrasecut": _draw_phrasecut, "coco": _draw_coco, "voc": draw_voc}
