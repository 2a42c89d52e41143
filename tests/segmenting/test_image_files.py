"""`tseg segment`: which files it finds, what it writes, and what becomes of files that fail."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tseg import Segmenter
from tseg.segmenting.image_files import all_phrases, find_images, segment_files


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of one name in two folders, of one stem and two formats, and a text."""
    generator = np.random.default_rng(0)
    for name in ("x/p.jpg", "y/p.jpg", "a.jpg", "a.png", "no.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "no.txt":
            path.write_text("no image")
        else:
            Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def names(*sources: Path | str) -> list[str]:
    return [str(file.name) for file in find_images([str(source) for source in sources])]


def test_folders_and_patterns_give_each_image_once_by_its_path_below_the_common_folder(photos: Path) -> None:
    everything = ["a.jpg", "a.png", "x/p.jpg", "y/p.jpg"]
    assert names(photos) == names(photos, photos / "a.png", f"{photos}/*/../a.jpg") == everything
    assert names(photos / "y/p.jpg", photos / "x/p.jpg") == ["y/p.jpg", "x/p.jpg"]
    assert names(f"{photos}/**/p.jpg") == ["x/p.jpg", "y/p.jpg"]
    assert names(photos / "x/p.jpg") == ["p.jpg"]
    assert names(photos / "no.txt") == ["no.txt"]  # who names a file means it


def test_what_an_earlier_call_wrote_is_no_image_to_segment(photos: Path) -> None:
    found = find_images([str(photos), f"{photos}/*/*.jpg"], photos / "x")
    assert [str(file.name) for file in found] == ["a.jpg", "a.png", "y/p.jpg"]
    with pytest.raises(ValueError, match=r"there is no such image outside of .*photos; correct its path"):
        find_images([f"{photos}/*.jpg"], photos)
    with pytest.raises(ValueError, match=r"the masks of .*a\.jpg would go to .*a\.jpg, a file; choose another"):
        find_images([str(photos / "a.jpg")], photos)


def test_a_link_keeps_its_name_and_only_what_can_be_read_is_taken_from_a_folder(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "cat.jpg").symlink_to(photos / "a.jpg")
    (folder / "dog.jpg").symlink_to(photos / "a.png")
    (folder / "page.pdf").write_text("Pillow writes these, and reads none")
    assert names(folder) == ["cat.jpg", "dog.jpg"]


def test_a_phrase_that_cannot_be_asked_stops_everything(
    segmenter: Segmenter, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(phrases: list[str]) -> list[str]:
        raise ValueError(f"{phrases[0]!r} is not a class of this model")

    monkeypatch.setattr(segmenter.model.text_encoder, "forward", refuse)
    with pytest.raises(ValueError, match="'horse' is not a class of this model"):
        segment_files(segmenter, find_images([str(photos)]), ["horse"], output=None)


@pytest.mark.parametrize("source", ["absent.jpg", "*.gif", "red circle"])
def test_a_source_without_images_is_refused(photos: Path, source: str) -> None:
    with pytest.raises(ValueError, match="there is no such image; correct its path, and give phrases by --phrase"):
        find_images([str(photos / "a.jpg"), str(photos / source)])
    (photos / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is a folder without images"):
        find_images([str(photos / "empty")])


def test_phrases_come_from_options_and_from_lines(tmp_path: Path) -> None:
    (tmp_path / "phrases.txt").write_text("\ufeffred square\n\n  cat \nred  square\n", encoding="utf-8")
    assert all_phrases(["dog", "cat"], tmp_path / "phrases.txt") == ["dog", "cat", "red square"]
    (tmp_path / "photo.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"photo\.txt is no text in UTF-8"):
        all_phrases([], tmp_path / "photo.txt")
    with pytest.raises(ValueError, match=r"absent\.txt does not exist"):
        all_phrases([], tmp_path / "absent.txt")


def test_one_failing_image_does_not_stop_the_others(segmenter: Segmenter, photos: Path, tmp_path: Path) -> None:
    (photos / "b.jpg").write_bytes(b"no image")
    files = find_images([str(photos)])
    found = segment_files(segmenter, files, ["red square", "cat"], output=tmp_path / "out", heatmaps=True)
    assert (
        len(found.failures) == 1 and "b.jpg cannot be read as an image: the image is of no format" in found.failures[0]
    )
    for file in files:
        if file.name != Path("b.jpg"):
            expected = segmenter(file.path, ["red square", "cat"]).masks
            folder = tmp_path / "out" / file.name
            assert {path.name for path in folder.iterdir()} >= {"1-red-square.png", "2-cat.png", "2-cat-heatmap.png"}
            np.testing.assert_array_equal(np.asarray(Image.open(folder / "2-cat.png")), expected[1])


def tseg(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tseg", "segment", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_the_command_writes_masks_and_coco_and_tells_by_its_status_that_an_image_failed(
    save: Callable[..., Path], photos: Path, tmp_path: Path
) -> None:
    model = str(save())
    done = tseg("a.jpg", "y/p.jpg", "--phrase", "cat", "--phrase", "red square", "--model", model, cwd=photos)
    assert done.returncode == 0, done.stderr
    assert sorted(str(path.relative_to(photos)) for path in photos.glob("segmented/**/*.png")) == [
        f"segmented/{name}/{file}.png" for name in ("a.jpg", "y/p.jpg") for file in ("1-cat", "2-red-square", "overlay")
    ]
    assert "a.jpg: cat, " in done.stdout and "masks and overlays are in segmented" in done.stdout

    (tmp_path / "phrases.txt").write_text("cat\ndog\n")
    (photos / "b.jpg").write_text("no image")
    options = ["--phrases", str(tmp_path / "phrases.txt"), "--model", str(tmp_path), "--threads", "1"]
    done = tseg("b.jpg", "x", "a.png", *options, "--json", "-", cwd=photos)
    assert done.returncode == 3
    assert "tseg: 1 of 3 images failed:\nb.jpg cannot be read as an image" in done.stderr
    coco = json.loads(done.stdout)
    (tmp_path / "coco.json").write_text(done.stdout)
    assert [each["file_name"] for each in coco["images"]] == ["x/p.jpg", "a.png"]
    opened = COCO(str(tmp_path / "coco.json"))
    expected = Segmenter.from_pretrained(tmp_path)(photos / "a.png", ["cat", "dog"]).masks
    (image_id,) = (each["id"] for each in coco["images"] if each["file_name"] == "a.png")
    annotations = opened.loadAnns(opened.getAnnIds(imgIds=[image_id]))
    np.testing.assert_array_equal([opened.annToMask(each) for each in annotations], expected)
    assert [opened.cats[each["category_id"]]["name"] for each in annotations] == ["cat", "dog"]
