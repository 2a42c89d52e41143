"""The views of an image that a frozen encoder sees: fixed crops for training, whole images for predictions."""

import hashlib
from dataclasses import replace

import numpy as np

from tseg.settings.encodings import CropViews, WholeViews
from tseg.transforms import Crop, Whole, each_view, random_crop, whole_view


def views_of(
    views: CropViews | WholeViews, image_id: str, width: int, height: int, patch_size: int
) -> list[Crop] | list[Whole]:
    """All views, in order, of an image of (width, height) pixels."""
    if isinstance(views, CropViews):
        return [fixed_crop(views, view, image_id, width, height) for view in range(views.num_views)]
    return [
        whole_view(width, height, resolution=views.resolution * scale, patch_size=patch_size, flipped=flipped)
        for scale, flipped in each_view(views.scales, views.flip)
    ]


def fixed_crop(views: CropViews, view: int, image_id: str, width: int, height: int) -> Crop:
    """Crop number `view`, from 0, of an image of (width, height) pixels: a function of its arguments alone.

    It is drawn as in `random_crop`, with a generator seeded by `image_id` and `view`. Every second view is mirrored if
    `views.flip` is set.
    """
    seed = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")
    generator = np.random.default_rng([seed, view])
    crop = random_crop(generator, width, height, resolution=views.resolution, scale=views.scale, flip=False)
    return replace(crop, flipped=views.flip and view % 2 == 1)
