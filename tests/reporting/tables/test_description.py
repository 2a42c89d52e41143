"""Statistics of records equal counts by hand and the overlaps of decoded masks."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tseg.records import encode_mask
from tseg.reporting.figures.datasets import draw_datasets
from tseg.reporting.tables import description
from tseg.reporting.tables.datasets import datasets_sheet, datasets_table, write_datasets
from tseg.reporting.tables.description import SplitDescription, describe_records

from ...provenances import write_records

SIZE = (10, 20)
METADATA: dict[str, Any] = {"dataset": "own", "split": "train", "sources": [], "classes": None, "num_skipped": 3}


def row(number: int, image: str, group: str, expression: str, mask: np.ndarray | None, **more: Any) -> dict[str, Any]:
    ids = {"record_id": f"r{number}", "image_id": image, "file_name": f"{image}.jpg", "group_id": group}
    size = dict(zip(("height", "width"), SIZE if mask is None else mask.shape, strict=True))
    drawn = {"mask": None if mask is None else encode_mask(mask), "box": None, "ignore": None}
    return ids | size | drawn | {"expression": expression, "tags": [], "coco_id": None} | more


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def describe(path: Path, rows: Sequence[dict[str, Any]], **facts: Any) -> SplitDescription:
    write_records(path, rows, **METADATA | facts)
    return describe_records(path)


ROWS = [
    row(0, "a", "1", "the red  Dog", rectangle(0, 0, 10, 2), coco_id="7"),  # 10 % of the image
    row(1, "b", "4", "dog", rectangle(0, 0, 1, 2)),  # 1 %
    row(2, "a", "1", "red dog", rectangle(0, 0, 10, 2), coco_id="7"),
    row(3, "a", "2", "a cat", rectangle(0, 1, 10, 5), coco_id="7"),  # 25 %, 10 pixels of the first
    row(4, "a", "3", "red dog", rectangle(0, 10, 10, 8), coco_id="7"),  # 40 %, apart
    row(5, "b", "5", "dog", None),
]


def test_counts_equal_those_made_by_hand(tmp_path: Path) -> None:
    (numbers,) = datasets_table([describe(tmp_path / "train.parquet", ROWS)]).to_dict("records")
    assert {key: value for key, value in numbers.items() if not pd.isna(value)} == {
        "dataset": "own",
        "split": "train",
        "num_images": 2,
        "num_expressions": 6,
        "num_references": 5,
        "num_left_out": 3,
        "num_of_coco": 1,
        "num_distinct_expressions": 4,
        "num_distinct_words": 5,
        "words_per_expression": pytest.approx(11 / 6),
        "expressions_per_image": 3,
        "num_masks": 5,
        "mask_percent": pytest.approx((10 + 1 + 10 + 25 + 40) / 5),
        "mask_percent_25": pytest.approx(10),
        "mask_percent_50": pytest.approx(10),
        "mask_percent_75": pytest.approx(25),
        "small_percent": pytest.approx(20),
        "large_percent": pytest.approx(40),
        "overlapping_percent": pytest.approx(60),
        "num_pairs": 1,
        "pair_iou_percent": pytest.approx(100 * 10 / 60),
    }


@pytest.mark.parametrize("num_images", [1, 3, 100])
def test_overlaps_equal_those_of_decoded_masks_for_any_number_of_images_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_images: int
) -> None:
    monkeypatch.setattr(description, "IMAGES_AT_A_TIME", num_images)
    monkeypatch.setattr(description, "BATCH_RECORDS", 4)
    rng = np.random.default_rng(0)
    masks = {(str(image), str(region)): rng.random((9, 7)) < 0.08 for image in range(5) for region in range(4)}
    keys = [key for key in masks for _ in range(rng.integers(1, 4))]
    order = rng.permutation(len(keys))
    shuffled = [keys[index] for index in order]
    rows = [row(number, *key, expression="a dog", mask=masks[key]) for number, key in enumerate(shuffled)]
    found = describe(tmp_path / "train.parquet", rows)
    ious, meeting = [], set()
    for (one, mask), (other, another) in combinations(masks.items(), 2):
        if one[0] == other[0] and (mask & another).any():
            ious.append((mask & another).sum() / (mask | another).sum())
            meeting |= {one, other}
    assert 0 < len(ious) < 30
    np.testing.assert_allclose(np.sort(found.ious), np.sort(ious))
    assert found.num_overlapping == sum(key in meeting for key in keys)
    np.testing.assert_allclose(np.sort(found.sizes), np.sort([masks[key].mean() for key in keys]))


def test_records_without_masks_have_dashes_for_mask_statistics_only(tmp_path: Path) -> None:
    unmasked = [each | {"mask": None} for each in ROWS]
    sheet = datasets_sheet([describe(tmp_path / "train.parquet", unmasked)])
    counts, words, sizes, overlap = (block.texts.loc["own train"].tolist() for block in sheet.blocks)
    assert counts == ["2", "-", "6", "-", "5", "3", "1"]
    assert words == ["4", "5", "1.83", "3.00"]
    assert sizes == ["0", *["-"] * 6]
    assert overlap == ["-"] * 3


def test_published_counts_follow_ours_and_differences_are_marked(tmp_path: Path) -> None:
    published = {"train": {"expressions": 6, "images": 3}, "val": {"expressions": 6, "images": None}}
    published |= {"testA": None, "testB": {"expressions": 7, "images": 2}}
    sources = {"testB": ["shapes-coco"]}
    sheet = datasets_sheet(
        [
            describe(tmp_path / split, ROWS, split=split, published=counts, sources=sources.get(split, []))
            for split, counts in published.items()
        ]
    )
    texts = sheet.blocks[0].texts
    assert texts["Published expressions"].tolist() == ["= 6", "= 6", "-", "≠ 7"]
    assert texts["Published images"].tolist() == ["≠ 3", "-", "-", "= 2"]
    assert sheet.notes[0].startswith("Counts differ from the published ones (≠): own train. The records")
    assert sheet.data == [
        "From files in place: own train; own val; own testA.",
        "From shapes-coco (drawn by this project and other data than is published under the name): own testB.",
    ]


def test_the_table_is_written_as_csv_markdown_and_html(tmp_path: Path) -> None:
    output = tmp_path / "results" / "datasets.csv"
    write_datasets([describe(tmp_path / "train.parquet", ROWS)], output)
    assert sorted(path.name for path in output.parent.iterdir()) == ["datasets.csv", "datasets.html", "datasets.md"]
    assert output.read_text().startswith("# From files in place: own train.\ndataset,split,num_images,")
    assert pd.read_csv(output, comment="#").loc[0, "num_expressions"] == 6
    assert "| own train | 2 | - | 6 | - | 5 | 3 | 1 |" in output.with_suffix(".md").read_text()
    assert "<td>16.67</td>" in output.with_suffix(".html").read_text()


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    twice = [describe(tmp_path / name, ROWS) for name in ("one", "two")]
    with pytest.raises(ValueError, match="own train is given 2 times"):
        datasets_sheet(twice)


def test_an_empty_file_and_a_damaged_one_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.parquet has no records"):
        describe(tmp_path / "train.parquet", [])
    (tmp_path / "other.parquet").write_text("text")
    with pytest.raises(ValueError, match=r"other\.parquet is not a complete Parquet file"):
        describe_records(tmp_path / "other.parquet")


def test_the_figure_has_a_row_per_data_set_and_each_split_sums_to_100_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: (figures.append(figure), path.touch()))
    tiny_and_long = [row(9, "c", "9", " ".join(["word"] * 50), rectangle(0, 0, 1, 1))]
    unmasked = [each | {"mask": None} for each in ROWS]
    descriptions = [
        describe(tmp_path / "train", ROWS),
        describe(tmp_path / "val", tiny_and_long, split="val"),
        describe(tmp_path / "pairs", unmasked, dataset="$pairs"),
    ]
    draw_datasets(descriptions, tmp_path / "datasets.png")
    sizes, lengths, no_sizes, _ = figures[0].axes
    assert [axes.get_title(loc="left") for axes in (sizes, no_sizes)] == ["own", "$pairs"]
    assert [text.get_text() for text in lengths.get_legend().get_texts()] == ["train", "val"]
    assert [text.get_text() for text in no_sizes.texts] == ["no masks"]
    for axes in (sizes, lengths):
        assert [curve.get_data().values.sum() for curve in axes.patches] == pytest.approx([100, 100])
    assert lengths.patches[1].get_data().values[-1] == pytest.approx(100)


def test_the_figure_is_drawn_the_same_twice(tmp_path: Path) -> None:
    descriptions = [describe(tmp_path / "train", ROWS)]
    for name in ("first.png", "second.png"):
        draw_datasets(descriptions, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
