"""Each file that a command writes has a note of what made it, and `tseg explain` follows the notes."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tseg.lineage import note_path, read_note, versions, warnings_of

PREPARE = ["prepare", "mine", "train", "--settings", "-", "--output", "out/train.parquet"]


def tseg(folder: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tseg", *words]
    return subprocess.run(command, cwd=folder, input=stdin, text=True, capture_output=True, check=False)


def write_captions(folder: Path, *names: str) -> str:
    """A split of own data with a white image, a row for each of `names`; its settings."""
    from PIL import Image

    Image.new("RGB", (8, 8), "white").save(folder / "a.png")
    (folder / "train.csv").write_text("image,phrase\n" + "".join(f"{name},a thing\n" for name in names))
    return json.dumps(
        {"format": "pairs", "annotations": ".", "images": ["."], "sources": [], "train": "train", "evaluation": "train"}
    )


def test_a_note_says_what_made_a_file_and_from_what(tmp_path: Path) -> None:
    settings = write_captions(tmp_path, "a.png")
    done = tseg(tmp_path, *PREPARE, stdin=settings)
    assert done.returncode == 0, done.stderr
    for name in ("train.parquet", "train.skipped.csv"):
        note = read_note(tmp_path / "out" / name)
        assert note is not None
        assert note.command == ["tseg", *PREPARE] and note.stdin == settings and note.folder == str(tmp_path)
        assert note.sha256 == hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
        assert note.inputs == {"train.csv": hashlib.sha256((tmp_path / "train.csv").read_bytes()).hexdigest()}
        assert note.versions == versions() and {"python", "tseg", "torch", "pillow"} <= set(note.versions)
        assert note.revision == "unknown" and note.warnings == [] and note.machine["host"]


def test_the_same_command_gives_the_same_bytes_and_only_another_note(tmp_path: Path) -> None:
    settings = write_captions(tmp_path, "a.png")
    made = []
    for _ in range(2):
        assert tseg(tmp_path, *PREPARE, stdin=settings).returncode == 0
        made.append((tmp_path / "out/train.parquet").read_bytes())
    assert made[0] == made[1]


def test_a_command_that_fails_leaves_no_note(tmp_path: Path) -> None:
    settings = write_captions(tmp_path, "missing.png")
    done = tseg(
        tmp_path, "prepare", "mine", "train", "--settings", "-", "--output", "out/train.parquet", stdin=settings
    )
    assert done.returncode == 1
    assert not (tmp_path / "out/.made").exists()


def test_what_is_left_out_is_a_warning_that_outlives_the_command(tmp_path: Path) -> None:
    settings = write_captions(tmp_path, "a.png", *(f"missing{number}.png" for number in range(200)))
    done = tseg(
        tmp_path, "prepare", "mine", "train", "--settings", "-", "--output", "out/train.parquet", stdin=settings
    )
    assert done.returncode == 0
    (warning, files), *rest = warnings_of(tmp_path).items()
    assert "1 records of 1 images; 200 skipped, listed in out/train.skipped.csv" in warning and not rest
    assert files == [tmp_path / "out/train.parquet", tmp_path / "out/train.skipped.csv"]
    assert warning in done.stdout
    (tmp_path / "out/train.parquet").unlink()
    note_path(tmp_path / "out/train.skipped.csv").write_text("{}")  # of another version
    assert warnings_of(tmp_path) == {}


@pytest.mark.parametrize("change", ["train.csv", "out/train.parquet", None])
def test_the_ancestry_names_a_file_that_was_changed(tmp_path: Path, change: str | None) -> None:
    settings = write_captions(tmp_path, "a.png")
    tseg(tmp_path, *PREPARE, stdin=settings)
    described = tseg(tmp_path, "describe", "out/train.parquet", "--output", "out/datasets.csv")
    assert described.returncode == 0, described.stderr
    if change:
        with (tmp_path / change).open("ab") as file:
            file.write(b"\n")
    told = tseg(tmp_path, "explain", "out/datasets.csv").stdout
    lines = {line.split("sha256")[0].strip(" │├└─"): line for line in told.splitlines()}
    assert {"out/train.parquet", "train.csv"} <= set(lines)
    for name in ("train.csv", "out/train.parquet"):
        assert ("was changed since" in lines[name]) == (name == change)
    assert f"  alone: tseg describe out/train.parquet --output out/datasets.csv\n  in {tmp_path}\n" in told
    elsewhere = tseg(tmp_path.parent, "explain", str(tmp_path / "out/datasets.csv")).stdout
    assert "is missing" not in elsewhere and "train.csv" in elsewhere


def test_a_file_without_a_note_and_a_wrong_cell_are_named(tmp_path: Path) -> None:
    settings = write_captions(tmp_path, "a.png")
    tseg(tmp_path, *PREPARE, stdin=settings)
    assert "train.csv has no note of what made it" in tseg(tmp_path, "explain", "train.csv").stderr
    told = tseg(tmp_path, "explain", "out/train.parquet", "--row", "TSEG").stderr
    assert told == "tseg: out/train.parquet is no table; leave out --row and --column\n"
    assert tseg(tmp_path, "explain", "none.csv").stderr.startswith("tseg: none.csv does not exist; name a file")


def test_a_note_that_cannot_be_written_fails_no_command(tmp_path: Path) -> None:
    settings = write_captions(tmp_path, "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.made").touch()
    done = tseg(tmp_path, *PREPARE, stdin=settings)
    assert done.returncode == 0
    assert "tseg: warning: no note of what made them could be written: " in done.stderr
    assert (tmp_path / "out/train.parquet").exists()
