"""The commands `tseg describe` and `tseg overlap`."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tseg.cli import app
from tseg.records import encode_mask

from ..provenances import write_records


def tseg(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the records of two splits; each has one image, with the same COCO id."""
    for split in ("train", "val"):
        ids = {"record_id": "r", "image_id": split, "group_id": "g", "file_name": "a.jpg", "coco_id": "9"}
        drawn = {"mask": encode_mask(np.eye(4, dtype=bool)), "height": 4, "width": 4, "expression": "a [red] line"}
        write_records(tmp_path / "own" / f"{split}.parquet", [ids | drawn], dataset="own", split=split)
    (tmp_path / "own" / "train.skipped.csv").write_text("file,record,reason\n")
    return tmp_path / "own"


def test_a_folder_stands_for_all_its_records_and_without_output_nothing_is_written(folder: Path) -> None:
    before = sorted(folder.parent.rglob("*"))
    printed = tseg("describe", folder)
    assert printed == tseg("describe", folder / "train.parquet", folder / "val.parquet")
    assert "| own train | 1 | - | 1 | - | 1 | 0 | 1 |" in printed.splitlines()
    assert "| own val | 1 | 25.00 | 25.00 | 25.00 | 25.00 | 0.00 | 100.00 |" in printed.splitlines()
    assert sorted(folder.parent.rglob("*")) == before


def test_output_is_a_table_in_three_formats_and_an_image(folder: Path, tmp_path: Path) -> None:
    tseg("describe", folder, "--output", tmp_path / "results" / "datasets.csv")
    written = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert written == ["datasets.csv", "datasets.html", "datasets.md", "datasets.png"]


def test_overlap_finds_the_image_that_both_splits_have(folder: Path, tmp_path: Path) -> None:
    splits = ["--train", folder / "train.parquet", "--evaluation", folder / "val.parquet"]
    printed = tseg("overlap", *splits, "--output", tmp_path / "results" / "overlaps.csv")
    assert "| own train | 1 (100.00%) |" in printed.splitlines()
    assert "own train,1,100.00" in (tmp_path / "results" / "overlaps.csv").read_text()


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no records; make them with `tseg prepare`"):
        tseg("describe", tmp_path)


@pytest.mark.parametrize("command", ["describe", "overlap"])
def test_help_names_the_contents_and_the_files(command: str) -> None:
    shown = " ".join(tseg(command, "--help").split())
    assert ".csv" in shown
    assert "COCO" in shown or "published" in shown
