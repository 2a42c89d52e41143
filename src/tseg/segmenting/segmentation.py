"""The masks of phrases in one image, and what can be made of them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from tseg.files import atomic_write
from tseg.inference.masks import MaskRules, each_probability
from tseg.records import decode_mask
from tseg.reporting.figures.overlay import LOOKS, overlay, working_mask

OVERLAY_PIXELS = 1024
"""Longer side of an overlay, at most."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """L phrases in an image of W x H pixels. Masks are kept as run lengths: 200 of a large photograph fit."""

    image: Image.Image
    """RGB, turned and opaque as viewers show it."""
    phrases: list[str]
    """As the model saw them: white space and invisible characters are cleaned."""
    scores: np.ndarray
    """float32 (L,), in [0, 1]: how sure the model is that the image shows each phrase."""
    run_lengths: list[str]
    """COCO's compressed run lengths of each mask."""
    views: list[Tensor]
    """The similarities, float32 (K, h, w), of the K distinct phrases in each view of the image."""
    numbers: list[int]
    """The row of each phrase among the distinct ones."""
    rules: MaskRules

    def __len__(self) -> int:
        return len(self.phrases)

    def __repr__(self) -> str:
        found = (f"{phrase!r}: {score:.2f}" for phrase, score in zip(self.phrases, self.scores, strict=True))
        return f"Segmentation({self.image.width} x {self.image.height} pixels, {', '.join(found)})"

    @cached_property
    def masks(self) -> np.ndarray:
        """bool (L, H, W)."""
        return np.stack([self.mask(number) for number in range(len(self))])

    def mask(self, number: int) -> np.ndarray:
        """The mask of one phrase, bool (H, W)."""
        return decode_mask(self.run_lengths[number], self.image.height, self.image.width)

    @property
    def heatmaps(self) -> np.ndarray:
        """Foreground probabilities, float32 (L, H, W), before a refinement: plain masks are where they exceed 1/2."""
        return np.stack(list(self.each_heatmap()))

    def each_heatmap(self) -> Iterator[np.ndarray]:
        """The heat-maps, float32 (H, W), one by one."""
        size = self.image.height, self.image.width
        maps = (probability.numpy() for probability in each_probability(self.views, size, self.rules))
        last = {row: position for position, row in enumerate(self.numbers)}
        held: dict[int, np.ndarray] = {}
        for position, row in enumerate(self.numbers):
            if row not in held:
                held[row] = next(maps)  # distinct phrases are in the order of their first places
            yield held[row]
            if position == last[row]:
                del held[row]

    def to_coco(self, image_id: int = 1, first_id: int = 1) -> list[dict[str, Any]]:
        """Annotations in COCO's format, one per phrase: segmentation (RLE), bbox, area, score and the phrase.

        `category_id` is the number of the phrase, from 1 on.
        """
        size = [self.image.height, self.image.width]
        masks: Any = [{"size": size, "counts": counts} for counts in self.run_lengths]
        boxes: Any = coco_mask.toBbox(masks)
        areas: Any = coco_mask.area(masks)
        return [
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": number + 1,
                "phrase": phrase,
                "score": float(self.scores[number]),
                "segmentation": masks[number],
                "bbox": boxes[number].tolist(),
                "area": int(areas[number]),
                "iscrowd": 0,
            }
            for number, phrase in enumerate(self.phrases)
        ]

    def overlay(self, numbers: Sequence[int] | int | None = None) -> Image.Image:
        """The image with the masks of some phrases, each in its look; of all by default.

        Its longer side has at most `OVERLAY_PIXELS`. Of more phrases than there are looks, those with the best scores
        are shown. Raises ValueError if more are asked for.
        """
        if numbers is None:
            best = np.argsort(-self.scores, kind="stable")[: len(LOOKS)]
            numbers = sorted(best.tolist())
        chosen = [numbers] if isinstance(numbers, int) else list(numbers)
        if len(chosen) > len(LOOKS):
            raise ValueError(f"{len(chosen)} masks are too many for one overlay; choose at most {len(LOOKS)}")
        image = self.image.copy()
        image.thumbnail((OVERLAY_PIXELS, OVERLAY_PIXELS))
        masks = [working_mask(self.mask(number), image.size) for number in chosen]
        return overlay(image, masks, [LOOKS[number % len(LOOKS)] for number in chosen])

    def save_pngs(self, folder: Path | str, heatmaps: bool = False) -> list[Path]:
        """Write a mask per phrase, white on black, an overlay of all and, if asked, heat-maps; return the files.

        A mask is called by the number of its phrase and the phrase: `1-red-umbrella.png`. A heat-map is grey, 255 for
        a probability of 1.
        """
        names = [f"{number}-{slug(phrase)}" for number, phrase in enumerate(self.phrases, 1)]
        files = [
            self._save(Path(folder) / f"{name}.png", Image.fromarray(self.mask(number)))
            for number, name in enumerate(names)
        ]
        if heatmaps:
            for name, heatmap in zip(names, self.each_heatmap(), strict=True):
                grey = Image.fromarray((255 * heatmap).round().astype(np.uint8))
                files.append(self._save(Path(folder) / f"{name}-heatmap.png", grey))
        return [*files, self._save(Path(folder) / "overlay.png", self.overlay())]

    @staticmethod
    def _save(file: Path, image: Image.Image) -> Path:
        with atomic_write(file, remember=False) as partial:
            image.save(partial)
        return file


def slug(phrase: str) -> str:
    """The letters and digits of a phrase as a part of a file name, of at most 40 characters."""
    return re.sub(r"[^\w]+", "-", phrase).strip("-")[:40] or "phrase"
