"""Any damage to an annotation file leads to a usable record, a reason, or an error that names the file."""

import copy
import csv
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tseg.datasets.prepare import prepare_split
from tseg.records import RECORDS, decode_mask, encode_mask
from tseg.settings.schema import DatasetSettings

WIDTH, HEIGHT = 40, 30
SQUARE = [[2, 3], [7, 3], [7, 8], [2, 8]]
RUNS = [95, 5, 25, 5, WIDTH * HEIGHT - 130]
STRUCTURE = {"name": "dog", "attributes": ["big"], "relation_descriptions": [["on", "mat"]], "type": "name"}
TASK = {
    "task_id": "9__1",
    "image_id": 9,
    "Polygons": [[SQUARE], [SQUARE]],
    "phrase": "dog",
    "phrase_structure": STRUCTURE,
}
PHRASECUT = {
    "refer_train.json": [TASK, TASK | {"task_id": "9__2"}],
    "img_info.json": [{"image_id": 9, "width": WIDTH, "height": HEIGHT, "coco_id": 5}],
}


def reference(number: int) -> dict[str, Any]:
    sentences = [{"sent_id": 10 * number + k, "sent": f"dog {k}", "raw": "a dog", "tokens": ["dog"]} for k in range(2)]
    return {"ref_id": number, "ann_id": number, "image_id": 9, "split": "train", "sentences": sentences}


def region(number: int, segmentation: Any) -> dict[str, Any]:
    return {"id": number, "image_id": 9, "bbox": [2, 3, 5, 5], "segmentation": segmentation}


REFER = {
    "refs(unc).p": [reference(number) for number in (1, 2, 3)],
    "instances.json": {
        "info": {},
        "images": [{"id": 9, "file_name": "9.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            region(1, [[2, 3, 7, 3, 7, 8, 2, 8]]),
            region(2, {"size": [HEIGHT, WIDTH], "counts": RUNS}),
            region(3, {"size": [HEIGHT, WIDTH], "counts": encode_mask(np.eye(HEIGHT, WIDTH, dtype=bool))}),
        ],
    },
}

NUMBERS = st.sampled_from([0, -1, 1, 9, 1e5, -1e5, 1e300, 10**400, 2**31, 2**63, 0.5, float("nan"), float("inf")])
TEXTS = st.text(max_size=4) | st.sampled_from(["9", "\ud800", "\0", "../9", "/", "x" * 5000, "Polygons", " "])
SMALL = st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(SMALL, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def paths_in(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path to every value within a value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from paths_in(item, (*path, key))


def changed(value: Any, path: tuple, change: Callable[[Any, Any], None]) -> Any:
    """A copy of `value` after `change` of the container and key at `path`."""
    whole = [copy.deepcopy(value)]
    container, key = whole, 0
    for step in path:
        container, key = container[key], step
    change(container, key)
    return whole[0] if whole else []


@st.composite
def mutated(draw: st.DrawFn, files: dict[str, Any]) -> dict[str, Any]:
    """The files with up to three values replaced, removed, repeated or swapped."""
    files = dict(files)
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(files)))
        paths = list(paths_in(files[name]))
        path, other = draw(st.sampled_from(paths)), draw(st.sampled_from(paths))
        value = draw(VALUES | st.just(_at(files[name], other)) | st.builds(nested, st.sampled_from([10, 100])))

        def replace(container: Any, key: Any, value: Any = value) -> None:
            container[key] = copy.deepcopy(value) if not isinstance(value, list) else value

        def remove(container: Any, key: Any) -> None:
            del container[key]

        def repeat(container: Any, key: Any) -> None:
            if isinstance(container, list):
                container.insert(key, container[key])

        files[name] = changed(files[name], path, draw(st.sampled_from([replace, replace, remove, repeat])))
    return files


def _at(value: Any, path: tuple) -> Any:
    for step in path:
        value = value[step]
    return value


def write(folder: Path, files: dict[str, Any]) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "9.jpg")
    for name, content in files.items():
        text = pickle.dumps(content, protocol=2) if name.endswith(".p") else json.dumps(content).encode()
        (folder / name).write_bytes(text)


def prepare(folder: Path, dataset: str, output: Path) -> None:
    """Prepare the split train of the files in `folder`."""
    folders = {"annotations": str(folder), "images": [str(folder)]}
    settings = DatasetSettings(**FORMATS[dataset], **folders, train="train", evaluation="val")
    prepare_split("hostile", "train", settings, output)


def check_outcome(folder: Path, dataset: str) -> None:
    """Prepare the files in `folder`; expect good records and reasons, or an error that names the folder."""
    output = folder / "out" / "train.parquet"
    output.unlink(missing_ok=True)
    try:
        prepare(folder, dataset, output)
    except ValueError as error:
        assert str(folder) in str(error)
        assert "; " in str(error)
        assert not output.exists()
        return
    table = pq.read_table(output)
    assert table.schema.equals(RECORDS)
    for record in table.to_pylist():
        assert record["expression"].split()
        assert (record["height"], record["width"]) == (HEIGHT, WIDTH)
        assert decode_mask(record["mask"], HEIGHT, WIDTH).any()
        assert (np.abs(record["box"]) <= 1e5).all()
        assert min(record["box"][2:]) > 0
    with output.with_suffix(".skipped.csv").open(newline="", encoding="utf-8") as file:
        skipped = list(csv.DictReader(file))
    assert all(row["file"] and "; " in row["reason"] for row in skipped)


FORMATS = {"PhraseCut": {"format": "phrasecut"}, "RefCOCO": {"format": "refer", "split_by": "unc"}}
FILES = {"PhraseCut": PHRASECUT, "RefCOCO": REFER}


@pytest.mark.parametrize("dataset", FORMATS)
def test_the_unchanged_files_are_read_completely(tmp_path, dataset, capsys):
    write(tmp_path, FILES[dataset])
    check_outcome(tmp_path, dataset)
    assert (
        f"hostile train: {2 if dataset == 'PhraseCut' else 6} records of 1 images; 0 skipped" in capsys.readouterr().out
    )


@pytest.mark.parametrize("dataset", FORMATS)
@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_changed_values_make_good_records_reasons_or_errors_that_name_the_file(dataset, data):
    with TemporaryDirectory() as folder:
        write(Path(folder), data.draw(mutated(FILES[dataset])))
        check_outcome(Path(folder), dataset)


@pytest.mark.parametrize("dataset", FORMATS)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_changed_bytes_make_good_records_reasons_or_errors_that_name_the_file(dataset, data):
    with TemporaryDirectory() as folder:
        write(Path(folder), FILES[dataset])
        path = Path(folder, data.draw(st.sampled_from(sorted(FILES[dataset]))))
        content = bytearray(path.read_bytes())
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
        path.write_bytes(content)
        check_outcome(Path(folder), dataset)


@pytest.mark.parametrize("name", ["refer_train.json", "img_info.json", "instances.json"])
@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_json_that_is_nested_a_million_deep_is_refused_by_name(tmp_path, name, bracket):
    dataset = "RefCOCO" if name == "instances.json" else "PhraseCut"
    write(tmp_path, FILES[dataset])
    start = '{"images": [' if dataset == "RefCOCO" else "["
    (tmp_path / name).write_text(start + bracket * 1_000_000)
    with pytest.raises(ValueError, match=rf"{name.replace('.', '[.]')} is not JSON .*; fetch it again"):
        prepare(tmp_path, dataset, tmp_path / "train.parquet")


@pytest.mark.parametrize("depth", [100, 500, 900, 940, 960, 980, 1000, 10_000])
def test_a_deeply_nested_value_is_read_or_refused(tmp_path, depth):
    deep = "[" * depth + "]" * depth
    for key in ("Polygons", "image_id", "task_id", "phrase_structure", "unknown"):
        text = json.dumps(PHRASECUT["refer_train.json"]).replace('"9__2"', '"9__2", "DEEP": 0', 1)
        write(tmp_path, PHRASECUT)
        (tmp_path / "refer_train.json").write_text(text.replace('"DEEP": 0', f'"{key}": {deep}'))
        check_outcome(tmp_path, "PhraseCut")
    text = json.dumps(PHRASECUT["img_info.json"]).replace("}", f', "coco_id": {deep}}}')
    write(tmp_path, PHRASECUT)
    (tmp_path / "img_info.json").write_text(text)
    check_outcome(tmp_path, "PhraseCut")


def test_a_pickle_of_huge_numbers_or_recursive_lists_is_read_or_refused(tmp_path):
    loop: list = []
    loop.append(loop)
    for value in (10**5000, loop, nested(100), {1: loop}, b"9", (1, 2), True):
        for key in ("ref_id", "ann_id", "image_id", "split", "sentences"):
            refs = [reference(1), reference(2) | {key: value}]
            write(tmp_path, REFER | {"refs(unc).p": refs})
            check_outcome(tmp_path, "RefCOCO")
