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


def rescaled_first(crop: Crop, pixels: np.ndarray) -> np.ndarray:
    """The definition of a crop, in float64: rescale the whole image (H, W, 3) bilinearly, then cut the square."""

    def weights(original: int, rescaled: int) -> np.ndarray:
        factor = original / rescaled
        distances = (np.arange(rescaled) + 0.5)[:, None] * factor - (np.arange(original) + 0.5)
        triangle = (1 - np.abs(distances) / max(1, factor)).clip(min=0)
        return triangle / triangle.sum(axis=1, keepdims=True)

    rows, columns = weights(pixels.shape[0], crop.height), weights(pixels.shape[1], crop.width)
    rescaled = np.einsum("yi,ijc,xj->yxc", rows, pixels, columns, optimize=True)
    side = crop.resolution
    padded = np.pad(rescaled, ((side, side), (side, side), (0, 0)), constant_values=PADDING)
    square = padded[side + crop.top : 2 * side + crop.top, side + crop.left : 2 * side + crop.left]
    return square[:, ::-1] if crop.flipped else square


@pytest.mark.parametrize(("width", "height"), [(120, 80), (33, 200), (64, 64), (500, 7), (1, 90)])
def test_a_crop_is_the_square_of_the_rescaled_image(width: int, height: int) -> None:
    """To the rounding of its two passes to 8 bits."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for crop in crops(width, height, number=40):
        difference = np.asarray(crop(Image.fromarray(pixels)), float) - rescaled_first(crop, pixels)
        assert np.abs(difference).max() < 1.01


@pytest.mark.parametrize(("width", "height"), [(120, 80), (33, 200), (64, 64), (500, 7), (1, 90)])
def test_a_mask_has_the_original_pixel_at_every_centre(width: int, height: int) -> None:
    """A centre on the edge between two pixels may take either."""
    mask = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    for crop in crops(width, height, number=40):
        seen = np.asarray(crop(Image.fromarray(mask)))
        seen = seen[:, ::-1] if crop.flipped else seen
        centres = [
            (np.arange(RESOLUTION) + start + 0.5) * original / rescaled
            for start, original, rescaled in ((crop.top, height, crop.height), (crop.left, width, crop.width))
        ]
        rows, columns = (
            slice(max(0, -start), min(RESOLUTION, rescaled - start))
            for start, rescaled in ((crop.top, crop.height), (crop.left, crop.width))
        )
        candidates = [
            mask[np.ix_(*(np.floor(axis + shift).clip(0, side - 1).astype(int) for axis, side, shift in axes))]
            for dy in (-1e-4, 1e-4)
            for dx in (-1e-4, 1e-4)
            for axes in [((centres[0][rows], height, dy), (centres[1][columns], width, dx))]
        ]
        assert np.any([seen[rows, columns] == candidate for candidate in candidates], axis=0).all()


@pytest.mark.parametrize(("width", "height"), [(1, 5000), (5000, 1), (1, 1), (3000, 2000)])
def test_a_crop_never_computes_more_than_the_image_and_the_square(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    """An image of 1 x 5000 pixels once became one of 768 x 3,840,000, before it was cropped."""
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def recorded(self: Image.Image, size: tuple[int, int], *arguments: object) -> Image.Image:
        sizes.append(size)
        return resize(self, size, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", recorded)
    for crop in crops(width, height, number=20, resolution=384):
        assert crop(Image.new("RGB", (width, height))).size == (384, 384)
        assert crop(Image.new("L", (width, height))).size == (384, 384)
    assert len(sizes) == 40
    assert max(side for size in sizes for side in size) <= 384


def test_a_crop_at_the_far_end_of_a_long_image_shows_its_last_pixels() -> None:
    """float32, in which Pillow keeps a box, cannot tell pixels beyond 2^24 apart."""
    length = 2**25 + 3
    pixels = np.zeros((1, length), np.uint8)
    pixels[0, -2:] = (1, 2)
    crop = Crop(width=8 * length, height=8, left=8 * (length - 2), top=-4, resolution=16, flipped=False)
    seen = np.asarray(crop(Image.fromarray(pixels)))
    assert (seen[4:12] == np.repeat([1, 2], 8)).all()
    assert not seen[:4].any() and not seen[12:].any()


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
    """The scale is uniform in 0.5 to 2, as Segmenter's, not its logarithm: a third of the crops shrink the image."""
    drawn = crops(120, 80, number=2000)
    factors = np.array([crop.height / RESOLUTION for crop in drawn])
    counts = np.histogram(factors, bins=5, range=(0.5, 2.0))[0]
    assert counts.sum() > 1980  # all but those that rounding to whole pixels moves beyond the range
    assert 2000 / 5 * 0.85 < counts.min() <= counts.max() < 2000 / 5 * 1.15
    assert np.mean(factors < 1) == pytest.approx(1 / 3, abs=0.03)
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
