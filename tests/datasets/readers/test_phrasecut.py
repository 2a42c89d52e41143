import hashlib
import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tseg.datasets.readers.annotations import OpenSplit, Skipped
from tseg.datasets.readers.phrasecut import COCO_NAMES, open_phrasecut, subset_tags
from tseg.datasets.readers.polygons import fill_polygons
from tseg.datasets.shapes.draw import draw_shapes
from tseg.records import decode_mask

IMAGES = [{"image_id": 9, "width": 40, "height": 30}]
SQUARE = [[2, 3], [7, 3], [7, 8], [2, 8]]


def make_task(task_id: str = "9__1", **changes) -> dict:
    structure = {"name": "dog", "attributes": [], "relation_descriptions": [], "type": "name"}
    task = {"task_id": task_id, "image_id": 9, "Polygons": [[SQUARE]], "phrase": "dog"}
    return task | {"phrase_structure": structure} | changes


def write(folder: Path, val: list, images: list = IMAGES, **others: list) -> Path:
    for name, content in {"refer_train": [], "refer_val": val, "img_info": images, **others}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def read(opened: OpenSplit) -> tuple[list[dict], list[Skipped]]:
    """The records of a split in order, and the skipped records."""
    found = [record for item in opened.items for record in opened.read(item)]
    skipped = [record for record in found if isinstance(record, Skipped)]
    return [record for record in found if not isinstance(record, Skipped)], skipped


def read_masks(folder: Path, split: str = "val") -> list[np.ndarray]:
    records, skipped = read(open_phrasecut(folder, split))
    assert not skipped
    return [decode_mask(record["mask"], record["height"], record["width"]) for record in records]


def test_a_mask_includes_its_outline_and_truncates_coordinates(tmp_path):
    task = make_task(Polygons=[[[[1.9, 1.2], [4.7, 1.2], [4.7, 3.9], [1.9, 3.9]]]])
    expected = np.zeros((30, 40), dtype=bool)
    expected[1:4, 1:5] = True
    np.testing.assert_array_equal(read_masks(write(tmp_path, [task]))[0], expected)


def random_polygons() -> Iterator[tuple[tuple[int, int], list[list[tuple[int, int]]]]]:
    """The height and width of an image, and polygons that cross themselves, each other and the image's border."""
    seeded = random.Random(0)
    for number in range(600):
        sides = (1, 60) if number % 3 else (200, 500)
        width, height = seeded.randint(*sides), seeded.randint(*sides)
        polygons = [
            [
                (seeded.randint(-width // 4, 5 * width // 4), seeded.randint(-height // 4, 5 * height // 4))
                for _ in range(seeded.randint(2, 30))
            ]
            for _ in range(seeded.choice([1, 1, 3]))
        ]
        yield (height, width), polygons


def test_polygons_are_filled_as_by_the_pillow_that_the_evaluator_pins():
    digest = hashlib.sha256()
    for size, polygons in random_polygons():
        digest.update(fill_polygons([np.array(polygon) for polygon in polygons], size).tobytes())
    # Computed with Pillow 6.1.0: the bytes of each mode L image after ImageDraw.polygon(corners, fill=1, outline=1).
    assert digest.hexdigest() == "0a8ab18b41a581bbdcc22e369407f74aba2554e3059ca6870bb0ddc940fd3a32"


def test_a_polygon_is_filled_along_its_edges_as_drawn_by_hand():
    drawn = ["....#.....", "..###.....", "#####.....", ".#####....", ".#####....", ".....#...."]
    expected = np.array([[char == "#" for char in row] for row in drawn])
    np.testing.assert_array_equal(fill_polygons([np.array([(0, 2), (4, 0), (5, 5), (1, 4)])], (6, 10)), expected)


def test_a_mask_is_the_union_of_its_polygons_and_points_are_skipped(tmp_path):
    seeded = np.random.default_rng(0)
    polygons = [seeded.uniform(-5, 45, size=(n, 2)).tolist() for n in (0, 1, 2, 3, 5, 9)]
    expected = np.zeros((30, 40), dtype=bool)
    for polygon in polygons[2:]:
        expected |= fill_polygons([np.array(polygon).astype(int)], (30, 40))
    task = make_task(Polygons=[polygons[:2], polygons[2:4], polygons[4:]])
    np.testing.assert_array_equal(read_masks(write(tmp_path, [task]))[0], expected)


def evaluators_mask(task: dict, width: int, height: int) -> np.ndarray:
    """Draw each polygon on a separate image and take the union, as PhraseCut's evaluator does."""
    mask = np.zeros((height, width), dtype=bool)
    for polygons in task["Polygons"]:
        for polygon in polygons:
            if len(polygon) >= 2:
                image = Image.new("L", (width, height), 0)
                ImageDraw.Draw(image).polygon([(int(x), int(y)) for x, y in polygon], outline=1, fill=1)
                mask |= np.array(image, dtype=bool)
    return mask


def test_masks_of_drawn_shapes_equal_those_of_the_evaluator(tmp_path):
    draw_shapes(tmp_path / "shapes", sets=["phrasecut"], num_train=10, num_val=1, seed=5)
    folder = tmp_path / "shapes/phrasecut/VGPhraseCut_v0"
    records, skipped = read(open_phrasecut(folder, "train"))
    assert not skipped
    tasks = json.loads((folder / "refer_train.json").read_text())
    assert len(tasks) > 50
    for record, task in zip(records, tasks, strict=True):
        assert record["record_id"] == task["task_id"]
        mask = decode_mask(record["mask"], record["height"], record["width"])
        np.testing.assert_array_equal(mask, evaluators_mask(task, record["width"], record["height"]))


def test_memory_does_not_grow_with_the_number_of_tasks(tmp_path, monkeypatch):
    monkeypatch.setattr("tseg.datasets.readers.json_stream.CHUNK", 2**12)
    peaks = []
    for number in (100, 100, 2000):  # the first fills caches
        write(tmp_path, [make_task(f"9__{task}", Polygons=[[SQUARE * 5]]) for task in range(number)])
        opened = open_phrasecut(tmp_path, "val")
        tracemalloc.start()
        assert sum(1 for item in opened.items for _ in opened.read(item)) == number
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]  # the garbage collector runs at varying times


def test_a_record_has_the_values_of_its_task(tmp_path):
    (record,), _ = read(open_phrasecut(write(tmp_path, [make_task(phrase="  Big \t dog\n")]), "val"))
    assert record["record_id"] == record["group_id"] == "9__1"
    assert (record["image_id"], record["file_name"]) == ("9", "9.jpg")
    assert (record["height"], record["width"]) == (30, 40)
    assert record["expression"] == "Big dog"
    assert record["box"] == [2, 3, 6, 6]


@pytest.mark.parametrize(("changes", "expected"), [({"coco_id": 5802}, "5802"), ({"coco_id": None}, None), ({}, None)])
def test_a_record_has_the_coco_id_of_its_image_if_known(tmp_path, changes, expected):
    (record,), _ = read(open_phrasecut(write(tmp_path, [make_task()], [IMAGES[0] | changes]), "val"))
    assert record["coco_id"] == expected


def test_a_record_with_a_bad_coco_id_is_skipped(tmp_path):
    _, (skipped,) = read(open_phrasecut(write(tmp_path, [make_task()], [IMAGES[0] | {"coco_id": 12.5}]), "val"))
    assert skipped.reason == "its coco_id is missing or not of type int; correct it in the file"


def test_records_keep_the_order_of_the_files_and_a_sum_of_splits_reads_both(tmp_path):
    miniv = [make_task("9__0")]
    write(tmp_path, [make_task("9__2"), make_task("9__1")], refer_miniv=miniv)
    records, _ = read(open_phrasecut(tmp_path, "val+miniv"))
    assert [record["record_id"] for record in records] == ["9__2", "9__1", "9__0"]


def test_names_are_ranked_by_their_frequency_in_training(tmp_path):
    counts = {f"name{rank}": 1 + (500 - rank) // 50 for rank in range(501)}
    names = sorted(counts, key=counts.__getitem__)  # rare names first: the order of the file decides only ties
    train = [make_task(phrase_structure={"name": name}) for name in names for _ in range(counts[name])]
    ranks = {"name0": "c20", "name19": "c20", "name20": "c21-100", "name99": "c21-100"}
    ranks |= {"name100": "c101-500", "name499": "c101-500", "name500": "c500+", "never": "c500+"}
    val = [make_task(name, phrase_structure={"name": name}) for name in ranks]
    records, _ = read(open_phrasecut(write(tmp_path, val, refer_train=train), "val"))
    assert [record["tags"][0] for record in records] == list(ranks.values())


def test_the_data_sets_own_counts_rank_names_where_they_are_present(tmp_path):
    write(tmp_path, [make_task(name, phrase_structure={"name": name}) for name in ("rare", "common", "other")])
    assert open_phrasecut(tmp_path, "val").name_ranks == "refer_train.json"
    names = ["common", *(f"name{rank}" for rank in range(498)), "rare", "other"]
    counts = {"cat": [[name, 1000 - rank] for rank, name in enumerate(names)], "att": [], "rel": []}
    (tmp_path / "name_att_rel_count.json").write_text(json.dumps(counts))
    opened = open_phrasecut(tmp_path, "val")
    assert opened.name_ranks == "name_att_rel_count.json"
    assert [record["tags"][0] for record in read(opened)[0]] == ["c101-500", "c20", "c500+"]


@pytest.mark.parametrize("content", ["<html>", "[]", "{}", '{"cat": [1]}', '{"cat": null}'])
def test_damaged_counts_are_named(tmp_path, content):
    (write(tmp_path, [make_task()]) / "name_att_rel_count.json").write_text(content)
    with pytest.raises(ValueError, match=r"name_att_rel_count\.json lists no categories .*; fetch it again"):
        open_phrasecut(tmp_path, "val")


@pytest.mark.parametrize(
    ("changes", "num_instances", "share", "expected"),
    [
        ({"type": "name"}, 1, 0.019, {"i_single", "p_name", "s_small"}),
        ({"type": "attribute", "attributes": ["big"]}, 2, 0.02, {"i_multi", "p_att", "s_mid"}),
        ({"type": "relation", "relation_descriptions": [["on", "mat"]]}, 4, 0.2, {"i_multi", "p_rel", "s_mid"}),
        (
            {"type": "verbose", "attributes": ["big"], "relation_descriptions": [["on", "mat"]]},
            *(5, 0.201, {"i_many", "p_att", "p_rel", "p_verbose", "s_large"}),
        ),
        ({"type": "name", "name": "teddy bear"}, 1, 0.5, {"c_coco", "i_single", "p_name", "s_large"}),
    ],
)
def test_subset_tags_are_those_of_the_official_evaluator(changes, num_instances, share, expected):
    structure = {"name": "roof", "attributes": [], "relation_descriptions": []} | changes
    assert set(subset_tags(structure, num_instances, share, {})) == expected | {"c500+"}


def test_there_are_eighty_coco_names():
    assert len(COCO_NAMES) == 80


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"phrase": " \n"}, "its expression is empty; write one"),
        ({"phrase": None}, "its phrase is missing or not of type str; correct it"),
        ({"phrase_structure": None}, "its phrase_structure is missing or not of type dict; correct it"),
        ({"phrase_structure": {}}, "its name is missing or not of type str; correct it"),
        ({"image_id": 10}, "its image 10 is not in img_info.json; add the image there"),
        ({"Polygons": None}, "its Polygons is missing or not of type list; correct it"),
        ({"Polygons": []}, "its mask is empty; draw the region inside the image"),
        ({"Polygons": [[[[50, 50], [60, 50], [60, 60]]]]}, "its mask is empty; draw the region inside"),
        ({"Polygons": [5]}, "one of its Polygons is not a list of polygons; correct it"),
        ({"Polygons": [[[["x", 1], [2, 3]]]]}, "not a list of points x, y; correct the polygon"),
        ({"Polygons": [[[[1, 2, 3], [4, 5, 6]]]]}, "not a list of points x, y; correct the polygon"),
        ({"Polygons": [[[SQUARE]]]}, "not a list of points x, y; correct the polygon"),
        (
            {"Polygons": [[[[0, 0], [9e4, 9e4]] * 99]]},
            "its polygons are longer than 1,000,000 pixels in total; simplify",
        ),
        ({"Polygons": [[[[-50, -60], [-70, -60], [-60, -90]]]]}, "its mask is empty; draw the region inside"),
        ({"Polygons": [[[[0, 0], [1e12, 0], [0, 5]]]]}, "not a list of points x, y; correct the polygon"),
        ({"Polygons": [[[[0, 0], [float("nan"), 0], [0, 5]]]]}, "not a list of points x, y; correct the"),
        ({"Polygons": [[[[0, 0], [10**400, 0], [0, 5]]]]}, "not a list of points x, y; correct the polygon"),
    ],
)
def test_a_bad_task_is_skipped_with_its_reason_and_the_others_stay(tmp_path, changes, reason):
    records, (skipped,) = read(open_phrasecut(write(tmp_path, [make_task("bad", **changes), make_task()]), "val"))
    assert [record["record_id"] for record in records] == ["9__1"]
    assert (skipped.file, skipped.record) == (tmp_path / "refer_val.json", "bad")
    assert reason in skipped.reason


def test_a_task_without_an_id_is_named_by_its_number(tmp_path):
    task = make_task()
    del task["task_id"]
    _, (skipped,) = read(open_phrasecut(write(tmp_path, [make_task(), task]), "val"))
    assert skipped.record == "number 1"


@pytest.mark.parametrize("size", [(0, 5), (-3, 5), (10**6, 10**6)])
def test_a_record_with_an_impossible_image_size_is_skipped(tmp_path, size):
    images = [{"image_id": 9, "width": size[0], "height": size[1]}]
    _, (skipped,) = read(open_phrasecut(write(tmp_path, [make_task()], images), "val"))
    assert f"its image cannot be {size[0]} x {size[1]} pixels; correct the size in img_info.json" in skipped.reason


def test_an_unknown_split_lists_the_existing_splits(tmp_path):
    with pytest.raises(ValueError, match=r"refer_dev\.json does not exist; choose one of train, val$"):
        read(open_phrasecut(write(tmp_path, []), "dev"))
    with pytest.raises(ValueError, match=r"refer_val\.json does not exist; put PhraseCut's files there"):
        read(open_phrasecut(tmp_path / "elsewhere", "val"))


@pytest.mark.parametrize("name", ["refer_train.json", "img_info.json"])
def test_a_missing_file_is_named(tmp_path, name):
    (write(tmp_path, [make_task()]) / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} does not exist; put the data set's annotation files there"):
        read(open_phrasecut(tmp_path, "val"))


@pytest.mark.parametrize("name", ["refer_val.json", "refer_train.json", "img_info.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "is not JSON .*; fetch it again"),
        (b'["\xff"]', "is not JSON .*; fetch it again"),
        (b"[" * 100_000, "is not JSON .*; fetch it again"),
        (b"{}", "does not hold a list of objects; replace it with the official file"),
        (b"[1]", "does not hold a list of objects; replace it with the official file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    (write(tmp_path, [make_task()]) / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} {message}"):
        read(open_phrasecut(tmp_path, "val"))
