"""Which images are accepted, and how processes share the shards."""

import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tseg.datasets.check import CheckedImage, check_image
from tseg.datasets.readers.annotations import OpenSplit, make_record
from tseg.datasets.shards import ShardReader, read_shards
from tseg.images import open_image

COLOURS = np.array([[(255, 0, 0), (250, 240, 10), (0, 90, 200)], [(0, 0, 0), (255, 255, 255), (120, 120, 120)]])
PIXELS = np.repeat(np.repeat(COLOURS, 16, axis=0), 16, axis=1).astype(np.uint8)  # 32 x 48, kind to JPEG
RGB = Image.fromarray(PIXELS)


def png(header: bytes, rows: bytes = b"") -> bytes:
    """A PNG of the header's 13 bytes and the rows, each with its filter byte."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    data = part(b"IDAT", zlib.compress(rows)) if rows else b""
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + data + part(b"IEND", b"")


def deep_png() -> bytes:
    """`RGB` with 16 bits a channel."""
    deep = (PIXELS.astype(">u2") * 257).tobytes()
    rows = b"".join(b"\0" + deep[at : at + 48 * 6] for at in range(0, len(deep), 48 * 6))
    return png(struct.pack(">IIBBBBB", 48, 32, 16, 2, 0, 0, 0), rows)


def rotated(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


GREY = RGB.convert("L")
TRANSPARENT = Image.merge("RGBA", [*RGB.split(), Image.new("L", RGB.size, 90)])


def on_white(image: Image.Image) -> Image.Image:
    """The image on a white ground."""
    layer = image.convert("RGBA")
    ground = Image.new("RGB", image.size, "white")
    ground.paste(layer.convert("RGB"), mask=layer.getchannel("A"))
    return ground


def cut_out(palette: Image.Image, colour: int) -> Image.Image:
    """The image with a `colour` of its palette as white."""
    return Image.composite(
        Image.new("RGB", RGB.size, "white"),
        palette.convert("RGB"),
        palette.point(lambda value: 255 * (value == colour), "L"),
    )


# file name, the image or its bytes, options of saving, expected image
READ = {
    "JPEG": ("a.jpg", RGB, {"quality": 95, "subsampling": 0}, RGB),
    "progressive JPEG": ("a.jpg", RGB, {"quality": 95, "subsampling": 0, "progressive": True}, RGB),
    "CMYK JPEG": ("a.jpg", RGB.convert("CMYK"), {"quality": 95}, RGB),
    "grey JPEG": ("a.jpg", GREY, {"quality": 95}, GREY),
    "stereo MPO of a camera": (
        *("a.jpg", RGB, {"format": "MPO", "save_all": True, "append_images": [GREY.convert("RGB")], "subsampling": 0}),
        RGB,
    ),
    "PNG": ("a.png", RGB, {}, RGB),
    "PNG called .jpg": ("a.jpg", RGB, {"format": "PNG"}, RGB),
    "grey PNG": ("a.png", GREY, {}, GREY),
    "black and white PNG": ("a.png", GREY.point(lambda value: value > 99, mode="1"), {}, None),
    "palette PNG": ("a.png", RGB.quantize(8), {}, RGB),
    "palette PNG with a transparent colour": (
        "a.png",
        RGB.quantize(8),
        {"transparency": 3},
        cut_out(RGB.quantize(8), 3),
    ),
    "transparent PNG": ("a.png", TRANSPARENT, {}, on_white(TRANSPARENT)),
    "grey transparent PNG": ("a.png", TRANSPARENT.convert("LA"), {}, on_white(TRANSPARENT.convert("LA"))),
    "PNG of 16 bits a channel": ("a.png", deep_png(), {}, RGB),
    "GIF": ("a.gif", RGB.quantize(8), {}, RGB),
    "WebP": ("a.webp", RGB, {"lossless": True}, RGB),
    "TIFF": ("a.tif", RGB, {}, RGB),
    "BMP": ("a.bmp", RGB, {}, RGB),
}

SEVERAL = {"save_all": True, "append_images": [GREY.convert("RGB")]}
REFUSED = {
    "16-bit grey PNG": (
        "a.png",
        Image.new("I;16", (48, 32), 40_000),
        {},
        "has Pillow's mode I;16; save it with 8 bits",
    ),
    "32-bit grey TIFF": ("a.tif", Image.new("I", (48, 32), 70_000), {}, "has Pillow's mode I; save it with 8 bits"),
    "TIFF of fractions": ("a.tif", Image.new("F", (48, 32), 0.5), {}, "has Pillow's mode F; save it with 8 bits"),
    "Lab TIFF": ("a.tif", Image.new("LAB", (48, 32)), {}, "has Pillow's mode LAB; save it with 8 bits per channel"),
    "animated GIF": ("a.gif", RGB, SEVERAL, "is animated or one of several in its file; save it on"),
    "animated PNG": ("a.png", RGB, SEVERAL, "is animated or one of several in its file; save it on"),
    "animated WebP": ("a.webp", RGB, SEVERAL, "is animated or one of several in its file; save it on"),
    "TIFF of pages": ("a.tif", RGB, SEVERAL, "is animated or one of several in its file; save it on"),
    # Without pixels: decoding would fail differently.
    "PNG of 30000 x 30000 pixels": (
        *("a.png", png(struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)), {}),
        r"is too large \(.*\); scale it down",
    ),
    "PNG of 10000 x 10000 pixels": (
        *("a.png", png(struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)), {}),
        r"is too large \(10000 x 10000 pixels, more than 89,478,485\); scale it down",
    ),
    "PNG without pixels": (
        "a.png",
        png(struct.pack(">IIBBBBB", 48, 32, 8, 0, 0, 0, 0)),
        {},
        "cannot be read to its end",
    ),
    "PNG cut short": ("a.png", deep_png()[:-40], {}, "cannot be read to its end"),
    "text": (
        "a.jpg",
        b"<html>Not found</html>",
        {},
        "is of no format that Pillow reads .*; fetch it again or convert it",
    ),
    "nothing": ("a.jpg", b"", {}, "is of no format that Pillow reads .*; fetch it again or convert it"),
}


def save(folder: Path, name: str, image: Image.Image | bytes, options: dict) -> Path:
    path = folder / name
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    return path


@pytest.mark.parametrize("kind", READ)
def test_an_image_of_this_kind_is_read_correctly(tmp_path, kind):
    name, image, options, expected = READ[kind]
    path = save(tmp_path, name, image, options)
    assert check_image(name, [tmp_path]) == CheckedImage(str(path), name, (32, 48))
    opened = open_image(path)
    assert (opened.mode, opened.size) == ("RGB", (48, 32))
    wanted = (image if expected is None else expected).convert("RGB")
    assert np.abs(np.asarray(opened, int) - np.asarray(wanted, int)).max() <= 6


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_an_image_of_this_kind_is_refused_by_preparation_and_by_later_steps(tmp_path, kind):
    name, image, options, reason = REFUSED[kind]
    path = save(tmp_path, name, image, options)
    found = check_image(name, [tmp_path])
    assert found.path == str(path)
    assert found.fault
    with pytest.raises(ValueError, match=rf"a\.\w+ cannot be read as an image: the image {reason}") as error:
        open_image(path)
    assert found.fault in str(error.value)


@pytest.mark.parametrize("name", ["absent.jpg", "", ".", "a\0b.jpg", "x" * 5000])
def test_a_missing_image_is_a_fault_whatever_its_name(tmp_path, name):
    fault = check_image(name, [tmp_path, tmp_path / "more"]).fault
    wanted = f"the image is in none of {tmp_path}, {tmp_path}/more; fetch it into one of them or correct its path"
    assert fault == wanted or (len(name) > 255 and "File name too long" in fault)


def make_pair(expression: str):
    """A reader of pairs without image sizes."""
    names = {"image_id": "a", "file_name": "a.jpg", "group_id": "g"}
    yield make_record(record_id=expression, expression=expression, size=None, mask=None, tags=[], **names)


def test_a_record_without_a_size_takes_the_size_of_its_image(tmp_path):
    RGB.save(tmp_path / "a.jpg")
    shard = ShardReader(make_pair, [tmp_path], upright=True)([pickle.dumps("dog"), pickle.dumps("cat")])
    assert [(row["record_id"], row["height"], row["width"]) for row in shard.records.to_pylist()] == [
        ("dog", 32, 48),
        ("cat", 32, 48),
    ]
    assert {row["mask"] for row in shard.records.to_pylist()} == {None}


def test_items_are_streamed_shard_by_shard(tmp_path, monkeypatch):
    monkeypatch.setattr("tseg.datasets.shards.SHARD_SIZE", 10)
    num_drawn = 0

    def items():
        nonlocal num_drawn
        for _ in range(1000):
            num_drawn += 1
            yield "dog"

    shards = read_shards(OpenSplit(items(), make_pair), [tmp_path], 1)
    assert [len(next(shards).skipped) for _ in range(3)] == [10, 10, 10]
    assert num_drawn == 30


def test_a_killed_process_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="was killed, probably for lack of memory; use fewer threads"):
        list(read_shards(OpenSplit([9], os._exit), [], 2))  # type: ignore[arg-type]
