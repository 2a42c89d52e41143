"""Complete provenances for tests, and files of records that have one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from tseg.provenance import (
    EncoderProvenance,
    MasksProvenance,
    ModelProvenance,
    PredictionsProvenance,
    RecordsProvenance,
)
from tseg.records import RECORDS, write


def records_provenance(**changes: Any) -> RecordsProvenance:
    """Of the split squares train, or with `changes`."""
    usual: dict[str, Any] = {"dataset": "squares", "split": "train", "sources": [], "classes": None}
    return RecordsProvenance(**usual | {"num_skipped": 0, "num_images": 4, "published": None} | changes)


def model_provenance(**changes: Any) -> ModelProvenance:
    """Of a run called squares-mpa, or with `changes`."""
    usual: dict[str, Any] = {"run": "squares-mpa", "seed": 0, "supervision": "weak", "pooling": "mpa"}
    usual |= {"pooling_options": {"epsilon": 1.0, "size_lambda": 0.01, "size_power": 5.0}, "resolution": 32}
    usual |= {"image_encoder": EncoderProvenance(name="vit_tiny", options={"depth": 4}), "flip_words": "keep"}
    usual |= {"trained_on": records_provenance(), "pretrained_on": None, "num_excluded": None}
    return ModelProvenance(**usual | changes)


def predictions_provenance(**changes: Any) -> PredictionsProvenance:
    """Of similarities that the model of `model_provenance` predicted, or with `changes`."""
    usual: dict[str, Any] = {"model": model_provenance(), "evaluated_on": records_provenance(split="val")}
    return PredictionsProvenance(**usual | {"resolution": 32, "scales": [1.0], "flip": False, "labels": None} | changes)


def masks_provenance(**changes: Any) -> MasksProvenance:
    """Of masks made of the similarities of `predictions_provenance`, or with `changes`."""
    usual = {"predictions": predictions_provenance(), "crf": None, "background": 0.2}
    return MasksProvenance(**usual | {"comparison": "foreground probability > 0.5"} | changes)


def write_records(path: Path, rows: Iterable[dict[str, Any]], **changes: Any) -> None:
    """Write rows of `RECORDS` with the provenance `records_provenance(**changes)`."""
    write(path, pa.Table.from_pylist(list(rows), schema=RECORDS), records_provenance(**changes))
