"""EXIF: an image is turned as viewers show it, and the region of a record turns with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tseg.datasets.check import CheckedImage, check_image, with_image
from tseg.datasets.readers.annotations import Skipped, make_record
from tseg.images import open_image
from tseg.records import decode_mask, encode_mask

HEIGHT, WIDTH = 32, 48
SUFFIXES = {"jpg": {"quality": 95, "subsampling": 0}, "png": {}, "webp": {"lossless": True}}


def flag(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def stored_mask(size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """A region that looks different under each turn, in the frame of the stored pixels."""
    mask = np.zeros(size, bool)
    mask[2:12, 5:20], mask[2:25, 5:9] = True, True
    return mask


def turned(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Turned by Pillow's own function for EXIF."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image)) > 0


def save(folder: Path, orientation: int, suffix: str = "jpg", size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Save a black image with the region of `stored_mask` in white, and return this region."""
    mask = stored_mask(size)
    pixels = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    Image.fromarray(pixels).save(folder / f"a.{suffix}", exif=flag(orientation), **SUFFIXES[suffix])
    return mask


def record_of(mask: np.ndarray | None, **changes: Any) -> dict[str, Any]:
    size = None if mask is None else mask.shape
    rle = None if mask is None else encode_mask(mask)
    names = {"record_id": "r", "image_id": "7", "file_name": "a.jpg", "group_id": "g", "expression": "dog"}
    return make_record(**names | {"size": size, "mask": rle, "tags": []} | changes)


def with_checked(folder: Path, record: dict[str, Any], upright: bool) -> dict[str, Any]:
    found = with_image(record, check_image("a.jpg", [folder]), upright)
    assert not isinstance(found, Skipped), found
    return found


def seen_region(folder: Path, suffix: str = "jpg") -> np.ndarray:
    """The white pixels of the image that later steps read."""
    return np.asarray(open_image(folder / f"a.{suffix}"))[..., 0] > 127


def check_region(folder: Path, record: dict[str, Any]) -> None:
    """The record's mask, box and size are those of the region in the image that later steps read."""
    expected = seen_region(folder)
    assert (record["height"], record["width"]) == expected.shape
    np.testing.assert_array_equal(decode_mask(record["mask"], *expected.shape), expected)
    assert record["box"] == make_record(**names_of(expected))["box"]


def names_of(mask: np.ndarray) -> dict[str, Any]:
    names = {"record_id": "r", "image_id": "7", "file_name": "a.jpg", "group_id": "g", "expression": "dog"}
    return names | {"size": mask.shape, "mask": encode_mask(mask), "tags": []}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_image_opens_as_viewers_show_it(tmp_path: Path, orientation: int, suffix: str) -> None:
    mask = save(tmp_path, orientation, suffix)
    path = tmp_path / f"a.{suffix}"
    assert check_image(path.name, [tmp_path]) == CheckedImage(str(path), path.name, (HEIGHT, WIDTH), orientation)
    np.testing.assert_array_equal(seen_region(tmp_path, suffix), turned(mask, orientation))
    with Image.open(path) as image:
        viewed = ImageOps.exif_transpose(image).convert("RGB")
    np.testing.assert_array_equal(np.asarray(open_image(path)), np.asarray(viewed))
    reduced = open_image(path, size=viewed.size, shorter_side=1)
    assert (reduced.width < reduced.height) == (viewed.width < viewed.height)
    with pytest.raises(ValueError, match=f"has {viewed.width} x {viewed.height} pixels, and 1 x 2 in the records"):
        open_image(path, size=(1, 2))
    again = ImageOps.exif_transpose(open_image(path))
    assert again.size == viewed.size  # the orientation is applied once only


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_record_without_a_mask_has_the_size_of_the_turned_image(
    tmp_path: Path, orientation: int, upright: bool
) -> None:
    mask = save(tmp_path, orientation)
    record = with_checked(tmp_path, record_of(None), upright)
    assert (record["height"], record["width"]) == turned(mask, orientation).shape
    assert record["mask"] is record["box"] is None


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("upright", [True, False])
def test_the_size_of_a_mask_says_which_pixels_its_annotator_saw(
    tmp_path: Path, orientation: int, upright: bool
) -> None:
    mask = save(tmp_path, orientation)
    for drawn in (mask, turned(mask, orientation)):
        check_region(tmp_path, with_checked(tmp_path, record_of(drawn), upright))


BOTH_FIT = [
    *((orientation, (HEIGHT, WIDTH)) for orientation in (2, 3, 4)),
    *((turn, (32, 32)) for turn in (5, 6, 7, 8)),
]


@pytest.mark.parametrize(("orientation", "size"), BOTH_FIT)
def test_if_both_fit_viewers_pixels_count_for_pairs_and_stored_ones_for_official_formats(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    mask = save(tmp_path, orientation, size=size)
    check_region(tmp_path, with_checked(tmp_path, record_of(turned(mask, orientation)), upright=True))
    check_region(tmp_path, with_checked(tmp_path, record_of(mask), upright=False))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_ignored_pixels_turn_with_the_image(tmp_path: Path, orientation: int) -> None:
    mask = save(tmp_path, orientation)
    record = with_checked(tmp_path, record_of(mask, ignore=encode_mask(~mask)), upright=False)
    size = record["height"], record["width"]
    np.testing.assert_array_equal(decode_mask(record["ignore"], *size), ~turned(mask, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_given_box_turns_by_fractions_of_pixels_too(tmp_path: Path, orientation: int) -> None:
    mask = save(tmp_path, orientation)
    left, top, width, height = with_checked(tmp_path, record_of(mask, box=[5.25, 2.5, 15, 22.5]), upright=False)["box"]
    corners = np.array([[5.25, 2.5], [20.25, 25.0]])
    centre, seen = np.array([WIDTH, HEIGHT]) / 2, np.array(turned(mask, orientation).shape)[::-1] / 2
    # What each orientation does to a vector from the image's centre (x, y).
    matrix = {
        1: [[1, 0], [0, 1]],
        2: [[-1, 0], [0, 1]],
        3: [[-1, 0], [0, -1]],
        4: [[1, 0], [0, -1]],
        5: [[0, 1], [1, 0]],
        6: [[0, -1], [1, 0]],
        7: [[0, -1], [-1, 0]],
        8: [[0, 1], [-1, 0]],
    }[orientation]
    moved = (corners - centre) @ np.array(matrix).T + seen
    np.testing.assert_allclose([left, top, left + width, top + height], [*moved.min(axis=0), *moved.max(axis=0)])


def test_a_mask_of_neither_size_is_skipped_and_both_sizes_are_named(tmp_path: Path) -> None:
    save(tmp_path, 6)
    skipped = with_image(record_of(stored_mask((40, 40))), check_image("a.jpg", [tmp_path]), upright=True)
    assert isinstance(skipped, Skipped)
    assert "of 40 x 40 pixels, but the image has 32 x 48 (48 x 32 before EXIF turns it); fetch" in skipped.reason


DAMAGED = {
    "no TIFF header": b"Exif\0\0garbagegarbage",
    "cut short": b"Exif\0\0MM\0*",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_exif_is_one_sentence_wherever_the_image_is_read(tmp_path: Path, kind: str) -> None:
    save(tmp_path, 1)
    content = (tmp_path / "a.jpg").read_bytes()
    exif = b"\xff\xe1" + (len(DAMAGED[kind]) + 2).to_bytes(2, "big") + DAMAGED[kind]
    without = content[:2] + content[content.index(b"\xff\xdb") :]
    (tmp_path / "a.jpg").write_bytes(without[:2] + exif + without[2:])
    fault = check_image("a.jpg", [tmp_path]).fault
    assert fault.startswith("the image has damaged EXIF data (") and fault.endswith("or save the image again")
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read as an image: the image has damaged EXIF data"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("value", [0, 9, 6.5, "6", (6, 6), b"6"])
def test_an_orientation_that_does_not_exist_turns_nothing(
    tmp_path: Path, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(Image.Image, "getexif", lambda _: {0x0112: value})
    assert check_image("a.jpg", [tmp_path]).orientation == 1
