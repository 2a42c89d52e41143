"""An evaluation excludes and counts exactly the images that the run has seen in another data set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tseg.datasets.leakage import write_images
from tseg.evaluation.score import Summary, read_summary, score_masks
from tseg.provenance import MasksProvenance, ScoresProvenance
from tseg.records import LABELS, MASKS, encode_mask, read, write

from ..provenances import masks_provenance, predictions_provenance, records_provenance, write_records

SIZE = (6, 8)
COCO_IDS = {"a": "1", "b": "2", "c": None, "d": "4"}
CLASSES = ["cat", "dog"]


class Evaluated:
    """Records of four images, two per image, and their predicted masks; called with the images that a run has seen."""

    def __init__(self, folder: Path, classes: list[str] | None):
        self.folder, self.classes = folder, classes
        split: dict[str, Any] = {"dataset": "refcoco", "split": "val", "classes": classes}
        rng = np.random.default_rng(0)
        masks = {f"{image}{number}": rng.random(SIZE) < 0.5 for image in COCO_IDS for number in range(2)}
        if classes:  # each pixel has one class
            masks |= {f"{image}1": ~masks[f"{image}0"] for image in COCO_IDS}
        write_records(folder / "val.parquet", [self.record(name, mask) for name, mask in masks.items()], **split)
        predicted = [self.prediction(name, np.roll(mask, 1, axis=0)) for name, mask in masks.items()]
        labels = {name: [name] for name in classes} if classes else None
        predictions = predictions_provenance(evaluated_on=records_provenance(**split), labels=labels)
        table = pa.Table.from_pylist(predicted, LABELS if classes else MASKS)
        write(folder / "masks.parquet", table, masks_provenance(predictions=predictions))

    def record(self, name: str, mask: np.ndarray) -> dict[str, Any]:
        ids = {"record_id": name, "image_id": name[0], "group_id": name, "coco_id": COCO_IDS[name[0]]}
        size = dict(zip(("height", "width"), SIZE, strict=True))
        named = {"expression": CLASSES[int(name[1])], "file_name": f"{name[0]}.jpg", "tags": []}
        return ids | size | named | {"mask": encode_mask(mask), "box": [0, 0, 1, 1], "ignore": None}

    def prediction(self, name: str, mask: np.ndarray) -> dict[str, Any]:
        size = dict(zip(("height", "width"), SIZE, strict=True))
        whose = {"image_id": name[0], "label": CLASSES[int(name[1])]} if self.classes else {"record_id": name} | size
        return whose | {"mask": encode_mask(mask)}

    def __call__(self, *seen: tuple[str, str, str | None], **options: Any) -> tuple[pd.DataFrame, Summary]:
        """Evaluate a run that has seen these images (dataset, image_id, coco_id); return the rows and the summary."""
        images = None
        if seen:
            images = self.folder / "images.csv"
            write_images(images, pd.DataFrame(seen, columns=["dataset", "image_id", "coco_id"]))
        summary = score_masks(
            self.folder / "masks.parquet",
            self.folder / "val.parquet",
            output=self.folder / "scores.parquet",
            summary=self.folder / "summary.json",
            num_bootstrap=20,
            images=images,
            **options,
        )
        assert read_summary(self.folder / "summary.json") == summary
        return read(self.folder / "scores.parquet", ScoresProvenance)[0], summary


@pytest.fixture
def make(tmp_path: Path) -> Callable[[list[str] | None], Evaluated]:
    return lambda classes: Evaluated(tmp_path, classes)


LEAK = [("phrasecut", "77", "2"), ("phrasecut", "78", "99"), ("phrasecut", "c", None), ("refcocog", "4", "4")]


def test_seen_images_are_excluded_and_all_other_rows_are_kept(make):
    evaluated = make(None)
    everything, _ = evaluated()
    scores, summary = evaluated(*LEAK)
    assert (summary.num_seen, summary.seen_excluded) == (2, True)
    expected = everything.loc[everything["image_id"].isin(["a", "c"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(scores, expected)
    assert (summary.num_records, summary.num_images) == (4, 2)
    assert summary.metrics["mIoU"] == pytest.approx(expected["iou"].mean())


def test_seen_images_that_are_kept_are_scored_and_counted(make):
    evaluated = make(None)
    everything, unchecked = evaluated()
    scores, summary = evaluated(*LEAK, exclude_seen=False)
    pd.testing.assert_frame_equal(scores, everything)
    assert summary == unchecked.model_copy(update={"num_seen": 2})


def test_images_seen_in_the_evaluated_data_set_itself_are_not_excluded(make):
    scores, summary = make(None)(("refcoco", "b", "2"), ("refcoco", "d", "4"))
    assert (summary.num_seen, len(scores)) == (0, 8)


def test_without_a_check_the_number_of_seen_images_is_unknown(make):
    _, summary = make(None)()
    assert summary.num_seen is None
    assert summary.seen_excluded is False


def test_label_maps_of_seen_images_are_excluded(make):
    evaluated = make(CLASSES)
    everything, _ = evaluated()
    scores, summary = evaluated(*LEAK)
    pd.testing.assert_frame_equal(
        scores, everything.loc[everything["image_id"].isin(["a", "c"])].reset_index(drop=True)
    )
    assert (summary.num_seen, summary.num_images) == (2, 2)


@pytest.mark.parametrize("classes", [None, CLASSES])
def test_a_run_that_has_seen_every_image_is_refused_before_anything_is_written(make, tmp_path, classes):
    evaluated = make(classes)
    records = pd.read_parquet(tmp_path / "val.parquet").query("coco_id == '1' or coco_id == '2'")
    write_records(tmp_path / "val.parquet", records.replace({np.nan: None}).to_dict("records"))
    with pytest.raises(ValueError, match=r"images\.csv: the run was trained on all 2 images .*--keep-seen"):
        evaluated(("voc", "x", "1"), ("phrasecut", "y", "2"))
    assert not (tmp_path / "scores.parquet").exists()


def test_masks_of_other_records_are_refused_even_if_images_are_excluded(make, tmp_path):
    evaluated = make(None)
    masks, provenance = read(tmp_path / "masks.parquet", MasksProvenance)
    table = pa.Table.from_pandas(masks.replace("a0", "z0"), preserve_index=False)
    write(tmp_path / "masks.parquet", table, provenance)
    with pytest.raises(ValueError, match="predict these records again"):
        evaluated(*LEAK)


def test_numbers_are_counts_and_metrics_by_name(make):
    _, summary = make(None)(*LEAK)
    numbers = summary.numbers()
    assert (numbers["num_seen"], numbers["num_records"], numbers["mIoU"]) == (2, 4, summary.metrics["mIoU"])
    assert all(isinstance(number, int | float) for number in numbers.values())


def test_a_file_that_is_not_a_summary_is_refused_by_name(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other\.json is not a summary .*; make it with `tseg evaluate`"):
        read_summary(tmp_path / "other.json")


def test_the_summary_file_lists_metrics_in_the_order_of_the_tables(make, tmp_path):
    _, summary = make(None)()
    assert list(read_summary(tmp_path / "summary.json").metrics) == list(summary.metrics)
    assert list(summary.metrics)[:4] == ["mIoU", "mIoU_low", "mIoU_high", "overall_IoU"]
