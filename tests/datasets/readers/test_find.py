"""Files whose names are spelt otherwise on the disk than in an annotation."""

import os
import unicodedata
from pathlib import Path

import pytest

from tseg.datasets.readers.annotations import RecordError
from tseg.datasets.readers.find import find_file

HINT = "add it"


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        ("1.jpg", "1.JPG"),
        ("IMG_1.JPG", "img_1.jpg"),
        ("Beach/IMG_1.JPG", "beach/img_1.jpg"),
        ("my dog.jpg", "my\u00a0dog.jpg"),
        ("my dog.jpg", "my  dog.jpg"),
        ("dog.jpg", "\ufeffdog.jpg"),
        ("dog.jpg", "dog\u200b.jpg"),
        (unicodedata.normalize("NFD", "süd/Äpfel.jpg"), unicodedata.normalize("NFC", "süd/Äpfel.jpg")),
        (unicodedata.normalize("NFC", "Äpfel.jpg"), unicodedata.normalize("NFD", "äpfel.JPG")),
    ],
)
def test_a_file_is_found_if_only_one_is_spelt_alike(tmp_path: Path, on_disk: str, written: str) -> None:
    put(tmp_path, on_disk, "other.jpg")
    assert find_file(written, [tmp_path], HINT) == (tmp_path / on_disk, on_disk)


def test_a_file_of_exactly_the_name_wins_in_any_folder(tmp_path: Path) -> None:
    put(tmp_path, "one/a.JPG", "two/a.jpg", "one/B.jpg", "one/b.jpg")
    folders = [tmp_path / "one", tmp_path / "two"]
    assert find_file("a.jpg", folders, HINT)[0] == tmp_path / "two/a.jpg"
    assert find_file("b.jpg", folders, HINT)[0] == tmp_path / "one/b.jpg"
    assert find_file("A.jpg", folders, HINT)[0] == tmp_path / "one/a.JPG"


def test_two_files_that_are_spelt_alike_are_both_named(tmp_path: Path) -> None:
    put(tmp_path, "UP.jpg", "up.jpg")
    with pytest.raises(RecordError, match=r"could be UP\.jpg and up\.jpg in .*; write the name of one of them exactly"):
        find_file("Up.JPG", [tmp_path], HINT)


def test_a_missing_file_names_all_folders_and_the_fix(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    for name in ("a.jpg", "A.jpg", "b.jpg", "b/c.jpg", "", "."):
        with pytest.raises(RecordError, match=rf"is in none of {tmp_path}, {tmp_path}/more; add it"):
            find_file(name, [tmp_path, tmp_path / "more"], HINT)


def test_a_file_that_is_added_later_is_found(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    with pytest.raises(RecordError):
        find_file("B.jpg", [tmp_path], HINT)
    put(tmp_path, "b.jpg")
    os.utime(tmp_path, ns=(0, tmp_path.stat().st_mtime_ns + 10**9))  # as after a while
    assert find_file("B.jpg", [tmp_path], HINT)[1] == "b.jpg"
