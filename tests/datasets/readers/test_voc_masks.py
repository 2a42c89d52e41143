from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tseg.datasets.readers.annotations import RecordError
from tseg.datasets.readers.voc_masks import VOC_COLOURS, read_mask

# Colours as listed on the VOC web pages.
OFFICIAL = [
    *[(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128)],
    *[(64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128)],
    *[(192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)],
]
VOID_COLOUR = (224, 224, 192)


def random_labels(seed: int = 0, size: tuple[int, int] = (30, 41)) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([*range(21), 255], np.uint8), size)


def official_palette() -> np.ndarray:
    palette = np.zeros((256, 3), np.uint8)
    palette[:21], palette[255] = OFFICIAL, VOID_COLOUR
    return palette


def save_palette(path: Path, labels: np.ndarray, palette: np.ndarray) -> Path:
    image = Image.fromarray(labels)
    image.putpalette(palette.astype(np.uint8).ravel().tolist())
    assert image.mode == "P"
    image.save(path)
    return path


def test_colours_are_those_of_voc_and_distinct():
    assert VOC_COLOURS.dtype == np.uint8
    np.testing.assert_array_equal(VOC_COLOURS[:21], OFFICIAL)
    assert tuple(VOC_COLOURS[255]) == VOID_COLOUR
    assert len(np.unique(VOC_COLOURS, axis=0)) == 256


@pytest.mark.parametrize("kind", ["palette", "greyscale", "rgb", "mat", "compressed mat"])
def test_every_kind_of_mask_gives_the_same_labels(tmp_path, kind):
    labels = random_labels()
    path = tmp_path / f"mask.{'mat' if 'mat' in kind else 'png'}"
    if kind == "palette":
        save_palette(path, labels, official_palette())
    elif "mat" in kind:
        boundaries = np.empty((20, 1), object)
        boundaries[:] = [[np.zeros(labels.shape, np.uint8)]]
        content = {"Boundaries": boundaries, "Segmentation": labels, "CategoriesPresent": np.array([[3.0], [7.0]])}
        savemat(path, {"GTcls": content}, do_compression=kind.startswith("compressed"))
    else:
        Image.fromarray(official_palette()[labels] if kind == "rgb" else labels).save(path)
    read = read_mask(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, labels)


@pytest.mark.parametrize("palette", ["short", "black beyond the classes", "another"])
def test_a_palette_without_vocs_colours_does_not_change_the_values(tmp_path, palette):
    colours = official_palette()[:21]
    if palette == "black beyond the classes":
        colours = np.concatenate([colours, np.zeros((235, 3))])
    elif palette == "another":
        colours = np.random.default_rng(0).integers(1, 32, (256, 3))
    labels = random_labels()
    np.testing.assert_array_equal(read_mask(save_palette(tmp_path / "mask.png", labels, colours)), labels)


def test_a_renumbered_palette_is_refused(tmp_path):
    labels = np.array([[0, 1, 2]], np.uint8)  # background, horse, void in the order of their first pixel
    path = save_palette(tmp_path / "mask.png", labels, official_palette()[[0, 13, 255]])
    with pytest.raises(RecordError, match="its mask has VOC's colours at other indices; save it as an RGB PNG"):
        read_mask(path)


def test_an_unknown_colour_is_refused(tmp_path):
    pixels = official_palette()[random_labels()]
    pixels[3, 4] = (192, 129, 128)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    with pytest.raises(
        RecordError, match=r"has the colour \(192, 129, 128\), which is not one of VOC's; correct the mask"
    ):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("mode", ["1", "LA", "RGBA", "I;16"])
def test_a_png_of_another_kind_is_refused(tmp_path, mode):
    Image.new(mode, (4, 3)).save(tmp_path / "mask.png")
    with pytest.raises(RecordError, match=rf"has Pillow's mode {mode}; save it as a palette, greyscale or RGB PNG"):
        read_mask(tmp_path / "mask.png")


def test_a_mask_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("tseg.datasets.readers.voc_masks.MAX_PIXELS", 99)
    Image.new("L", (10, 10)).save(tmp_path / "mask.png")
    (tmp_path / "mask.png").write_bytes((tmp_path / "mask.png").read_bytes()[:45])  # no pixel is left
    with pytest.raises(RecordError, match=r"its mask is too large \(10 x 10 pixels\); scale it down"):
        read_mask(tmp_path / "mask.png")
    savemat(tmp_path / "mask.mat", {"GTcls": {"Segmentation": np.ones((10, 10), np.uint8)}})
    with pytest.raises(RecordError, match=r"its GTcls.Segmentation cannot be uint8 \(10, 10\); fetch"):
        read_mask(tmp_path / "mask.mat")


@pytest.mark.parametrize("suffix", ["png", "mat"])
def test_a_damaged_mask_is_refused(tmp_path, suffix):
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"mask.{suffix}"
    labels = random_labels()
    if suffix == "png":
        save_palette(whole, labels, official_palette())
    else:
        savemat(whole, {"GTcls": {"Segmentation": labels}}, do_compression=True)
    content = whole.read_bytes()
    changed = bytearray(content)
    changed[-20] ^= 1
    for damaged in (b"", b"<html>", content[:100], content[: len(content) // 2], content[:-15], bytes(changed)):
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match=r"its mask cannot be read .*; fetch it again"):
            read_mask(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"labels": np.ones((3, 4), np.uint8)}, "its mask cannot be read .*GTcls.*; fetch it again"),
        ({"GTcls": np.ones((3, 4), np.uint8)}, "its mask cannot be read .*; fetch it again"),
        ({"GTcls": {"Boundaries": 1}}, "its mask cannot be read .*Segmentation.*; fetch it again"),
        ({"GTcls": {"Segmentation": np.ones((3, 4))}}, r"Segmentation cannot be float64 \(3, 4\); fetch"),
        ({"GTcls": {"Segmentation": np.ones((3, 4, 3), np.uint8)}}, r"Segmentation cannot be uint8 \(3, 4, 3\); fetch"),
    ],
)
def test_a_mat_file_with_other_content_is_refused(tmp_path, content, reason):
    savemat(tmp_path / "mask.mat", content)
    with pytest.raises(RecordError, match=reason):
        read_mask(tmp_path / "mask.mat")


def test_a_file_of_another_format_is_not_opened_as_a_mask(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "mask.png", "JPEG")
    with pytest.raises(RecordError, match=r"its mask cannot be read .*; fetch it again"):
        read_mask(tmp_path / "mask.png")
