from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tseg.datasets.readers.annotations import Skipped
from tseg.datasets.readers.voc import open_voc
from tseg.records import decode_mask

CLASSES = ["cat", "dog", "potted plant"]


def make_labels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([0, 1, 3, 255], np.uint8), (30, 40))


def write(folder: Path, labels: dict[str, np.ndarray], **lists: str) -> Path:
    """Write VOC's folder: a greyscale mask per name, and the lists. Default: the list `val` of all names."""
    lists_dir = folder / "ImageSets" / "Segmentation"
    lists_dir.mkdir(parents=True)
    (folder / "masks").mkdir()
    for split, content in (lists or {"val": "\n".join(labels)}).items():
        (lists_dir / f"{split}.txt").write_text(content)
    for name, values in labels.items():
        Image.fromarray(values).save(folder / "masks" / f"{name}.png")
    return folder


def read(folder: Path, split: str = "val", **changes) -> tuple[list[dict], list[Skipped]]:
    opened = open_voc(folder, split, **({"masks": [folder / "masks"], "classes": CLASSES} | changes))
    found = [record for line in opened.items for record in opened.read(line)]
    skipped = [record for record in found if isinstance(record, Skipped)]
    return [record for record in found if not isinstance(record, Skipped)], skipped


def names(records: list[dict]) -> list[str]:
    return list(dict.fromkeys(record["image_id"] for record in records))


def test_each_class_in_a_mask_is_a_record_and_void_is_not_a_class(tmp_path):
    labels = make_labels()
    records, skipped = read(write(tmp_path, {"2007_000001": labels}))
    assert not skipped
    assert [record["expression"] for record in records] == ["cat", "potted plant"]
    for record, value in zip(records, (1, 3), strict=True):
        np.testing.assert_array_equal(decode_mask(record["mask"], 30, 40), labels == value)
        np.testing.assert_array_equal(decode_mask(record["ignore"], 30, 40), labels == 255)
        y, x = np.nonzero(labels == value)
        assert record["box"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]


def test_a_record_has_the_values_of_its_image(tmp_path):
    (record,), _ = read(write(tmp_path, {"2007_000001": np.full((30, 40), 2, np.uint8)}))
    assert record["record_id"] == record["group_id"] == "2007_000001/dog"
    assert (record["image_id"], record["file_name"]) == ("2007_000001", "2007_000001.jpg")
    assert (record["height"], record["width"]) == (30, 40)
    assert record["ignore"] is record["coco_id"] is None
    assert record["tags"] == []


def test_records_keep_the_order_of_the_lists_and_a_sum_of_splits_reads_both(tmp_path):
    write(tmp_path, {name: make_labels() for name in "abc"}, val="c\r\n\na \n", train="b\n")
    assert names(read(tmp_path)[0]) == ["c", "a"]
    assert names(read(tmp_path, "train+val")[0]) == ["b", "c", "a"]


def test_the_first_folder_that_has_a_mask_wins(tmp_path):
    write(tmp_path, {"a": np.full((3, 4), 1, np.uint8), "b": np.full((3, 4), 1, np.uint8)})
    (tmp_path / "cls").mkdir()
    savemat(tmp_path / "cls" / "b.mat", {"GTcls": {"Segmentation": np.full((3, 4), 2, np.uint8)}})
    for folders, expected in (("masks", "cls"), ["cat", "cat"]), (("nowhere", "cls", "masks"), ["cat", "dog"]):
        records, _ = read(tmp_path, masks=[tmp_path / folder for folder in folders])
        assert [record["expression"] for record in records] == expected


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.zeros((3, 4)), "its mask contains no class; remove the image from the list"),
        (np.array([[0, 255]]), "its mask contains no class; remove the image from the list"),
        (np.array([[0, 3, 4, 255]]), "its mask has the value 4, but 3 classes exist; correct the mask"),
        (np.full((3, 4), 254), "its mask has the value 254, but 3 classes exist; correct the mask"),
    ],
)
def test_an_image_with_a_bad_mask_is_skipped_and_the_others_stay(tmp_path, labels, reason):
    records, (skipped,) = read(write(tmp_path, {"bad": labels.astype(np.uint8), "good": make_labels()}))
    assert names(records) == ["good"]
    assert skipped == (tmp_path / "masks" / "bad.png", "bad", reason)


def test_a_mask_that_cannot_be_read_is_skipped(tmp_path):
    write(tmp_path, {"bad": make_labels(), "good": make_labels()})
    path = tmp_path / "masks" / "bad.png"
    path.write_bytes(path.read_bytes()[:100])
    records, (skipped,) = read(tmp_path)
    assert names(records) == ["good"]
    assert (skipped.file, skipped.record) == (path, "bad")
    assert skipped.reason.startswith("its mask cannot be read")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("absent", "its mask is in none of {folder}/masks; fetch it into one of them"),
        (
            "/JPEGImages/good.jpg /masks/good.png",
            "it is not the name of an image; write one name per line, without folder",
        ),
        ("../masks/good", "it is not the name of an image; write one name per line, without folder or suffix"),
        ("x" * 1000, "it is not the name of an image; write one name per line, without folder or suffix"),
        ("good", "an earlier line names the same image; remove one of the lines"),
    ],
)
def test_a_line_that_names_no_new_image_with_a_mask_is_skipped(tmp_path, line, reason):
    records, (skipped,) = read(write(tmp_path, {"good": make_labels()}, val=f"good\n{line}\n"))
    assert names(records) == ["good"]
    assert (skipped.file, skipped.record) == (tmp_path / "ImageSets/Segmentation/val.txt", line)
    assert skipped.reason.startswith(reason.format(folder=tmp_path))


def test_an_image_that_two_splits_share_is_read_once(tmp_path):
    records, (skipped,) = read(write(tmp_path, {"a": make_labels(), "b": make_labels()}, x="a\nb", y="b"), "x+y")
    assert len(records) == 4
    assert (skipped.file.name, skipped.record) == ("y.txt", "b")


def test_an_unknown_split_lists_the_existing_splits(tmp_path):
    write(tmp_path, {}, train="a", val="b")
    with pytest.raises(ValueError, match=r"test\.txt does not exist; choose one of train, val; train_aug needs SBD's"):
        read(tmp_path, "test")
    with pytest.raises(ValueError, match=r"val\.txt does not exist; put VOC's lists there"):
        read(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no image; put the official list there"),
        (b" \r\n\n", "names no image; put the official list there"),
        ("a\nb".encode("utf-16"), r"is not text \(.*\); put the official list there"),
    ],
)
def test_a_list_without_names_is_an_error(tmp_path, content, message):
    (write(tmp_path, {}) / "ImageSets/Segmentation/val.txt").write_bytes(content)
    with pytest.raises(ValueError, match=f"val.txt {message}"):
        read(tmp_path)


@pytest.fixture
def augmented(tmp_path: Path) -> dict:
    """Write VOC's lists without train_aug, and SBD's folder; return the arguments of `read`."""
    write(tmp_path / "voc", {name: make_labels() for name in ("v1", "b2")}, train="v1\nb2\n", val="v3\nb3\n")
    cls = tmp_path / "sbd" / "cls"
    cls.mkdir(parents=True)
    for name in ("b1", "b2", "b3", "b4"):
        savemat(cls / f"{name}.mat", {"GTcls": {"Segmentation": np.full((3, 4), 2, np.uint8)}})
    (tmp_path / "sbd" / "train.txt").write_text("b4\nb3\n")
    (tmp_path / "sbd" / "val.txt").write_text("b2\nb1\n")
    return {"folder": tmp_path / "voc", "split": "train_aug", "masks": [cls, tmp_path / "voc" / "masks"]}


def test_train_aug_is_train_of_voc_and_all_of_sbd_without_val_of_voc(augmented):
    records, skipped = read(**augmented)
    assert names(records) == ["b1", "b2", "b4", "v1"]
    assert [record["expression"] for record in records if record["image_id"] == "b2"] == ["dog"]  # SBD's mask
    assert not skipped


def test_an_existing_list_of_train_aug_is_used(augmented):
    (augmented["folder"] / "ImageSets/Segmentation/train_aug.txt").write_text("v1\nb4\n")
    assert names(read(**augmented)[0]) == ["v1", "b4"]


def test_train_aug_names_the_list_of_a_skipped_image(augmented):
    augmented["masks"][0].joinpath("b4.mat").unlink()
    _, (skipped,) = read(**augmented)
    assert (skipped.file, skipped.record) == (augmented["masks"][0].parent / "train.txt", "b4")


@pytest.mark.parametrize("name", ["voc/ImageSets/Segmentation/train.txt", "sbd/train.txt", "sbd/val.txt"])
def test_train_aug_needs_every_list(augmented, tmp_path, name):
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{name} does not exist; put the official list there"):
        read(**augmented)


def test_train_aug_is_never_derived_without_the_list_of_validation_images(augmented):
    (augmented["folder"] / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(ValueError, match=r"val\.txt does not exist; put the official list there"):
        read(**augmented)


def test_train_aug_without_sbd_and_without_its_list_is_an_error(augmented):
    with pytest.raises(ValueError, match=r"train_aug\.txt does not exist; .*train_aug needs SBD's folder cls"):
        read(**augmented | {"masks": augmented["masks"][1:]})
