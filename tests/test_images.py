"""Image files as RGB, and their normalisation."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tseg.images import normalised, open_image


def test_normalised_is_channels_first_and_affine_in_each() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    values = normalised(Image.fromarray(pixels), mean, std)
    assert (values.shape, values.dtype) == ((3, 5, 8), np.float32)
    for row, column, channel in np.ndindex(5, 8, 3):
        expected = (pixels[row, column, channel] / 255 - mean[channel]) / std[channel]
        assert values[channel, row, column] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_any_mode_open_as_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.new("RGB", (6, 4), (204, 204, 204)).convert(mode).save(path)
    opened = open_image(path)
    assert (opened.mode, opened.size) == ("RGB", (6, 4))
    assert np.abs(np.asarray(opened, int) - 204).max() <= 1


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_an_image_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"holiday\.jpg cannot be read as an image"):
        open_image(path)


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "holiday.png"
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"holiday\.png cannot be read as an image"):
        open_image(path)


@pytest.mark.parametrize(
    ("shorter_side", "expected"),
    [(480, (641, 480)), (240.5, (641, 480)), (240, (321, 240)), (121, (321, 240)), (120, (161, 120)), (1, (81, 60))],
)
def test_a_jpeg_is_decoded_at_the_smallest_size_that_suffices(
    tmp_path: Path, shorter_side: float, expected: tuple[int, int]
) -> None:
    Image.new("RGB", (641, 480)).save(tmp_path / "a.jpg")
    Image.new("RGB", (480, 641)).save(tmp_path / "b.jpg")
    assert open_image(tmp_path / "a.jpg", shorter_side=shorter_side).size == expected
    assert open_image(tmp_path / "b.jpg", shorter_side=shorter_side).size == expected[::-1]
