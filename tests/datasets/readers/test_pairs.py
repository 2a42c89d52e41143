"""Pairs of images and phrases: every row becomes a record or is skipped, every file is read or refused."""

import csv
import io
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tseg.datasets.prepare import prepare_split
from tseg.datasets.readers.annotations import Skipped
from tseg.datasets.readers.pairs import open_pairs, read_region
from tseg.expressions import clean_expression
from tseg.provenance import RecordsProvenance
from tseg.records import decode_mask, read_records
from tseg.settings.schema import DatasetSettings

ROWS = [("a.jpg", "a red cat"), ("sub/b.jpg", 'the "old" dog, left'), ("a.jpg", "two\nlines"), ("c.png", "grün 猫")]
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(folder: Path, split: str = "train") -> list[Any]:
    """Every record and every skipped record of a split."""
    opened = open_pairs(folder, split)
    return [found for item in opened.items for found in opened.read(item)]


def write_csv(path: Path, rows: list[Any], columns: tuple[str, ...] = ("image", "phrase")) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([columns, *rows])


def write_captions(path: Path, rows: list[Any]) -> None:
    names = list(dict.fromkeys(name for name, _ in rows))
    images = [{"id": number, "file_name": name, "width": 9, "height": 9} for number, name in enumerate(names)]
    captions = [{"id": 50 + k, "image_id": names.index(name), "caption": text} for k, (name, text) in enumerate(rows)]
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": captions}))


def pairs_of(found: list[Any]) -> list[tuple[str, str]]:
    return [(record["file_name"], record["expression"]) for record in found]


def reasons(found: list[Any]) -> list[str]:
    assert all(isinstance(one, Skipped) for one in found)
    return [one.reason for one in found]


def test_csv_parquet_and_captions_give_the_same_records(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ROWS)
    pd.DataFrame(ROWS, columns=["image", "phrase"]).to_parquet(tmp_path / "b.parquet")
    write_captions(tmp_path / "c.json", ROWS)
    expected = [(image, " ".join(phrase.split())) for image, phrase in ROWS]
    for split in "abc":
        found = read(tmp_path, split)
        assert pairs_of(found) == expected
        assert {record["mask"] for record in found} == {record["box"] for record in found} == {None}
        assert [record["image_id"] for record in found] == [image for image, _ in ROWS]


def test_a_row_without_an_id_is_named_by_its_line(tmp_path: Path) -> None:
    """The line on which the row starts: phrases may span lines, and lines between rows may be empty."""
    text = 'image,phrase\r\na.jpg,one\r\n\r\na.jpg,"two\nlines"\r\n\nb.jpg,three\n'
    (tmp_path / "train.csv").write_bytes(text.encode("utf-8-sig"))
    found = read(tmp_path)
    assert [record["record_id"] for record in found] == ["train.csv:2", "train.csv:4", "train.csv:7"]
    lines = text.splitlines()
    assert all(found[k]["expression"].split()[0] in lines[(2, 4, 7)[k] - 1] for k in range(3))


def test_own_ids_are_kept(tmp_path: Path) -> None:
    pd.DataFrame({"id": [7, 8], "phrase": "cat", "image": "a.jpg"}).to_parquet(tmp_path / "b.parquet")
    write_csv(tmp_path / "a.csv", [("x1", "cat", "a.jpg"), ("", "dog", "a.jpg")], ("id", "phrase", "image"))
    write_captions(tmp_path / "c.json", ROWS[:2])
    assert [record["record_id"] for record in read(tmp_path, "a+b+c")] == ["x1", "a.csv:3", "7", "8", "50", "51"]


def test_images_with_coco_file_names_have_coco_ids(tmp_path: Path) -> None:
    names = ["COCO_train2014_000000123456.jpg", "val/000000000009.jpg", "123456.jpg"]
    write_csv(tmp_path / "train.csv", [(name, "cat") for name in names])
    assert [record["coco_id"] for record in read(tmp_path)] == ["123456", "9", None]


def test_rows_are_streamed(tmp_path: Path) -> None:
    """A file may be larger than memory, so an error is raised only when its line is reached."""
    with (tmp_path / "train.csv").open("wb") as file:
        file.write(b"image,phrase\n" + b"a.jpg,cat\n" * 40_000 + b"a.jpg,ch\xe2t\n")
    opened = open_pairs(tmp_path, "train")
    rows = iter(opened.items)
    assert len(list(opened.read(pickle.loads(pickle.dumps(next(rows)))))) == 1
    assert pickle.loads(pickle.dumps(opened.read)).args == (tmp_path,)
    num_read = 1
    with pytest.raises(ValueError, match=r"train.csv, line 40002 is not UTF-8; save"):
        for _ in rows:
            num_read += 1
    assert num_read == 40_000


texts = st.one_of(
    st.text(max_size=30), st.text("a/.\\\0\r\n\" ,;'", max_size=12), st.sampled_from(["", "/x.jpg", "../x"])
)


def check_rows(folder: Path, rows: list[tuple[str, str]]) -> None:
    """Each row becomes a record with its values, or is skipped with a reason."""
    found = read(folder)
    assert len(found) == len(rows)
    for (image, phrase), one in zip(rows, found, strict=True):
        if isinstance(one, Skipped):
            assert any(word in one.reason for word in ("image", "phrase", "expression"))
        else:
            assert one["expression"] == clean_expression(phrase) != ""
            assert not Path(one["file_name"]).is_absolute() and ".." not in Path(one["file_name"]).parts
            assert Path(one["file_name"]) == Path(image.strip().replace("\\", "/"))
            assert pa.array([one["record_id"], one["file_name"], one["expression"]], pa.string()).null_count == 0


@QUICK
@given(rows=st.lists(st.tuples(texts, texts), max_size=6))
def test_any_text_in_a_csv_becomes_a_record_or_is_skipped(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_csv(Path(folder) / "train.csv", rows)
        check_rows(Path(folder), rows)


@QUICK
@given(rows=st.lists(st.tuples(texts, texts), max_size=6))
def test_any_text_in_a_parquet_file_becomes_a_record_or_is_skipped(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        columns = {"image": [row[0] for row in rows], "phrase": [row[1] for row in rows]}
        schema = pa.schema([("image", pa.string()), ("phrase", pa.large_string())])
        pq.write_table(pa.table(columns, schema), Path(folder) / "train.parquet")
        check_rows(Path(folder), rows)


values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.just("\ud800"))
objects = st.recursive(values, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2))


@QUICK
@given(
    image=st.fixed_dictionaries({}, optional={"id": objects, "file_name": objects}),
    caption=st.fixed_dictionaries({}, optional={"id": objects, "image_id": objects, "caption": objects}),
)
def test_any_value_in_captions_becomes_a_record_or_is_skipped(image: dict[str, Any], caption: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        captions = [caption, caption | {"image_id": image.get("id")}, caption | {"image_id": 1, "caption": "cat"}]
        content = {"images": [image, {"id": 1, "file_name": "a.jpg"}], "annotations": captions}
        (Path(folder) / "train.json").write_text(json.dumps(content))
        found = read(Path(folder))
        assert len(found) == 3
        assert all(isinstance(one, Skipped) or isinstance(one["expression"], str) for one in found)


@QUICK
@given(suffix=st.sampled_from([".csv", ".parquet", ".json"]), data=st.data())
def test_a_damaged_file_is_read_or_refused_by_name(suffix: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"train{suffix}"
        match suffix:
            case ".csv":
                write_csv(path, ROWS)
            case ".json":
                write_captions(path, ROWS)
            case _:
                pd.DataFrame(ROWS, columns=["image", "phrase"]).to_parquet(path)
        content = bytearray(path.read_bytes())
        for index in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=5)):
            content[index] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 3, 0]))])
        try:
            assert all(isinstance(one, Skipped | dict) for one in read(Path(folder)))
        except ValueError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no header; start it with the line image,phrase"),
        ("\n\nimage,phrase\n", "has no header; start it with the line image,phrase"),
        ("image;phrase\na.jpg;cat\n", "has columns separated by semicolons or tabs; save it with commas"),
        ("image\tphrase\na.jpg\tcat\n", "has columns separated by semicolons or tabs; save it with commas"),
        ("image,phrases\n", "the unknown column 'phrases'; did you mean phrase?"),
        ("a.jpg,a cat\n", "the unknown column 'a.jpg'; valid are image, phrase, mask, id"),
        ("image,id\n", "no column 'phrase'; add it"),
        ("phrase,image,phrase\n", "the column 'phrase' twice; remove one"),
        ("image,phrase,mask,mask\n", "the column 'mask' twice; remove one"),
        ("picture,phrase\na.jpg,cat\n", "has the column 'picture'; rename it to 'image'$"),
        ('image,phrase\na.jpg,cat\nb.jpg,"open\nc.jpg,dog\n', r"line 3 is not CSV \(unexpected end of data\)"),
        ('image,phrase\na.jpg,"cat" dog\n', "line 2 is not CSV"),
        (f"image,phrase\na.jpg,{'x' * 200_000}\n", r"line 2 is not CSV \(field larger than"),
    ],
)
def test_a_csv_file_that_holds_no_pairs_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"{tmp_path}/train\.csv.*{message}"):
        read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "image,phrase\r\na.jpg,a cat\r\n",
        "\ufeffimage,phrase\na.jpg,a cat\n",
        "image,phrase,\na.jpg,a cat,\n",
        "image,phrase,,,\na.jpg,a cat, ,,\n",
        "image,phrase\na.jpg,a cat,\n",
        "Image, Phrase \na.jpg,a cat\n",
        "IMAGE,phrase\u00a0\na.jpg,a cat\n",
        "“image”,'phrase'\na.jpg,a cat\n",
        "image,phrase\n a.jpg\u00a0,a\u00a0cat\n",
        "\u200bimage,phrase\na.jpg,\ufeffa cat\u200b\n",
    ],
)
def test_what_spreadsheets_and_editors_add_makes_no_difference(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.csv").write_bytes(content.encode())
    (record,) = read(tmp_path)
    assert (record["file_name"], record["expression"]) == ("a.jpg", "a cat")


def test_a_value_in_a_column_without_a_name_is_not_dropped(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image,phrase,\na.jpg,a cat,black\nb.jpg,a dog,\n")
    skipped, record = read(tmp_path)
    assert skipped.reason == "its row has 3 fields, the header 2; quote phrases with commas"
    assert record["file_name"] == "b.jpg"
    (tmp_path / "train.csv").write_text("image,,phrase\na.jpg,,a cat\n")
    with pytest.raises(ValueError, match="column 2 has no name; name it or remove it"):
        read(tmp_path)


def test_typographic_quotes_around_a_comma_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image,phrase\na.jpg,“a cat, asleep”\n", encoding="utf-8")
    (skipped,) = read(tmp_path)
    assert skipped.reason.endswith('and CSV knows only straight quotes; write " in place of typographic quotes')


@pytest.mark.parametrize(
    ("path", "found"),
    [("dogs\\a.jpg", "dogs/a.jpg"), ("dogs\\old/a.jpg", "dogs/old/a.jpg"), (".\\a.jpg", "a.jpg")],
)
def test_a_path_of_windows_is_read(tmp_path: Path, path: str, found: str) -> None:
    write_csv(tmp_path / "train.csv", [(path, "cat")])
    (record,) = read(tmp_path)
    assert record["file_name"] == record["image_id"] == found


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("C:\\Users\\me\\1.jpg", "is an absolute path; write only the part below its folder, such as '1.jpg'"),
        ("C:/Users/me/1.jpg", "is an absolute path; write only the part below its folder, such as '1.jpg'"),
        ("\\\\server\\share\\1.jpg", "is an absolute path; write only the part below its folder, such as '1.jpg'"),
        ("dogs\\..\\..\\1.jpg", "leaves its folder; write a relative path without .."),
    ],
)
def test_a_path_that_leaves_its_folder_in_windows_ways_is_skipped(tmp_path: Path, path: str, reason: str) -> None:
    write_csv(tmp_path / "train.csv", [(path, "cat")])
    (skipped,) = read(tmp_path)
    assert skipped.reason == f"its image {path!r} {reason}"


@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 3), ("utf-16", 1)])
def test_another_encoding_is_refused_with_its_line(tmp_path: Path, encoding: str, line: int) -> None:
    (tmp_path / "train.csv").write_bytes("image,phrase\na.jpg,cat\nb.jpg,grün\n".encode(encoding))
    with pytest.raises(ValueError, match=rf"train\.csv, line {line} is not UTF-8"):
        read(tmp_path)


def test_a_bad_row_is_skipped_with_its_line_and_the_others_are_kept(tmp_path: Path) -> None:
    rows = [",cat", "a.jpg,", "a.jpg,a cat, sleeping", "a.jpg", "/etc/a.jpg,cat", "x/../../a.jpg,cat", "a.jpg,c\0at"]
    rows += [f"{'x' * 300}.jpg,cat", f"{'x/' * 600}a.jpg,cat", "a.jpg,good"]
    (tmp_path / "train.csv").write_text("\n".join(["image,phrase", *rows]))
    *bad, good = read(tmp_path)
    assert good["record_id"] == "train.csv:11"
    assert [one.record for one in bad] == [f"train.csv:{line}" for line in range(2, 11)]
    assert reasons(bad)[:6] == [
        "its column 'image' is empty; fill it in",
        "its column 'phrase' is empty; fill it in",
        "its row has 3 fields, the header 2; quote phrases with commas",
        "its row has 1 fields, the header 2; quote phrases with commas",
        "its image '/etc/a.jpg' is an absolute path; write only the part below its folder, such as 'a.jpg'",
        "its image 'x/../../a.jpg' leaves its folder; write a relative path without ..",
    ]
    assert ["too long" in reason for reason in reasons(bad)[6:]] == [False, True, True]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [1, 2], "phrase": ["a", "b"]}, "the column 'image' has the type int64; write it as text"),
        ({"image": ["a"], "phrase": [b"a"]}, "the column 'phrase' has the type binary"),
        ({"image": ["a"], "phrase": [["a"]]}, "the column 'phrase' has the type list"),
        ({"image": ["a"], "phrase": ["a"], "id": [1.5]}, "the column 'id' has the type double"),
        ({"image": ["a"], "caption": ["a"]}, "the unknown column 'caption'"),
        ({"image": ["a"]}, "no column 'phrase'"),
        ({"picture": ["a"], "phrase": ["a"]}, "has the column 'picture'; rename it to 'image'$"),
    ],
)
def test_a_parquet_file_with_other_columns_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=rf"train\.parquet.*{message}"):
        read(tmp_path)


def test_a_null_in_a_parquet_column_is_an_empty_value(tmp_path: Path) -> None:
    frame = pd.DataFrame({"image": ["a.jpg", None], "phrase": ["cat", "dog"], "mask": [None, None]})
    frame.astype({"phrase": "category"}).to_parquet(tmp_path / "train.parquet")
    record, skipped = read(tmp_path)
    assert (record["expression"], record["mask"]) == ("cat", None)
    assert skipped == Skipped(tmp_path / "train.parquet", "train.parquet:2", "its column 'image' is empty; fill it in")


def test_a_caption_of_an_unknown_image_is_skipped(tmp_path: Path) -> None:
    write_captions(tmp_path / "train.json", ROWS)
    content = json.loads((tmp_path / "train.json").read_text())
    (tmp_path / "train.json").write_text(json.dumps(content | {"images": content["images"][1:]}))
    found = read(tmp_path)
    assert [isinstance(one, Skipped) for one in found] == [True, False, True, False]
    assert found[0].reason.startswith("its image_id 0 is not in the list `images`")


def test_splits_are_named_by_their_files(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"/train does not exist with any suffix of \.csv, \.parquet, \.json; write a table"
    ):
        read(tmp_path)
    write_csv(tmp_path / "mine.csv", ROWS)
    write_captions(tmp_path / "captions_val2014.json", ROWS[:1])
    with pytest.raises(ValueError, match="choose one of captions_val2014, mine"):
        read(tmp_path)
    assert len(read(tmp_path, "mine+captions_val2014")) == 5
    write_captions(tmp_path / "mine.json", ROWS)
    with pytest.raises(ValueError, match=r"/mine\.csv and .*/mine\.json are the same split; keep one"):
        read(tmp_path, "mine")


REGION = np.arange(6 * 8).reshape(6, 8) % 5 > 2


def png(folder: Path, mask: Image.Image, **options: Any) -> Path:
    mask.save(folder / "mask.png", **options)
    return folder / "mask.png"


def palette(mask: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(colours)
    return image


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(REGION),
        Image.fromarray(REGION.astype(np.uint8)),
        Image.fromarray(REGION.astype(np.uint8) * 255),
        palette(REGION, [0, 0, 0, 128, 0, 0]),
        palette(REGION * np.uint8(7), [0, 0, 0, *range(1, 22)]),
    ],
)
def test_the_region_is_every_pixel_that_is_not_black(tmp_path: Path, mask: Image.Image) -> None:
    found = read_region(png(tmp_path, mask))
    assert found.dtype == bool
    np.testing.assert_array_equal(found, REGION)


def bad_masks(folder: Path) -> dict[str, bytes]:
    """Part of the reason to the bad mask file that is skipped for it."""
    grey = Image.fromarray(REGION.astype(np.uint8))
    good = png(folder, grey).read_bytes()
    frames = io.BytesIO()
    grey.save(frames, "PNG", save_all=True, append_images=[Image.fromarray((~REGION).astype(np.uint8))])
    jpeg = io.BytesIO()
    grey.save(jpeg, "JPEG")
    return {
        "mode I;16": png(folder, Image.fromarray(REGION.astype(np.uint16) * 1000)).read_bytes(),
        "mode RGB": png(folder, grey.convert("RGB")).read_bytes(),
        "mode LA": png(folder, grey.convert("LA")).read_bytes(),
        "index 0 is not the only black": png(folder, palette(REGION, [255, 255, 255, 0, 0, 0])).read_bytes(),
        "is not the only black; save": png(
            folder, palette(REGION * np.uint8(2), [0, 0, 0, 9, 9, 9, 0, 0, 0])
        ).read_bytes(),
        "is animated": frames.getvalue(),
        "cannot identify": jpeg.getvalue(),
        "cannot be read as a PNG": good[:-20],
        "cannot be read as a PNG (broken": good.replace(b"IDAT\x78", b"IDAT\x79"),
        "is empty": png(folder, Image.new("1", (8, 6))).read_bytes(),
    }


def test_a_row_with_a_bad_mask_is_skipped(tmp_path: Path) -> None:
    faults = bad_masks(tmp_path)
    (tmp_path / "folder.png").mkdir()
    for number, content in enumerate(faults.values()):
        (tmp_path / f"{number}.png").write_bytes(content)
    expected = dict(zip((f"{number}.png" for number in range(len(faults))), faults, strict=True))
    absent = f"is in none of {tmp_path}; add the file or correct its path"
    expected |= {"none.png": absent, "folder.png": absent}
    expected |= {"/mask.png": "is an absolute path", "../mask.png": "leaves its folder"}
    write_csv(tmp_path / "train.csv", [("a.jpg", "cat", name) for name in expected], ("image", "phrase", "mask"))
    for reason, fault in zip(reasons(read(tmp_path)), expected.values(), strict=True):
        assert fault in reason and reason.startswith("its mask")


def prepare_pairs(folder: Path) -> tuple[pd.DataFrame, RecordsProvenance]:
    """The records and the provenance of the split train of `folder`, with images in `folder`/images."""
    settings = {"format": "pairs", "annotations": str(folder), "images": [str(folder / "images")]}
    checked = DatasetSettings(**settings, train="train", evaluation="val")
    prepare_split("mine", "train", checked, folder / "out/train.parquet")
    return read_records(folder / "out/train.parquet")


def test_prepared_pairs_have_the_sizes_of_their_images_and_the_given_masks(tmp_path: Path) -> None:
    (tmp_path / "images/deep/folder.jpg").mkdir(parents=True)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # rotated by 90 degrees
    for name, options in {"a.jpg": {}, "deep/b.png": {}, "rotated.jpg": {"exif": rotated}}.items():
        Image.new("RGB", (8, 6), "red").save(tmp_path / "images" / name, **options)
    png(tmp_path, Image.fromarray(REGION))
    Image.fromarray(REGION.T).save(tmp_path / "other.png")
    rows = [("a.jpg", "cat", "mask.png"), ("deep/b.png", "dog", ""), ("rotated.jpg", "cat", ""), ("./a.jpg", "cow", "")]
    rows += [("a.jpg", "pig", "other.png"), ("deep/folder.jpg", "hen", ""), ("none.jpg", "hen", "")]
    rows += [("A.JPG", "cod", "MASK.PNG"), ("deep\\b.png", "eel", "")]
    write_csv(tmp_path / "train.csv", rows, ("image", "phrase", "mask"))
    records, provenance = prepare_pairs(tmp_path)
    assert records["expression"].tolist() == ["cat", "dog", "cat", "cow", "cod", "eel"]
    sizes = dict(zip(records["image_id"], zip(records["height"], records["width"], strict=True), strict=True))
    assert sizes == {"a.jpg": (6, 8), "deep/b.png": (6, 8), "rotated.jpg": (8, 6)}
    np.testing.assert_array_equal(decode_mask(records["mask"][0], 6, 8), REGION)
    without = [False, True, True, True, False, True]
    assert records["mask"].isna().tolist() == records["box"].isna().tolist() == without
    assert records["image_id"].tolist() == ["a.jpg", "deep/b.png", "rotated.jpg", "a.jpg", "a.jpg", "deep/b.png"]
    with (tmp_path / "out/train.skipped.csv").open(newline="") as file:
        skipped = {row["record"]: row["reason"] for row in csv.DictReader(file)}
    assert list(skipped) == ["train.csv:6", "train.csv:7", "train.csv:8"]
    for reason, part in zip(skipped.values(), ["6 x 8 pixels", "in none of", "in none of"], strict=True):
        assert part in reason
    assert provenance.num_skipped == 3
