"""Complete provenances for tests, and files of records with a provenance."""

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
    """The provenance of the split train of the data set squares, with `changes`."""
    usual: dict[str, Any] = {"dataset": "squares", "split": "train", "sources": [], "classes": None}
    return RecordsProvenance(**usual | {"num_skipped": 0, "num_images": 4, "published": None} | changes)


def model_provenance(**changes: Any) -> ModelProvenance:
    """The provenance of a model of the run squares-mpa, with `changes`."""
    usual: dict[str, Any] = {"run": "squares-mpa", "seed": 0, "supervision": "weak", "pooling": "mpa"}
    usual |= {"pooling_options": {"epsilon": 1.0, "size_lambda": 0.01, "size_power": 5.0}, "resolution": 32}
    usual |= {"image_encoder": EncoderProvenance(name="vit_tiny", options={"depth": 4}), "flip_words": "keep"}
    usual |= {"trained_on": records_provenance(), "pretrained_on": None, "num_excluded": None}
    return ModelProvenance(**usual | changes)


def predictions_provenance(**changes: Any) -> PredictionsProvenance:
    """The provenance of similarities from the model of `model_provenance`, with `changes`."""
    usual: dict[str, Any] = {"model": model_provenance(), "evaluated_on": records_provenance(split="val")}
    usual |= {"resolution": 32, "scales": [1.0], "flip": False, "window": None, "precision": "float32", "labels": None}
    return PredictionsProvenance(**usual | changes)


def masks_provenance(**changes: Any) -> MasksProvenance:
    """The provenance of masks from the similarities of `predictions_provenance`, with `changes`."""
    usual: dict[str, Any] = {"predictions": predictions_provenance(), "crf": None, "crf_backend": "lattice"}
    usual |= {"crf_background": None, "background": 0.2, "exclusive_activations": True, "threshold": "fixed"}
    return MasksProvenance(**usual | {"comparison": "foreground probability > 0.5"} | changes)


def write_records(path: Path, rows: Iterable[dict[str, Any]], **changes: Any) -> None:
    """Write rows of `RECORDS` with the provenance `records_provenance(**changes)`."""
    write(path, pa.Table.from_pylist(list(rows), schema=RECORDS), records_provenance(**changes))
