import csv
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tseg.cli.prepare import prepare
from tseg.datasets import shards
from tseg.datasets.prepare import prepare_split
from tseg.provenance import RecordsProvenance
from tseg.records import RECORDS, decode_mask, read_records
from tseg.settings.schema import DatasetSettings

SQUARE = [[2, 3], [7, 3], [7, 8], [2, 8]]


def jpeg(width: int = 64, height: int = 48, **options) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", **options)
    return file.getvalue()


def write_phrasecut(folder: Path, contents: dict[int, bytes | None], **changes: Any) -> dict[str, Any]:
    """Write one task per image (None: the image is missing); return the arguments of `prepare_split`."""
    tasks = [
        {
            "task_id": f"{image_id}__0",
            "image_id": image_id,
            "phrase": "dog",
            "Polygons": [[SQUARE]],
            "phrase_structure": {"name": "dog", "attributes": [], "relation_descriptions": [], "type": "name"},
        }
        for image_id in contents
    ]
    info = [{"image_id": image_id, "width": 64, "height": 48} for image_id in contents]
    (folder / "images").mkdir()
    (folder / "refer_train.json").write_text(json.dumps(tasks))
    (folder / "img_info.json").write_text(json.dumps(info))
    for image_id, content in contents.items():
        if content is not None:
            (folder / "images" / f"{image_id}.jpg").write_bytes(content)
    settings = {"format": "phrasecut", "sources": ["phrasecut", "visual_genome"], "images": [str(folder / "images")]}
    return arguments_of("phrasecut", "train", folder, settings | changes)


def arguments_of(name: str, split: str, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `prepare_split` for a data set whose annotations are in `folder`."""
    checked = DatasetSettings(**settings, annotations=str(folder), train="train", evaluation="val")
    return {"name": name, "split": split, "settings": checked, "output": folder / "out" / f"{split}.parquet"}


def read_skipped(arguments: dict) -> list[dict]:
    with arguments["output"].with_suffix(".skipped.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_good_records_are_written_in_order_with_their_provenance(tmp_path, capsys):
    arguments = write_phrasecut(tmp_path, {3: jpeg(), 1: jpeg(), 2: jpeg(progressive=True)})
    assert prepare_split(**arguments) == 3
    records, provenance = read_records(arguments["output"])
    assert list(records.columns) == RECORDS.names
    assert list(records["record_id"]) == ["3__0", "1__0", "2__0"]
    assert list(records["file_name"]) == [str(tmp_path / "images" / f"{k}.jpg") for k in (3, 1, 2)]
    assert decode_mask(records["mask"][0], 48, 64).sum() == 36
    assert provenance == RecordsProvenance(
        dataset="phrasecut",
        split="train",
        sources=["phrasecut", "visual_genome"],
        classes=None,
        num_skipped=0,
        num_images=3,
        name_ranks="refer_train.json",
        published=None,
    )
    assert (tmp_path / "out" / "train.skipped.csv").read_text().split() == ["file,record,reason"]
    expected = f"phrasecut train: 3 records of 3 images; 0 skipped, listed in {tmp_path}/out/train.skipped.csv\n"
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the image is in none of {folder}/images; fetch it into one of them"),
        (jpeg()[:1000], "the image cannot be read to its end (image file is truncated"),
        (jpeg()[:-2], "the image cannot be read to its end (image file is truncated"),
        (jpeg(progressive=True)[:-200], "the image cannot be read to its end (image file is truncated"),
        (b"<html>", "the image is of no format that Pillow reads"),
        (b"", "the image is of no format that Pillow reads"),
        (
            jpeg(48, 64),
            "its annotation is for an image of 64 x 48 pixels, but the image has 48 x 64; fetch",
        ),
    ],
)
def test_a_record_with_a_bad_image_is_skipped_and_listed(tmp_path, content, reason):
    arguments = write_phrasecut(tmp_path, {1: content, 2: jpeg()})
    assert prepare_split(**arguments) == 1
    assert list(read_records(arguments["output"])[0]["record_id"]) == ["2__0"]
    (row,) = read_skipped(arguments)
    assert Path(row["file"]).name == "1.jpg"
    assert row["record"] == "1__0"
    assert row["reason"].startswith(reason.format(folder=tmp_path))
    assert "; fetch" in row["reason"]
    assert read_records(arguments["output"])[1].num_skipped == 1


def test_the_region_of_an_official_format_turns_with_its_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    records = []
    for name, options in {"stored": {}, "turned": {"exif": exif}}.items():
        (tmp_path / name).mkdir()
        arguments = write_phrasecut(tmp_path / name, {1: jpeg(**options)})
        assert prepare_split(**arguments) == 1
        records.append(read_records(arguments["output"])[0].iloc[0])
    stored, turned = (decode_mask(record["mask"], record["height"], record["width"]) for record in records)
    np.testing.assert_array_equal(turned, np.rot90(stored, -1))


def test_the_first_folder_that_has_an_image_wins(tmp_path):
    folders = [str(tmp_path / name) for name in ("nowhere", "images", "more")]
    arguments = write_phrasecut(tmp_path, {1: None, 2: jpeg()}, images=folders)
    (tmp_path / "more").mkdir()
    for image_id in (1, 2):
        (tmp_path / "more" / f"{image_id}.jpg").write_bytes(jpeg())
    prepare_split(**arguments)
    used = [Path(name).parent.name for name in read_records(arguments["output"])[0]["file_name"]]
    assert used == ["more", "images"]


def test_every_image_is_opened_once_however_many_records_it_has(tmp_path, monkeypatch):
    arguments = write_phrasecut(tmp_path, {1: jpeg(), 2: jpeg()})
    tasks = json.loads((tmp_path / "refer_train.json").read_text())
    tasks = [task | {"task_id": f"{task['task_id']}{k}"} for task in tasks for k in range(3)]
    (tmp_path / "refer_train.json").write_text(json.dumps(tasks))
    opened, really_open = [], Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path.name) or really_open(path))
    assert prepare_split(**arguments) == 6
    assert sorted(opened) == ["1.jpg", "2.jpg"]


def test_a_second_record_with_the_same_id_is_skipped(tmp_path):
    arguments = write_phrasecut(tmp_path, {1: jpeg()})
    assert prepare_split(**arguments | {"split": "train+train"}) == 1
    (row,) = read_skipped(arguments)
    assert (row["record"], row["reason"]) == ("1__0", "an earlier record has the same id; give it another id")


def write_mixed(folder: Path) -> dict:
    """Write ten tasks: good ones, bad annotations, bad images, and ids repeated in other shards of three."""
    arguments = write_phrasecut(folder, {1: jpeg(), 2: None, 3: jpeg(), 4: jpeg()[:1000], 5: jpeg()})
    tasks = json.loads((folder / "refer_train.json").read_text())
    tasks = [*tasks, tasks[2] | {"task_id": "more"}, tasks[0], tasks[0] | {"phrase": ""}, tasks[4], tasks[0]]
    (folder / "refer_train.json").write_text(json.dumps(tasks))
    return arguments


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr("tseg.datasets.shards.SHARD_SIZE", 3)


def test_two_processes_write_the_same_bytes_as_one(tmp_path, small_shards):
    arguments = write_mixed(tmp_path)
    for num_workers in (1, 2):
        output = tmp_path / str(num_workers) / "train.parquet"
        assert prepare_split(**arguments | {"output": output}, num_workers=num_workers) == 4
    for name in ("train.parquet", "train.skipped.csv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_records_and_skipped_records_keep_their_order_across_shards(tmp_path, small_shards):
    arguments = write_mixed(tmp_path)
    prepare_split(**arguments)
    assert list(read_records(arguments["output"])[0]["record_id"]) == ["1__0", "3__0", "5__0", "more"]
    reasons = [(row["record"], row["reason"].split(" (")[0][:39]) for row in read_skipped(arguments)]
    repeated = "an earlier record has the same id; give"
    assert reasons == [
        ("2__0", "the image is in none of " + str(tmp_path)[:15]),
        ("4__0", "the image cannot be read to its end"),
        ("1__0", "its expression is empty; write one"),
        ("1__0", repeated),
        ("5__0", repeated),
        ("1__0", repeated),
    ]
    assert read_records(arguments["output"])[1].num_skipped == 6
    assert read_records(arguments["output"])[1].num_images == 3


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_in_the_last_task_leaves_no_file(tmp_path, small_shards, num_workers):
    arguments = write_mixed(tmp_path)
    content = (tmp_path / "refer_train.json").read_text()
    # In another split, because the names of train are ranked before any task is read.
    (tmp_path / "refer_val.json").write_text(content[:-10])
    with pytest.raises(ValueError, match=r"refer_val\.json is not JSON .*; fetch it again"):
        prepare_split(**arguments | {"split": "val"}, num_workers=num_workers)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interruption_leaves_the_previous_file(tmp_path, small_shards, monkeypatch):
    arguments = write_mixed(tmp_path)
    prepare_split(**arguments)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    check, seen = shards.check_image, []

    def interrupted(*args, **kwargs):
        seen.append(args)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return check(*args, **kwargs)

    monkeypatch.setattr(shards, "check_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_split(**arguments)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("published", "line"),
    [
        ({"expressions": 2, "images": 2}, "as published: 2 expressions published, 2 found; 2 images p"),
        ({"expressions": 2, "images": None}, "as published: 2 expressions published, 2 found\n"),
        ({"expressions": 3, "images": 2}, "NOT AS PUBLISHED: 3 expressions published, 2 found; 2 images"),
        ({"expressions": None, "images": 7}, "NOT AS PUBLISHED: 7 images published, 2 found\n"),
        ({"expressions": None, "images": None}, "no count is published\n"),
    ],
)
def test_counts_are_compared_with_the_published_counts_which_the_file_keeps(tmp_path, capsys, published, line):
    arguments = write_phrasecut(tmp_path, {1: jpeg(), 2: jpeg()}, published={"train": published})
    prepare_split(**arguments)
    assert f"\nphrasecut train: {line}" in capsys.readouterr().out
    assert read_records(arguments["output"])[1].published == published


def test_the_sub_command_passes_its_settings_on(tmp_path, capsys):
    published = {"train": {"expressions": 2}, "val": {"expressions": 7}}
    arguments = write_phrasecut(tmp_path, {1: jpeg(), 2: jpeg()}, published=published)
    prepare("mine", "train", arguments["settings"].model_dump_json(), arguments["output"], threads=1)
    assert "mine train: as published: 2 expressions published, 2 found\n" in capsys.readouterr().out
    assert read_records(arguments["output"])[1].published == {"expressions": 2, "images": None}


def test_skipped_records_count_among_the_published_expressions(tmp_path, capsys):
    published = {"expressions": 2, "images": None}
    prepare_split(**write_phrasecut(tmp_path, {1: jpeg(), 2: None}, published={"train": published}))
    assert "phrasecut train: as published: 2 expressions published, 2 found\n" in capsys.readouterr().out


def test_a_name_that_cannot_be_encoded_is_listed_escaped(tmp_path):
    arguments = write_phrasecut(tmp_path, {1: jpeg(), 2: jpeg()})
    tasks = json.loads((tmp_path / "refer_train.json").read_text())
    (tmp_path / "refer_train.json").write_text(json.dumps([tasks[0], tasks[1] | {"task_id": "\ud800"}]))
    assert prepare_split(**arguments) == 1
    assert [row["record"] for row in read_skipped(arguments)] == ["\\ud800"]


def test_bad_annotations_are_listed(tmp_path):
    arguments = write_phrasecut(tmp_path, {1: jpeg(), 2: jpeg()})
    tasks = json.loads((tmp_path / "refer_train.json").read_text())
    (tmp_path / "refer_train.json").write_text(json.dumps([tasks[0] | {"phrase": ""}, tasks[1]]))
    assert prepare_split(**arguments) == 1
    expected = {"file": str(tmp_path / "refer_train.json"), "record": "1__0"}
    assert read_skipped(arguments) == [expected | {"reason": "its expression is empty; write one"}]


def test_a_split_without_usable_records_is_an_error_with_a_reason_and_a_list(tmp_path):
    arguments = write_phrasecut(tmp_path, {1: None, 2: jpeg()[:1000]})
    message = (
        r"phrasecut train in .*: all 2 records are skipped; the first, 1__0 \(1\.jpg\): the image is in none of .*; "
        r"fetch .*\. By cause: 1: the image is in none of [^;]*/images; 1: the image cannot be read to its end"
    )
    with pytest.raises(ValueError, match=message):
        prepare_split(**arguments)
    assert [row["record"] for row in read_skipped(arguments)] == ["1__0", "2__0"]
    assert not arguments["output"].exists()


def test_skipped_records_are_counted_by_cause_whatever_their_names_and_numbers(tmp_path, capsys):
    arguments = write_phrasecut(tmp_path, {1: None, 2: None, 3: jpeg(48, 64), 4: jpeg(24, 64), 5: jpeg()})
    assert prepare_split(**arguments) == 1
    causes = f"2: the image is in none of {tmp_path}/images; 2: its annotation is for an image of n x n pixels"
    assert f"4 skipped, listed in {tmp_path}/out/train.skipped.csv ({causes}, but the image has n x n)\n" in (
        capsys.readouterr().out
    )


def test_an_empty_split_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="all 0 records are skipped; the split is empty"):
        prepare_split(**write_phrasecut(tmp_path, {}))


def test_refer_files_become_records_with_the_same_columns(tmp_path):
    sentences = [{"sent_id": k, "sent": f"dog {k}"} for k in range(2)]
    ref = {"ref_id": 7, "ann_id": 5, "image_id": 9, "split": "val", "sentences": sentences}
    image = {"id": 9, "file_name": "nine.jpg", "width": 64, "height": 48}
    annotation = {"id": 5, "image_id": 9, "segmentation": [[2, 3, 7, 3, 7, 8, 2, 8]], "bbox": [2, 3, 5.5, 5]}
    (tmp_path / "refs(umd).p").write_bytes(pickle.dumps([ref], protocol=2))
    (tmp_path / "instances.json").write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    (tmp_path / "nine.jpg").write_bytes(jpeg())
    arguments = arguments_of(
        "refcocog", "val", tmp_path, {"format": "refer", "split_by": "umd", "images": [str(tmp_path)]}
    )
    assert prepare_split(**arguments) == 2
    records, _ = read_records(arguments["output"])
    assert list(records["group_id"]) == ["7", "7"]
    assert list(records["expression"]) == ["dog 0", "dog 1"]
    np.testing.assert_array_equal(records["box"][0], [2, 3, 5.5, 5])


def write_voc(folder: Path, sizes: dict[str, tuple[int, int]]) -> dict:
    """Write per name an image of 64 x 48 pixels and a mask of this size; return the arguments of `prepare_split`."""
    lists_dir = folder / "ImageSets" / "Segmentation"
    lists_dir.mkdir(parents=True)
    (lists_dir / "val.txt").write_text("\n".join(sizes))
    for name, (width, height) in sizes.items():
        values = np.repeat([0, 2, 1, 255], width // 4).astype(np.uint8)
        Image.fromarray(np.tile(values, (height, 1))).save(folder / f"{name}.png")
        (folder / f"{name}.jpg").write_bytes(jpeg())
    settings = {"format": "voc", "images": [str(folder)], "masks": [str(folder)], "classes": ["cat", "dog"]}
    return arguments_of("voc", "val", folder, settings)


def test_voc_files_become_records_with_the_same_columns_and_name_the_classes(tmp_path):
    arguments = write_voc(tmp_path, {"b": (64, 48), "a": (64, 48)})
    assert prepare_split(**arguments) == 4
    records, provenance = read_records(arguments["output"])
    assert list(records["record_id"]) == ["b/cat", "b/dog", "a/cat", "a/dog"]
    assert records["coco_id"].isna().all()
    assert decode_mask(records["ignore"][0], 48, 64)[:, 48:].all()
    assert provenance.classes == ["cat", "dog"]


def test_a_voc_image_is_skipped_if_its_mask_has_another_size(tmp_path):
    arguments = write_voc(tmp_path, {"a": (48, 64), "b": (64, 48)})
    assert prepare_split(**arguments) == 2
    assert [row["record"] for row in read_skipped(arguments)] == ["a/cat", "a/dog"]
    assert read_skipped(arguments)[0]["reason"].startswith("its annotation is for an image of 48 x 64 pixels, but")


def test_a_missing_voc_image_is_skipped(tmp_path):
    arguments = write_voc(tmp_path, {"a": (64, 48), "b": (64, 48)})
    (tmp_path / "a.jpg").unlink()
    assert prepare_split(**arguments) == 2
    assert all(row["reason"].startswith("the image is in none of") for row in read_skipped(arguments))
    assert [row["record"] for row in read_skipped(arguments)] == ["a/cat", "a/dog"]
