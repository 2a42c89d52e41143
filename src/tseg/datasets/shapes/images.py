"""Draw and save the images of *shapes*, and yield them for the writers of annotations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tseg.datasets.shapes.scenes import Thing, draw_scene
from tseg.progress import progress

IMAGE_SETS = ("phrasecut", "coco", "voc")
SPLITS = ("train", "val", "miniv", "test")
IDS_PER_SPLIT = 10**6
"""Image ids of miniv start at twice this number, those of test at three times."""
JPEG_QUALITY = 90


class DrawnImage(NamedTuple):
    """A saved image, its things, and the random generator for its expressions."""

    info: dict[str, Any]  # id, file_name, width, height
    split: str
    things: list[Thing]
    rng: np.random.Generator

    def ann_id(self, thing: Thing) -> int:
        """The annotation id of one of its things, unique across all images."""
        return 10 * self.info["id"] + self.things.index(thing)


def image_rng(seed: int, image_set: str, split: str, index: int) -> np.random.Generator:
    """The random generator of one image, for its scene and then for its expressions."""
    return np.random.default_rng([seed, IMAGE_SETS.index(image_set), SPLITS.index(split), index])


def draw_images(
    images_dir: Path, file_name: str, image_set: str, num_images: dict[str, int], seed: int
) -> Iterator[DrawnImage]:
    """Draw the images of one set; their ids fill the template `file_name`."""
    images_dir.mkdir(parents=True)
    for split, num in num_images.items():
        for index in progress(range(num), f"{image_set} {split}", "images"):
            rng = image_rng(seed, image_set, split, index)
            drawing, things = draw_scene(rng)
            image_id = _image_id(split, index)
            name = file_name.format(image_id)
            drawing.save(images_dir / name, quality=JPEG_QUALITY)
            info = {"id": image_id, "file_name": name, "width": drawing.width, "height": drawing.height}
            yield DrawnImage(info, split, things, rng)


def _image_id(split: str, index: int) -> int:
    """The id of an image, which does not depend on the sizes of the splits: odd for train, even for val."""
    position = SPLITS.index(split)
    return 2 * index + 1 + position if position < 2 else position * IDS_PER_SPLIT + index
