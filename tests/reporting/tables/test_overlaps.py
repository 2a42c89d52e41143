"""The table of overlaps counts every planted leak and has a dash for unknown counts."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tseg.reporting.tables.overlaps import count_overlaps, read_splits, report_overlaps

from ...provenances import write_records

# image_id: COCO id.
IMAGES: dict[str, dict[str, str | None]] = {
    "refcoco train": {"1": "1", "2": "2", "3": "3"},
    "phrasecut train": {"10": "8", "11": None, "12": "30"},
    "voc train": {"2007_1": None, "2007_2": None},
    "refcoco val": {"8": "8", "9": "9", "3": "3", "30": "30"},
    "phrasecut val": {"11": None, "20": "2", "21": None},
    "voc val": {"2007_3": None},
}


def write_split(folder: Path, name: str) -> Path:
    dataset, split = name.split()
    ids = [pair for pair in IMAGES[name].items() for _ in range(2)]  # two records an image
    rows: list[dict[str, Any]] = [{"image_id": image_id, "coco_id": coco_id} for image_id, coco_id in ids]
    path = folder / dataset / f"{split}.parquet"
    write_records(path, rows, dataset=dataset, split=split, sources=[f"the-{dataset}"])
    return path


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, list[Path]]:
    written = {name: write_split(tmp_path, name) for name in IMAGES}
    return {split: [path for name, path in written.items() if name.endswith(split)] for split in ("train", "val")}


def test_planted_leaks_are_counted_in_images_and_unknown_counts_are_null(paths: dict[str, list[Path]]) -> None:
    counts = count_overlaps(read_splits(paths["train"]), read_splits(paths["val"]))
    assert counts.columns.tolist() == ["refcoco val", "phrasecut val", "voc val"]
    assert counts.astype(object).where(counts.notna(), None).T.to_dict("list") == {
        "refcoco train": [1, 1, None],
        "phrasecut train": [2, 1, None],
        "voc train": [None, None, 0],
    }


def test_cells_contain_the_percentage_of_evaluated_images(paths: dict[str, list[Path]]) -> None:
    sheet = report_overlaps(paths["train"], paths["val"])
    texts = sheet.blocks[0].texts
    assert texts.loc["phrasecut train"].tolist() == ["2 (50.00%)", "1 (33.33%)", "-"]
    assert texts.loc["voc train"].tolist() == ["-", "-", "0 (0.00%)"]


def test_notes_explain_how_images_are_matched_and_which_are_excluded(paths: dict[str, list[Path]]) -> None:
    sheet = report_overlaps(paths["train"], paths["val"])
    notes = " ".join(sheet.notes)
    assert "phrasecut train 2 of 3; voc train 0 of 2; refcoco val 4 of 4; phrasecut val 1 of 3" in notes
    assert "exclude_evaluation" in notes
    assert "exclude_seen" in notes
    assert sheet.data[0] == "From the-refcoco: refcoco train; refcoco val."


def test_the_table_is_written_as_csv_markdown_and_html(paths: dict[str, list[Path]], tmp_path: Path) -> None:
    output = tmp_path / "results" / "overlaps.csv"
    report_overlaps(paths["train"], paths["val"], output)
    assert sorted(path.name for path in output.parent.iterdir()) == ["overlaps.csv", "overlaps.html", "overlaps.md"]
    table = pd.read_csv(output, comment="#", index_col=0)
    assert table.loc["phrasecut train", ["refcoco val", "refcoco val %"]].tolist() == [2, 50]
    assert "| phrasecut train | 2 (50.00%) | 1 (33.33%) | - |" in output.with_suffix(".md").read_text()
    assert "<td>2 (50.00%)</td>" in output.with_suffix(".html").read_text()


def test_a_repeated_split_is_refused(paths: dict[str, list[Path]]) -> None:
    with pytest.raises(ValueError, match="refcoco train is given 2 times"):
        read_splits([paths["train"][0], *paths["train"]])
