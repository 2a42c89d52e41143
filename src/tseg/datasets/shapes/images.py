"""The images of *shapes*: drawn, saved, and handed with their things to whoever writes their annotation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tseg.datasets.shapes.scenes import Thing, draw_scene
from tseg.progress import progress

IMAGE_SETS = ("phrasecut", "coco", "voc")
SPLITS = ("train", "val")
JPEG_QUALITY = 90


class DrawnImage(NamedTuple):
    """One image on disk, what is in it, and the random numbers for what is said of it."""

    info: dict[str, Any]  # id, file_name, width, height
    split: str
    things: list[Thing]
    rng: np.random.Generator

    def ann_id(self, thing: Thing) -> int:
        """The number of one of its things, unique among all images."""
        return 10 * self.info["id"] + self.things.index(thing)


def image_rng(seed: int, image_set: str, split: str, index: int) -> np.random.Generator:
    """The random numbers of one image: first for its scene, then for what is said of it."""
    return np.random.default_rng([seed, IMAGE_SETS.index(image_set), SPLITS.index(split), index])


def draw_images(
    images_dir: Path, file_name: str, image_set: str, num_images: dict[str, int], seed: int
) -> Iterator[DrawnImage]:
    """Draw the images of one set, with `file_name` formatted by their ids."""
    images_dir.mkdir(parents=True)
    for split, num in num_images.items():
        for index in progress(range(num), f"{image_set} {split}", "images"):
            rng = image_rng(seed, image_set, split, index)
            drawing, things = draw_scene(rng)
            # Odd for train, even for val: more images of one split do not change the ids of the other.
            image_id = 2 * index + 1 + SPLITS.index(split)
            info = {"id": image_id, "file_name": file_name.format(image_id)}
            drawing.save(images_dir / info["file_name"], quality=JPEG_QUALITY)
            yield DrawnImage({**info, "width": drawing.width, "height": drawing.height}, split, things, rng)
