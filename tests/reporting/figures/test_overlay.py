"""The image and overlapping masks stay visible under overlays."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from tseg.reporting.figures.overlay import (
    COLOURS,
    HALF,
    LOOKS,
    PATTERNS,
    VOID_LOOK,
    Look,
    overlay,
    pale,
    working_mask,
    working_size,
)

HEIGHT, WIDTH = 60, 80
BLUE, ORANGE, GREEN = (Look(colour) for colour in COLOURS[:3])


def rgb(look: Look) -> np.ndarray:
    return np.array(ImageColor.getrgb(look.colour))


def rectangle(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def test_pixels_outside_all_masks_are_unchanged(image: Image.Image) -> None:
    masks = [rectangle(5, 40, 10, 50), rectangle(20, 60, 30, 80), rectangle(0, 10, 60, 70)]
    laid = np.asarray(overlay(image, masks, [BLUE, Look(COLOURS[1], "dotted"), VOID_LOOK]))
    outside = ~np.any(masks, axis=0)
    assert (laid[outside] == np.asarray(image)[outside]).all()


def test_one_mask_is_a_blend_within_an_opaque_rim(image: Image.Image) -> None:
    mask = rectangle(5, 40, 10, 50)
    laid = np.asarray(overlay(image, [mask], [ORANGE]))
    assert (laid[5, 10:50] == rgb(ORANGE)).all()
    blend = HALF * rgb(ORANGE) + (1 - HALF) * np.asarray(image)[6:39, 11:49]
    assert np.abs(laid[6:39, 11:49] - blend).max() <= 1.5


def test_without_masks_or_with_empty_ones_the_image_is_unchanged(image: Image.Image) -> None:
    for masks in ([], [rectangle(0, 0, 0, 0)]):
        assert overlay(image, masks, [BLUE][: len(masks)]).tobytes() == image.tobytes()


def test_overlapping_masks_alternate_on_shared_pixels(image: Image.Image) -> None:
    masks = [rectangle(0, 60, 0, 80), rectangle(10, 50, 10, 70), rectangle(10, 50, 10, 70)]
    laid = np.asarray(overlay(Image.new("RGB", image.size), masks, [BLUE, ORANGE, GREEN]))[12:48, 12:68]
    found, counts = np.unique(laid.reshape(-1, 3), axis=0, return_counts=True)
    expected = np.unique([HALF * rgb(look) for look in (BLUE, ORANGE, GREEN)], axis=0)
    np.testing.assert_allclose(found, expected, atol=1)
    assert counts.min() > 0.2 * counts.sum()


def test_an_outline_covers_nothing_but_its_rim(image: Image.Image) -> None:
    laid = np.asarray(overlay(image, [rectangle(5, 40, 10, 50)], [Look(COLOURS[6], "outline")]))
    assert (laid[5, 10:50] == rgb(Look(COLOURS[6]))).all()
    assert (laid[6:39, 11:49] == np.asarray(image)[6:39, 11:49]).all()


@pytest.mark.parametrize("pattern", ["striped", "dotted", "crossed"])
def test_a_pattern_has_strong_and_weak_pixels(pattern: str) -> None:
    image = Image.new("RGB", (400, 400))
    inside = np.asarray(overlay(image, [np.ones((400, 400), bool)], [Look("#FFFFFF", pattern)]))[..., 0]
    assert np.unique(inside).size == 2
    assert 0.2 < (inside > 128).mean() < 0.7


def test_twenty_classes_and_void_have_distinct_styles() -> None:
    assert len({*LOOKS, VOID_LOOK}) > 20
    assert {look.pattern for look in LOOKS} < set(PATTERNS)


def test_a_mask_keeps_its_share_of_the_image_at_working_size(image: Image.Image) -> None:
    mask = rectangle(7, 40, 13, 50)
    large = working_size(image)
    assert max(large.size) == 400
    resized = working_mask(mask, large.size)
    assert resized.shape == (large.height, large.width)
    assert resized.mean() == pytest.approx(mask.mean(), rel=0.01)


def test_pale_images_are_grey_and_light(image: Image.Image) -> None:
    pixels = np.asarray(pale(image)).astype(int)
    assert (pixels == pixels[..., :1]).all()
    assert pixels.min() >= 0.35 * 255 - 1
