"""Draw the part of *shapes* with annotations like VOC 2012: class masks with void borders."""

from pathlib import Path

import numpy as np
from PIL import Image

from tseg.datasets.readers.voc_masks import VOC_COLOURS, VOID
from tseg.datasets.shapes.images import draw_images
from tseg.datasets.shapes.scenes import HUES, Thing

# No phrase contains "cool", as few of PhraseCut's contain "person", so label engineering must replace this class name.
MERGED = {"cyan": "cool", "blue": "cool"}
# Classes are colours: few images and iterations suffice to learn them, and phrases name them ("red thing").
VOC_CLASSES = tuple(f"{name} thing" for name in (*(colour for colour in HUES if colour not in MERGED), "cool"))
"""Names of the mask values 1, 2, ..."""
SPLIT_NAMES = {"train": "train_aug", "val": "val"}


def draw_voc(dir: Path, num_images: dict[str, int], seed: int) -> dict[str, int]:
    """Draw images, masks and lists as in VOCdevkit/VOC2012; return the counts of images."""
    dir /= Path("VOCdevkit", "VOC2012")
    lists_dir, masks_dir = dir / "ImageSets" / "Segmentation", dir / "SegmentationClassAug"
    names: dict[str, list[str]] = {split: [] for split in num_images}
    for folder in (lists_dir, masks_dir):
        folder.mkdir(parents=True)
    for image in draw_images(dir / "JPEGImages", "2012_{:06d}.jpg", "voc", num_images, seed):
        name = Path(image.info["file_name"]).stem
        names[image.split].append(name)
        mask = Image.fromarray(class_labels(image.things))
        mask.putpalette(VOC_COLOURS.ravel().tolist())
        mask.save(masks_dir / f"{name}.png")
    for split, split_names in names.items():
        (lists_dir / f"{SPLIT_NAMES[split]}.txt").write_text("".join(f"{name}\n" for name in split_names))
    return {f"voc {SPLIT_NAMES[split]} images": len(split_names) for split, split_names in names.items()}


def class_labels(things: list[Thing]) -> np.ndarray:
    """The label map (H, W), uint8: 0 for the background, i for the i-th class, and void along edges.

    Void is one pixel wide on each side of an edge. As in VOC, there is an edge between touching things of one class.
    """
    owners = np.zeros(things[0].visible.shape, int)
    for number, thing in enumerate(things, start=1):
        owners[thing.visible] = number
    values = [VOC_CLASSES.index(f"{MERGED.get(thing.colour, thing.colour)} thing") + 1 for thing in things]
    labels = np.array([0, *values], np.uint8)[owners]
    across, down = owners[:, 1:] != owners[:, :-1], owners[1:] != owners[:-1]
    for side, edges in ((np.s_[:, 1:], across), (np.s_[:, :-1], across), (np.s_[1:], down), (np.s_[:-1], down)):
        labels[side][edges] = VOID
    return labels
