import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tseg.datasets.readers.annotations import OpenSplit, RecordError, Skipped
from tseg.datasets.readers.refer import compress, open_refer, read_refs, run_lengths
from tseg.datasets.shapes.draw import draw_shapes
from tseg.records import decode_mask, encode_mask

HEIGHT, WIDTH = 30, 40
BOX = [1.5, 2.25, 6, 5.5]
SQUARE = [2, 3, 7, 3, 7, 8, 2, 8]


def make_ref(ref_id: int = 1, split: str = "val", /, **changes) -> dict:
    sentences = [{"sent_id": 10 * ref_id + k, "sent": f"dog {k}", "raw": "RAW"} for k in range(2)]
    ref = {"ref_id": ref_id, "ann_id": 5, "image_id": 9, "split": split, "sentences": sentences}
    return ref | changes


def write(folder: Path, refs: list, segmentation=(SQUARE,), **changes) -> Path:
    image = {"id": 9, "file_name": "COCO_train2014_000000000009.jpg", "height": HEIGHT, "width": WIDTH}
    annotation = {"id": 5, "image_id": 9, "segmentation": segmentation, "bbox": BOX}
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    instances = {"images": [image], "annotations": [annotation], **changes}
    (folder / "instances.json").write_text(json.dumps(instances))
    return folder


def read(opened: OpenSplit) -> tuple[list[dict], list[Skipped]]:
    """The records of a split in order, and the skipped records."""
    found = [record for item in opened.items for record in opened.read(item)]
    skipped = [record for record in found if isinstance(record, Skipped)]
    return [record for record in found if not isinstance(record, Skipped)], skipped


def random_mask(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.random((HEIGHT, WIDTH)) < random.uniform(0.02, 0.98)


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, zeros first, counted pixel by pixel."""
    runs, current = [0], False
    for pixel in mask.ravel(order="F"):
        if pixel != current:
            runs.append(0)
            current = pixel
        runs[-1] += 1
    return runs


def python_2_pickle(value, protocol: int) -> bytes:
    """Pickle with the opcodes of Python 2, whose `str` is a byte string and whose `int` is a C long."""
    match value:
        case bytes():
            text = b"S" + repr(value)[1:].encode() + b"\n"
            return text if protocol == 0 else b"U" + bytes([len(value)]) + value
        case int():
            return b"I%d\n" % value if protocol == 0 else b"J" + struct.pack("<i", value)
        case list():
            return b"(" + b"".join(python_2_pickle(item, protocol) for item in value) + b"l"
        case dict():
            pairs = [python_2_pickle(key.encode(), protocol) + python_2_pickle(value[key], protocol) for key in value]
            return b"(" + b"".join(pairs) + b"d"
    raise AssertionError(value)


def test_each_sentence_is_a_record_and_shares_its_reference(tmp_path):
    records, skipped = read(open_refer(write(tmp_path, [make_ref()]), "val", "unc"))
    assert not skipped
    assert [record["record_id"] for record in records] == ["10", "11"]
    assert [record["expression"] for record in records] == ["dog 0", "dog 1"]
    for record in records:
        assert (record["image_id"], record["group_id"], record["tags"]) == ("9", "1", [])
        assert record["coco_id"] == "9"
        assert record["file_name"] == "COCO_train2014_000000000009.jpg"
        assert (record["height"], record["width"]) == (HEIGHT, WIDTH)
        assert record["box"] == BOX


def test_a_split_keeps_the_order_of_the_pickle(tmp_path):
    refs = [make_ref(3, "testB"), make_ref(2, "testA"), make_ref(1, "train"), make_ref(4, "testA")]
    records, _ = read(open_refer(write(tmp_path, refs), "testA", "unc"))
    assert [record["group_id"] for record in records] == ["2", "2", "4", "4"]
    records, _ = read(open_refer(tmp_path, "testA+testB", "unc"))
    assert [record["group_id"] for record in records] == ["3", "3", "2", "2", "4", "4"]


def test_a_polygon_mask_holds_the_pixels_between_its_corners(tmp_path):
    records, _ = read(open_refer(write(tmp_path, [make_ref()]), "val", "unc"))
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[3:8, 2:7] = True
    np.testing.assert_array_equal(decode_mask(records[0]["mask"], HEIGHT, WIDTH), expected)


def test_polygon_masks_are_the_union_of_pycocotools_masks():
    random = np.random.default_rng(0)
    polygons = [random.uniform(-5, 45, size=2 * n).tolist() for n in (3, 4, 8)]
    expected = coco_mask.decode(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH)).any(axis=2)
    np.testing.assert_array_equal(decode_mask(compress(polygons, (HEIGHT, WIDTH)), HEIGHT, WIDTH), expected)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("num_parts", [1, 2, 4])
def test_a_list_of_run_lengths_is_the_union_that_refers_own_code_makes(compressed, num_parts):
    masks = [random_mask(seed) & random_mask(seed + 50) for seed in range(num_parts)]
    parts = [rle(encode_mask(mask) if compressed else runs_of(mask)) for mask in masks]
    official = parts if compressed else coco_mask.frPyObjects(parts, HEIGHT, WIDTH)
    expected = coco_mask.decode(official).sum(axis=2) > 0  # as in refer.py's getMask
    np.testing.assert_array_equal(decode_mask(compress(parts, (HEIGHT, WIDTH)), HEIGHT, WIDTH), expected)


def test_masks_match_pycocotools_and_the_order_matches_the_pickle(tmp_path):
    draw_shapes(tmp_path / "shapes", sets=["coco"], num_train=6, num_val=1, seed=0)
    folder = tmp_path / "shapes/coco/refer/data/refcoco"
    coco = COCO(folder / "instances.json")
    for index, annotation in enumerate(coco.dataset["annotations"]):
        mask = coco.annToMask(annotation)
        if index % 3:  # polygons, run lengths, compressed run lengths
            counts = runs_of(mask) if index % 3 == 1 else encode_mask(mask)
            annotation["segmentation"] = {"size": list(mask.shape), "counts": counts}
    (folder / "instances.json").write_text(json.dumps(coco.dataset))
    coco = COCO(folder / "instances.json")
    refs = [ref for ref in pickle.loads((folder / "refs(unc).p").read_bytes()) if ref["split"] == "train"]
    expected = [(ref, sentence) for ref in refs for sentence in ref["sentences"]]
    records, skipped = read(open_refer(folder, "train", "unc"))
    assert not skipped
    for record, (ref, sentence) in zip(records, expected, strict=True):
        assert (record["record_id"], record["expression"]) == (str(sentence["sent_id"]), sentence["sent"])
        mask = decode_mask(record["mask"], record["height"], record["width"])
        np.testing.assert_array_equal(mask, coco.annToMask(coco.anns[ref["ann_id"]]))


def test_run_lengths_in_either_form_restore_the_mask():
    for mask in [random_mask(seed) for seed in range(20)] + [np.ones((HEIGHT, WIDTH), dtype=bool)]:
        compressed = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
        assert run_lengths(compressed) == runs_of(mask)
        for counts in (compressed, runs_of(mask)):
            found = compress({"size": [HEIGHT, WIDTH], "counts": counts}, (HEIGHT, WIDTH))
            np.testing.assert_array_equal(decode_mask(found, HEIGHT, WIDTH), mask)


def test_damaged_run_lengths_are_refused_or_still_fill_the_image():
    compressed = coco_mask.encode(np.asfortranarray(random_mask(0), dtype=np.uint8))["counts"].decode()
    random, num_refused = np.random.default_rng(0), 0
    for _ in range(300):
        index, character = random.integers(len(compressed)), chr(random.integers(32, 127))
        damaged = compressed[:index] + character + compressed[index + random.integers(2) :]
        try:
            found = compress({"size": [HEIGHT, WIDTH], "counts": damaged}, (HEIGHT, WIDTH))
        except RecordError:
            num_refused += 1
        else:
            assert sum(run_lengths(found)) == HEIGHT * WIDTH
    assert num_refused > 200


def rle(counts, size=(HEIGHT, WIDTH)) -> dict:
    return {"size": list(size), "counts": counts}


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "its segmentation is neither polygons nor run lengths; write one of the two"),
        ([], "its segmentation is neither polygons nor run lengths; write one of the two"),
        ([[1, 2, 8, 9]], "a polygon of fewer than three points; remove the polygon"),
        ([SQUARE, [1, 2]], "a polygon of fewer than three points; remove the polygon"),
        ([[]], "a polygon of fewer than three points; remove the polygon"),
        (SQUARE, "not a list of points x, y; correct the polygon"),
        ([[*SQUARE, 1]], "not a list of points x, y; correct the polygon"),
        ([[*SQUARE, 1e300, 1]], "not a list of points x, y; correct the polygon"),
        ([[*SQUARE, None, 1]], "not a list of points x, y; correct the polygon"),
        ([[0, 0, 9e4, 9e4] * 99], "its polygons are longer than 1,000,000 pixels in total; simplify them"),
        ([[90, 90, 95, 90, 95, 95]], "its mask is empty; draw the region inside the image"),
        (rle([HEIGHT * WIDTH]), "its mask is empty; draw the region inside the image"),
        (rle([3, 4, 5]), "the run lengths of its mask do not add up to the size of its image; correct them"),
        (rle([-1, 1 + HEIGHT * WIDTH]), "do not add up to the size of its image; correct them"),
        (rle([0.0, HEIGHT * WIDTH]), "do not add up to the size of its image; correct them"),
        (rle([]), "do not add up to the size of its image; correct them"),
        (rle([0, HEIGHT * WIDTH], (WIDTH, HEIGHT)), "is 30 x 40 pixels, its image 40 x 30; correct one"),
        (rle("0"), "do not add up to the size of its image; correct them"),
        (rle("Zé"), "are damaged; fetch instances.json again"),
        (rle("oo"), "are damaged; fetch instances.json again"),
        ([rle([0, HEIGHT * WIDTH]), rle([3, 4, 5])], "do not add up to the size of its image; correct them"),
        ([rle([0, HEIGHT * WIDTH]), SQUARE], "not a list of points x, y; correct the polygon"),
        ([SQUARE, rle([0, HEIGHT * WIDTH])], "not a list of points x, y; correct the polygon"),
        ([{}], "its segmentation is neither polygons nor run lengths; write one of the two"),
        (rle(7), "its segmentation is neither polygons nor run lengths; write one of the two"),
    ],
)
def test_a_bad_mask_is_skipped_with_its_reason(tmp_path, segmentation, reason):
    records, skipped = read(open_refer(write(tmp_path, [make_ref()], segmentation), "val", "unc"))
    assert not records
    assert [(row.file, row.record) for row in skipped] == [(tmp_path / "refs(unc).p", name) for name in ("10", "11")]
    assert all(reason in row.reason for row in skipped)


@pytest.mark.parametrize(
    ("changes", "record", "reason"),
    [
        ({"image_id": 8}, "20", "its image 8 is not in instances.json; add the image there"),
        ({"ann_id": 6}, "20", "its annotation 6 is not in instances.json; fetch both files from the same source"),
        ({"ref_id": None}, "20", "its ref_id is missing or not of type int; correct it"),
        ({"sentences": [{"sent_id": 20, "sent": " \t"}]}, "20", "its expression is empty; write one"),
        ({"sentences": [{"sent_id": 20, "raw": "dog"}]}, "20", "its sent is missing or not of type str; correct it"),
        ({"sentences": [{"sent": "dog"}]}, "a sentence of reference 2", "its sent_id is missing or not of"),
    ],
)
def test_a_bad_sentence_is_skipped_with_its_reason_and_the_others_stay(tmp_path, changes, record, reason):
    records, skipped = read(open_refer(write(tmp_path, [make_ref(2, **changes), make_ref()]), "val", "unc"))
    assert [record["record_id"] for record in records] == ["10", "11"]
    assert (skipped[0].file, skipped[0].record) == (tmp_path / "refs(unc).p", record)
    assert reason in skipped[0].reason


@pytest.mark.parametrize(
    "box", [None, [1, 2, 3], [1, 2, 0, 4], [1, 2, 3, float("nan")], [1, 10**400, 3, 4], [1, 2, "3", 4]]
)
def test_an_annotation_with_a_bad_box_is_skipped(tmp_path, box):
    annotation = {"id": 5, "image_id": 9, "segmentation": [SQUARE], "bbox": box}
    _, skipped = read(open_refer(write(tmp_path, [make_ref()], annotations=[annotation]), "val", "unc"))
    assert "its bbox is not x, y, width, height; correct it in instances.json" in skipped[0].reason


def test_an_annotation_of_another_image_is_skipped(tmp_path):
    annotation = {"id": 5, "image_id": 7, "segmentation": [SQUARE]}
    _, skipped = read(open_refer(write(tmp_path, [make_ref()], annotations=[annotation]), "val", "unc"))
    assert "its annotation 5 does not belong to image 9; correct its image_id" in skipped[0].reason


def test_a_pickle_that_calls_something_is_refused_and_nothing_is_called(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'called'}",)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / "refs(unc).p"
        path.write_bytes(pickle.dumps([make_ref(sentences=[{"sent": Hostile()}])], protocol))
        with pytest.raises(ValueError, match=r"refs\(unc\)\.p .*call (posix|nt)\.system\); fetch the official file"):
            read_refs(path)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"no pickle", pickle.dumps([make_ref()])[:-20], b"\x80\x02X\x01\x00\x00\x00aQ.", b"Pabc\n."),
        *(pickle.dumps({1, 2}, protocol=2), b"\x82\x01."),
    ],
)
def test_a_damaged_pickle_or_one_with_external_references_is_refused(tmp_path, content):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p is not a plain pickle .*; fetch the official file again"):
        read_refs(path)


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\xff", b"p4294967295\n"])
def test_a_huge_memo_index_in_a_pickle_takes_no_memory(tmp_path, put):
    content = pickle.dumps([make_ref()], protocol=2)
    (write(tmp_path, []) / "refs(unc).p").write_bytes(content[:-1] + put + b".")
    assert read_refs(tmp_path / "refs(unc).p") == [make_ref()]  # a memo array of this size would take 64 GB


@pytest.mark.parametrize("content", [{}, [1], [{}], [{"sentences": None}], [{"sentences": ["dog"]}]])
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p does not hold a list of references .*; fetch the official"):
        read_refs(path)


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "latin1"])
def test_a_pickle_of_python_2_loads(tmp_path, protocol, encoding):
    sentence = {"sent_id": 10, "sent": "a café".encode(encoding), "raw": b"it's"}
    ref = {"ref_id": 1, "ann_id": 5, "image_id": 9, "split": b"val", "sentences": [sentence]}
    content = (b"" if protocol == 0 else b"\x80\x02") + python_2_pickle([ref], protocol) + b"."
    (write(tmp_path, []) / "refs(unc).p").write_bytes(content)
    (record,), _ = read(open_refer(tmp_path, "val", "unc"))
    assert record["expression"] == "a café"


def test_an_unknown_split_or_split_by_lists_the_existing_ones(tmp_path):
    write(tmp_path, [make_ref(1, "val"), make_ref(2, "testA")])
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p has no split 'test'; choose one of testA, val$"):
        read(open_refer(tmp_path, "test", "unc"))
    for split_by in ("umd", None):
        with pytest.raises(ValueError, match=r"does not exist; set split_by to .* in refs\(unc\)\.p$"):
            read(open_refer(tmp_path, "val", split_by))
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p does not exist; put the refer files there"):
        read(open_refer(tmp_path / "elsewhere", "val", "unc"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<html>", "is not JSON .*; fetch it again"),
        ("[]", "does not hold an object; replace it with the official file"),
        ('{"images": []}', "has no list `annotations` of objects; fetch the official file again"),
        ('{"images": [1], "annotations": []}', "has no list `images` of objects; fetch the official file again"),
        ('{"images": {}, "annotations": []}', "has no list `images` of objects; fetch the official file again"),
        ('{"images": [], "annotations": [' + "[" * 1_000_000, "is not JSON .*; fetch it again"),
    ],
)
def test_damaged_instances_are_named(tmp_path, content, message):
    (write(tmp_path, [make_ref()]) / "instances.json").write_text(content)
    with pytest.raises(ValueError, match=f"instances.json {message}"):
        read(open_refer(tmp_path, "val", "unc"))
