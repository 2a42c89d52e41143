import colorsys
import hashlib
import json
import pickle
from functools import cache
from itertools import combinations, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from tseg.datasets.shapes.draw import draw_shapes
from tseg.datasets.shapes.images import image_rng
from tseg.datasets.shapes.scenes import HUES, LEAST_VISIBLE, OUTLINES, Thing, draw_scene

NUM_TRAIN, NUM_VAL, NUM_MINIV, SEED = 30, 6, 1, 3
PHRASECUT_SPLITS = {"train": NUM_TRAIN, "val": NUM_VAL, "miniv": NUM_MINIV, "test": NUM_VAL}
SETS = ("phrasecut", "coco", "voc")
PHRASECUT = "phrasecut/VGPhraseCut_v0"
REFS = {"refcoco": "refs(unc).p", "refcoco+": "refs(unc).p", "refcocog": "refs(umd).p"}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), "above": (0, -1), "below": (0, 1)}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dir = tmp_path_factory.mktemp("shapes") / "shapes"
    draw_shapes(dir, sets=SETS, num_train=NUM_TRAIN, num_val=NUM_VAL, seed=SEED)
    return dir


@cache
def scene(image_set: str, split: str, image_id: int) -> tuple[Image.Image, list[Thing]]:
    return draw_scene(image_rng(SEED, image_set, split, (image_id - 1) // 2))


def things_of(image_set: str, split: str, image_id: int) -> list[Thing]:
    return scene(image_set, split, image_id)[1]


def tasks(dir: Path, split: str) -> list[dict[str, Any]]:
    return json.loads((dir / PHRASECUT / f"refer_{split}.json").read_text())


def refs(dir: Path, dataset: str) -> list[dict[str, Any]]:
    return pickle.loads((dir / "coco/refer/data" / dataset / REFS[dataset]).read_bytes())


def expressions(dir: Path, dataset: str) -> list[tuple[list[Thing], Thing, str]]:
    """The things in the image, the referred thing and the expression."""
    return [
        (things, things[ref["ann_id"] % 10], sentence["sent"])
        for ref in refs(dir, dataset)
        for things in [things_of("coco", ref["split"], ref["image_id"])]
        for sentence in ref["sentences"]
    ]


def digests(dir: Path) -> dict[str, str]:
    files = sorted(path for path in dir.rglob("*") if path.is_file())
    return {str(path.relative_to(dir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def phrasecut_mask(polygons: list[list[list[float]]], width: int, height: int) -> np.ndarray:
    """The union of one instance's polygons, filled as in PhraseCut's own code."""
    mask = Image.new("L", (width, height))
    for polygon in polygons:
        ImageDraw.Draw(mask).polygon([(int(x), int(y)) for x, y in polygon], outline=1, fill=1)
    return np.array(mask, dtype=bool)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def singular(word: str) -> str:
    return next((name for name in (*OUTLINES, "thing") if word in (name, f"{name}s", f"{name}es")), word)


def alike(words: list[str], things: list[Thing]) -> list[Thing]:
    wanted = {singular(word) for word in words} - {"thing", "a", "an", "the", "that", "is"}
    return [thing for thing in things if wanted <= set(thing.words)]


def middle(thing: Thing) -> np.ndarray:
    y, x = np.nonzero(thing.visible)
    return np.array([x.min() + x.max() + 1, y.min() + y.max() + 1]) / 2


def beside(words: list[str], things: list[Thing]) -> list[Thing]:
    """The things that a phrase such as "stars left of red ring" describes: those farther to that side."""
    at = next((index for index, word in enumerate(words) if word in DIRECTIONS), None)
    if at is None:
        return alike(words, things)
    (support,) = alike([word for word in words[at + 1 :] if word != "of"], things)
    subjects = alike([word for word in words[:at] if word != "to"], things)
    return [t for t in subjects if np.dot(middle(t) - middle(support), DIRECTIONS[words[at]]) > 0]


def test_another_seed_draws_other_images(drawn: Path, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "other", sets=SETS, num_train=2, num_val=1, seed=SEED + 1)
    assert not set(digests(tmp_path / "other").values()) & set(digests(drawn).values())


@pytest.mark.parametrize("image_set", SETS)
def test_a_set_has_the_same_bytes_whether_drawn_alone_or_with_others(drawn: Path, tmp_path: Path, image_set) -> None:
    counts = draw_shapes(tmp_path / "one", sets=[image_set], num_train=NUM_TRAIN, num_val=NUM_VAL, seed=SEED)
    (dir,) = (tmp_path / "one").iterdir()
    assert digests(dir) == digests(drawn / dir.name)
    assert {name.split()[0] for name in counts} == (set(REFS) if image_set == "coco" else {image_set})


def test_the_image_sets_share_no_image(drawn: Path) -> None:
    images = [digest for name, digest in digests(drawn).items() if name.endswith(".jpg")]
    num_more = NUM_MINIV + NUM_VAL  # PhraseCut's miniv and test
    assert len(set(images)) == len(images) == 3 * (NUM_TRAIN + NUM_VAL) + num_more


def test_phrasecut_has_all_official_splits_with_images_and_tasks_of_their_own(drawn: Path) -> None:
    infos = json.loads((drawn / PHRASECUT / "img_info.json").read_text())
    of_split = {split: [info["image_id"] for info in infos if info["split"] == split] for split in PHRASECUT_SPLITS}
    assert {split: len(ids) for split, ids in of_split.items()} == PHRASECUT_SPLITS
    assert len({info["image_id"] for info in infos}) == len(infos) == sum(PHRASECUT_SPLITS.values())
    for split, ids in of_split.items():
        assert {task["image_id"] for task in tasks(drawn, split)} == set(ids)
    every = [task["task_id"] for split in PHRASECUT_SPLITS for task in tasks(drawn, split)]
    assert len(set(every)) == len(every)


def test_first_images_do_not_change_when_more_are_drawn(drawn: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer"
    draw_shapes(fewer, sets=SETS, num_train=4, num_val=2, seed=SEED)
    jpegs = {name: digest for name, digest in digests(fewer).items() if name.endswith(".jpg")}
    assert len(jpegs) == 3 * (4 + 2) + 1 + 2
    assert jpegs.items() <= digests(drawn).items()
    assert tasks(fewer, "train") == [task for task in tasks(drawn, "train") if task["image_id"] <= 7]
    assert tasks(fewer, "val") == [task for task in tasks(drawn, "val") if task["image_id"] <= 4]
    for dataset in REFS:
        few, many = ({ref["ref_id"]: ref for ref in refs(dir, dataset)} for dir in (fewer, drawn))
        assert few.items() <= many.items()


def test_an_old_data_set_is_replaced_completely(tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "old.txt").touch()
    counts = draw_shapes(tmp_path / "shapes", sets=SETS, num_train=2, num_val=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]
    assert not (tmp_path / "shapes" / "old.txt").exists()
    assert counts["phrasecut train images"] == counts["refcocog train images"] == 2
    assert counts["voc train_aug images"] == 2
    assert counts["phrasecut val expressions"] == len(tasks(tmp_path / "shapes", "val"))


def test_every_thing_is_visible_and_no_pixel_belongs_to_two() -> None:
    for index in range(30):
        _, things = draw_scene(np.random.default_rng(index))
        assert 3 <= len(things) <= 6
        assert all(thing.visible.sum() >= LEAST_VISIBLE * thing.num_pixels for thing in things)
        assert np.sum([thing.visible for thing in things], axis=0).max() == 1


def test_plain_things_have_the_colour_of_their_words() -> None:
    for index in range(30):
        image, things = draw_scene(np.random.default_rng(index))
        for thing in (thing for thing in things if not {"striped", "dotted"} & set(thing.words)):
            red, green, blue = np.median(np.asarray(image)[thing.visible], axis=0) / 255
            hue = 360 * colorsys.rgb_to_hsv(red, green, blue)[0]
            nearest = min(HUES, key=lambda name: abs((hue - HUES[name] + 180) % 360 - 180))
            assert nearest in thing.words


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_phrasecut_phrase_describes_exactly_its_mask(drawn: Path, split: str) -> None:
    for task in tasks(drawn, split):
        things = things_of("phrasecut", split, task["image_id"])
        described = beside(task["phrase"].split(), things)
        assert [id // 100 for id in task["ann_ids"]] == [
            10 * task["image_id"] + things.index(thing) for thing in described
        ]
        height, width = things[0].visible.shape
        masks = [phrasecut_mask(polygons, width, height) for polygons in task["Polygons"]]
        assert iou(np.any(masks, axis=0), np.any([thing.visible for thing in described], axis=0)) > 0.95
        for mask, (x, y, box_width, box_height) in zip(masks, task["instance_boxes"], strict=True):
            inside = np.zeros_like(mask)
            inside[y : y + box_height, x : x + box_width] = True
            assert not (mask & ~inside).any()


def test_phrasecut_files_have_the_official_keys(drawn: Path) -> None:
    infos = {info["image_id"]: info for info in json.loads((drawn / PHRASECUT / "img_info.json").read_text())}
    for split, num in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        assert len({task["image_id"] for task in tasks(drawn, split)}) == num
        assert len({task["task_id"] for task in tasks(drawn, split)}) == len(tasks(drawn, split))
        for task in tasks(drawn, split):
            assert list(task) == [
                *("task_id", "image_id", "ann_ids", "instance_boxes", "Polygons", "phrase", "phrase_structure")
            ]
            structure, info = task["phrase_structure"], infos[task["image_id"]]
            relations = [word for relation in structure["relation_descriptions"] for word in relation]
            assert task["phrase"] == " ".join([*structure["attributes"], structure["name"], *relations])
            image = Image.open(drawn / PHRASECUT / "images" / f"{task['image_id']}.jpg")
            assert image.size == (info["width"], info["height"])
            assert info["split"] == split


def test_phrasecut_has_each_type_several_instances_and_regions_that_overlap(drawn: Path) -> None:
    train = tasks(drawn, "train")
    assert {task["phrase_structure"]["type"] for task in train} == {"name", "attribute", "relation"}
    assert max(len(task["ann_ids"]) for task in train) > 1
    for whole in (set.__lt__, set.__eq__):  # one region contains another; two regions are equal
        described = [{id // 100 for id in task["ann_ids"]} for task in train]
        assert any(whole(one, other) for one, other in combinations(described, 2))


def test_every_category_and_colour_of_an_image_has_its_phrase(drawn: Path) -> None:
    for image_id, of_image in groupby(tasks(drawn, "train"), key=itemgetter("image_id")):
        words = {word.removesuffix("s") for task in of_image for word in task["phrase"].split()}
        for thing in things_of("phrasecut", "train", image_id):
            assert {word.removesuffix("s") for word in thing.words if word in {*HUES, *OUTLINES}} <= words


def test_coco_annotations_of_every_form_are_exact(drawn: Path) -> None:
    coco = COCO(str(drawn / "coco/refer/data/refcoco/instances.json"))
    forms = set()
    for annotation in coco.dataset["annotations"]:
        split = "train" if annotation["image_id"] % 2 else "val"
        thing = things_of("coco", split, annotation["image_id"])[annotation["id"] % 10]
        assert iou(coco.annToMask(annotation).astype(bool), thing.visible) > 0.99
        assert annotation["area"] == thing.visible.sum()
        assert coco.cats[annotation["category_id"]]["name"] == thing.category
        segmentation = annotation["segmentation"]
        forms.add(type(segmentation["counts"] if isinstance(segmentation, dict) else segmentation[0][0]))
    assert forms == {str, list, float}  # compressed and plain run lengths, polygons


@pytest.mark.parametrize("dataset", REFS)
def test_refs_point_at_their_annotations_and_images(drawn: Path, dataset: str) -> None:
    instances = json.loads((drawn / "coco/refer/data" / dataset / "instances.json").read_text())
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    images = {image["id"]: image for image in instances["images"]}
    for ref in refs(drawn, dataset):
        annotation, image = annotations[ref["ann_id"]], images[ref["image_id"]]
        assert (annotation["image_id"], annotation["category_id"]) == (ref["image_id"], ref["category_id"])
        assert (drawn / "coco/images/train2014" / image["file_name"]).is_file()
        assert [sentence["sent_id"] for sentence in ref["sentences"]] == ref["sent_ids"]
        assert all(sentence["tokens"] == sentence["sent"].split() for sentence in ref["sentences"])
    sent_ids = [sent_id for ref in refs(drawn, dataset) for sent_id in ref["sent_ids"]]
    assert len(set(sent_ids)) == len(sent_ids) > NUM_TRAIN
    assert {ref["split"] for ref in refs(drawn, dataset)} == {"train", "val"}


def test_refcoco_expressions_refer_to_the_outermost_thing_of_their_kind(drawn: Path) -> None:
    for things, referred, expression in expressions(drawn, "refcoco"):
        words = [word for word in expression.split() if word not in ("on", "at", "the")]
        (side,) = (word for word in words if word in DIRECTIONS)
        kind = alike([word for word in words if word != side], things)
        reach = {thing: np.dot(middle(thing), DIRECTIONS[side]) for thing in kind}
        assert max(reach, key=reach.__getitem__) is referred
        assert all(reach[referred] >= reach[thing] + 10 for thing in kind if thing is not referred)


def test_refcoco_plus_expressions_name_no_location(drawn: Path) -> None:
    for things, referred, expression in expressions(drawn, "refcoco+"):
        assert not set(expression.split()) & {*DIRECTIONS, "of", "on", "at", "to", "side", "upper", "lower"}
        assert alike(expression.split(), things) == [referred]


def test_refcocog_expressions_have_a_relation_and_refer_to_one_thing(drawn: Path) -> None:
    for things, referred, expression in expressions(drawn, "refcocog"):
        assert set(expression.split()) & set(DIRECTIONS)
        assert beside(expression.split(), things) == [referred]
