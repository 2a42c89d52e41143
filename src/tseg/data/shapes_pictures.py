"""The pictures of *shapes*: drawn, saved, and handed with their things to whoever writes their annotation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tseg.data.shapes_scenes import Thing, draw_scene
from tseg.progress import progress

PICTURE_SETS = ("phrasecut", "coco", "voc")
SPLITS = ("train", "val")
JPEG_QUALITY = 90


class Picture(NamedTuple):
    """One picture on disk, what is in it, and the random numbers for what is said of it."""

    image: dict[str, Any]  # id, file_name, width, height
    split: str
    things: list[Thing]
    rng: np.random.Generator

    def ann_id(self, thing: Thing) -> int:
        """The number of one of its things, unique among all pictures."""
        return 10 * self.image["id"] + self.things.index(thing)


def picture_rng(seed: int, picture_set: str, split: str, index: int) -> np.random.Generator:
    """The random numbers of one picture: first for its scene, then for what is said of it."""
    return np.random.default_rng([seed, PICTURE_SETS.index(picture_set), SPLITS.index(split), index])


def draw_pictures(
    images_dir: Path, file_name: str, picture_set: str, num_pictures: dict[str, int], seed: int
) -> Iterator[Picture]:
    """Draw the pictures of one set, with `file_name` formatted by their ids."""
    images_dir.mkdir(parents=True)
    for split, num in num_pictures.items():
        for index in progress(range(num), f"{picture_set} {split}", "pictures"):
            rng = picture_rng(seed, picture_set, split, index)
            drawing, things = draw_scene(rng)
            # Odd for train, even for val: more pictures of one split do not change the ids of the other.
            image_id = 2 * index + 1 + SPLITS.index(split)
            image = {"id": image_id, "file_name": file_name.format(image_id)}
            drawing.save(images_dir / image["file_name"], quality=JPEG_QUALITY)
            yield Picture({**image, "width": drawing.width, "height": drawing.height}, split, things, rng)
