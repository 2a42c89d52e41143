"""Crops, flips and mirrored words."""

import numpy as np
import pytest
from PIL import Image

from tseg.images import normalised
from tseg.transforms import PADDING, Crop, filled_box, mirror_words, random_crop

RESOLUTION = 64


def crops(width: int, height: int, number: int = 300, **changed: object) -> list[Crop]:
    generator = np.random.default_rng(0)
    settings = {"resolution": RESOLUTION, "scale": (0.5, 2.0), "flip": True} | changed
    return [random_crop(generator, width, height, **settings) for _ in range(number)]  # type: ignore[arg-type]


def test_a_crop_moves_image_and_mask_together() -> None:
    """A red block in the image and the same block in the mask are found at the same pixels."""
    pixels, mask = np.zeros((80, 120, 3), np.uint8), np.zeros((80, 120), np.uint8)
    pixels[20:50, 70:110] = (255, 0, 0)
    mask[20:50, 70:110] = 255
    num_seen = 0
    for crop in crops(120, 80):
        red = np.asarray(crop(Image.fromarray(pixels)), np.int64)
        found = (red[..., 0] > 127) & (red[..., 1] < 64)
        moved = np.asarray(crop(Image.fromarray(mask)))
        assert set(np.unique(moved)) <= {0, 255}
        moved = moved == 255
        # Bilinear and nearest filters may disagree only along the block's rim.
        rim = np.abs(np.diff(np.pad(moved, 1).astype(int), axis=0)).sum() + np.abs(np.diff(moved.astype(int))).sum()
        assert (found != moved).sum() <= rim
        num_seen += bool(moved.sum() > 4 * rim)
    assert num_seen > 100


def test_a_crop_without_rescaling_is_the_window_itself() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    window = pixels[7 : 7 + 64, 31 : 31 + 64]
    plain = Crop(width=120, height=80, left=31, top=7, resolution=64, flipped=False)
    flipped = Crop(width=120, height=80, left=31, top=7, resolution=64, flipped=True)
    np.testing.assert_array_equal(np.asarray(plain(Image.fromarray(pixels))), window)
    np.testing.assert_array_equal(np.asarray(flipped(Image.fromarray(pixels))), window[:, ::-1])


def test_padding_is_grey_in_the_image_and_0_in_the_mask() -> None:
    crop = Crop(width=20, height=30, left=-10, top=-4, resolution=64, flipped=False)
    inside = np.zeros((64, 64), bool)
    inside[4:34, 10:30] = True
    image = np.asarray(crop(Image.new("RGB", (20, 30), (255, 0, 0))))
    np.testing.assert_array_equal((image == (255, 0, 0)).all(axis=-1), inside)
    assert (image[~inside] == PADDING).all()
    np.testing.assert_array_equal(np.asarray(crop(Image.new("L", (20, 30), 1))) == 1, inside)


def test_padding_is_nearly_zero_once_normalised() -> None:
    values = normalised(Image.new("RGB", (2, 2), (PADDING,) * 3), [0.5] * 3, [0.5] * 3)
    assert np.abs(values).max() < 0.01


@pytest.mark.parametrize(("width", "height"), [(120, 80), (33, 200), (64, 64), (500, 7)])
def test_random_crops_keep_the_aspect_and_overlap_the_image_most(width: int, height: int) -> None:
    for crop in crops(width, height):
        factor = min(crop.width, crop.height) / min(width, height)
        assert 0.5 * RESOLUTION - 1 <= min(crop.width, crop.height) <= 2 * RESOLUTION + 1
        assert abs(crop.width - width * factor) <= 0.5 + 0.5 * width / min(width, height)
        for start, side in ((crop.left, crop.width), (crop.top, crop.height)):
            overlap = min(start + RESOLUTION, side) - max(start, 0)
            assert overlap == min(RESOLUTION, side)


def test_random_crops_vary_in_scale_position_and_flip() -> None:
    drawn = crops(120, 80, number=2000)
    factors = np.log([crop.height / RESOLUTION for crop in drawn]) / np.log(2)  # uniform in -1 to 1
    assert np.histogram(factors, bins=4, range=(-1.02, 1.02))[0].min() > 2000 / 4 * 0.8
    larger = [crop for crop in drawn if crop.width > RESOLUTION]
    positions = [crop.left / (crop.width - RESOLUTION) for crop in larger]
    assert np.mean(positions) == pytest.approx(0.5, abs=0.05)
    assert np.mean([crop.flipped for crop in drawn]) == pytest.approx(0.5, abs=0.05)


def test_without_flip_and_with_one_scale_only_the_position_varies() -> None:
    drawn = crops(120, 80, scale=(1.0, 1.0), flip=False)
    assert {(crop.width, crop.height, crop.top, crop.flipped) for crop in drawn} == {(96, 64, 0, False)}
    assert {crop.left for crop in drawn} == set(range(96 - 64 + 1))


@pytest.mark.parametrize(
    ("expression", "mirrored"),
    [
        ("man on the left", "man on the right"),
        ("Left of the right one", "Right of the left one"),
        ("the leftmost, not the rightmost", "the rightmost, not the leftmost"),
        ("left-hand side", "right-hand side"),
        ("bright leftover cleft on top", "bright leftover cleft on top"),
        ("", ""),
    ],
)
def test_left_and_right_are_swapped_as_whole_words(expression: str, mirrored: str) -> None:
    assert mirror_words(expression) == mirrored
    assert mirror_words(mirrored) == expression


def test_a_filled_box_holds_the_pixels_whose_centres_lie_inside() -> None:
    generator = np.random.default_rng(0)
    for box in [*generator.uniform(-4, 12, (200, 4)), *generator.integers(0, 8, (50, 4))]:
        left, top, width, height = box.tolist()
        mask = filled_box(box, 7, 9)
        assert (mask.shape, mask.dtype) == ((7, 9), bool)
        for row, column in np.ndindex(7, 9):
            inside = left < column + 0.5 < left + width and top < row + 0.5 < top + height
            assert mask[row, column] == inside
