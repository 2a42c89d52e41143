from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, generate_binary_structure

from tseg.datasets.readers.voc import open_voc
from tseg.datasets.shapes.draw import draw_shapes
from tseg.datasets.shapes.images import image_rng
from tseg.datasets.shapes.scenes import HUES, Thing, draw_scene
from tseg.datasets.shapes.voc import VOC_CLASSES, class_labels
from tseg.records import decode_mask

NUM_IMAGES, SEED = {"train_aug": 20, "val": 5}, 3
CROSS = generate_binary_structure(2, 1)


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dir = tmp_path_factory.mktemp("shapes") / "shapes"
    draw_shapes(dir, sets=["voc"], num_train=NUM_IMAGES["train_aug"], num_val=NUM_IMAGES["val"], seed=SEED)
    return dir / "VOCdevkit" / "VOC2012"


def read_all(devkit: Path, split: str) -> list[dict]:
    """The records of a split, none of them skipped."""
    opened = open_voc(devkit, split, masks=[devkit / "SegmentationClassAug"], classes=VOC_CLASSES)
    records = [record for line in opened.items for record in opened.read(line)]
    assert all(isinstance(record, dict) for record in records)
    return records  # type: ignore[return-value]


def things_of(name: str, split: str) -> list[Thing]:
    index = (int(name.split("_")[1]) - 1) // 2
    return draw_scene(image_rng(SEED, "voc", split.removesuffix("_aug"), index))[1]


def voc_class(thing: Thing) -> str:
    (colour,) = set(thing.words) & set(HUES)
    return "cool thing" if colour in ("cyan", "blue") else f"{colour} thing"


def test_every_colour_has_a_class_and_two_share_one():
    colours = {f"{colour} thing" for colour in HUES}
    assert len(set(VOC_CLASSES)) == len(VOC_CLASSES) == 7
    assert set(VOC_CLASSES) - colours == {"cool thing"}
    assert colours - set(VOC_CLASSES) == {"cyan thing", "blue thing"}


@pytest.mark.parametrize("split", NUM_IMAGES)
def test_the_reader_finds_the_classes_of_the_scene_without_borders(devkit: Path, split: str) -> None:
    records = read_all(devkit, split)
    names = list(dict.fromkeys(record["image_id"] for record in records))
    assert len(names) == NUM_IMAGES[split]
    for name in names:
        things = things_of(name, split)
        of_image = {record["expression"]: record for record in records if record["image_id"] == name}
        assert set(of_image) == {voc_class(thing) for thing in things}
        for expression, record in of_image.items():
            size = record["height"], record["width"]
            mask, ignore = (decode_mask(record[key], *size) for key in ("mask", "ignore"))
            inner = [
                binary_erosion(thing.visible, CROSS, border_value=True)
                for thing in things
                if voc_class(thing) == expression
            ]
            np.testing.assert_array_equal(mask, np.any(inner, axis=0))
            assert not (mask & ignore).any()


def test_void_is_one_pixel_on_each_side_of_every_edge_even_within_a_class() -> None:
    left, right = np.zeros((2, 12, 20), bool)
    left[3:9, 2:10], right[3:9, 10:18] = True, True
    labels = class_labels([Thing(("cyan", "arrow"), left, 48), Thing(("blue", "cross"), right, 48)])
    edges = np.any([region ^ binary_erosion(region, CROSS) for region in (left, right)], axis=0)
    edges |= binary_dilation(left | right, CROSS) & ~(left | right)
    expected = np.where(left | right, VOC_CLASSES.index("cool thing") + 1, 0)
    np.testing.assert_array_equal(labels, np.where(edges, 255, expected))
    assert (labels[5, 8:12] == [7, 255, 255, 7]).all()


def test_masks_and_images_have_the_layout_of_the_voc_devkit(devkit: Path) -> None:
    names = [(devkit / f"ImageSets/Segmentation/{split}.txt").read_text().split() for split in NUM_IMAGES]
    assert [len(of_split) for of_split in names] == list(NUM_IMAGES.values())
    for name in chain.from_iterable(names):
        mask = Image.open(devkit / "SegmentationClassAug" / f"{name}.png")
        assert mask.mode == "P"
        assert mask.size == Image.open(devkit / "JPEGImages" / f"{name}.jpg").size
        palette = np.reshape(mask.getpalette(), (-1, 3))  # type: ignore[arg-type]
        np.testing.assert_array_equal(palette[[0, 1, 8, 255]], [(0, 0, 0), (128, 0, 0), (64, 0, 0), (224, 224, 192)])


def test_all_classes_are_drawn(devkit: Path) -> None:
    records = read_all(devkit, "train_aug")
    assert {record["expression"] for record in records} == set(VOC_CLASSES)
