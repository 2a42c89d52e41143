"""Figures from files show the data that the files name."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from tseg.records import MASKS, write
from tseg.reporting import draw

from ..provenances import masks_provenance

TEXTS: dict[str, Any] = {"title": "Masks", "caption": "What is seen."}


@pytest.fixture
def masks_path(records: pd.DataFrame, tmp_path: Path) -> Path:
    """The true masks, as if a model had found them."""
    table = pa.Table.from_pandas(records[MASKS.names], MASKS, preserve_index=False)
    write(tmp_path / "masks.parquet", table, masks_provenance())
    return tmp_path / "masks.parquet"


def test_the_title_names_the_data_and_each_file_is_a_column(
    monkeypatch: pytest.MonkeyPatch, masks_path: Path, records_path: Path, records: pd.DataFrame, tmp_path: Path
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(draw, "draw_masks", lambda *arguments, **options: drawn.append((arguments, options)))
    draw.mask_figure([masks_path] * 2, ["one", "two"], records_path, tmp_path / "a.png", num_panels=2, seed=0, **TEXTS)
    ((rows, columns, output), options) = drawn[0]
    assert options == {"num_panels": 2, "seed": 0, "title": "Masks: squares train (files in place)"} | {
        "caption": TEXTS["caption"]
    }
    pd.testing.assert_frame_equal(rows, records)
    assert list(columns) == ["one", "two"]
    assert columns["one"]["mask"].tolist() == records["mask"].tolist()
    assert output == tmp_path / "a.png"


@pytest.mark.parametrize("labels", [["one"], ["one", "one"]])
def test_every_file_needs_a_label_of_its_own(
    masks_path: Path, records_path: Path, tmp_path: Path, labels: list[str]
) -> None:
    with pytest.raises(ValueError, match=r"2 files need 2 different labels .*, not one"):
        draw.mask_figure([masks_path] * 2, labels, records_path, tmp_path / "a.png", num_panels=2, seed=0, **TEXTS)


def test_expressions_are_drawn_from_files(masks_path: Path, records_path: Path, tmp_path: Path) -> None:
    draw.expression_figure(masks_path, records_path, tmp_path / "a.png", num_panels=2, seed=0, **TEXTS)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_data_set_without_classes_has_no_class_figure(masks_path: Path, records_path: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"only": None, "num_panels": 2, "seed": 0} | TEXTS
    with pytest.raises(ValueError, match=r"records\.parquet has no classes; draw masks or expressions"):
        draw.class_figure([masks_path], ["one"], records_path, tmp_path / "a.png", **options)


def test_records_are_not_taken_for_masks(records_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"records\.parquet is of another kind; give a file that `tseg refine` wrote"):
        draw.expression_figure(records_path, records_path, tmp_path / "a.png", num_panels=2, seed=0, **TEXTS)
