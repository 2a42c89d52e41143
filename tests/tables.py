"""The functions of inference, from whole tables to whole tables."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tseg.evaluation import iou
from tseg.inference import masks, predict, pseudo_labels, semantic
from tseg.inference.predict import Seen
from tseg.inference.similarities import Similarities
from tseg.model.tseg import TSEG
from tseg.records import PREDICTIONS

PIECE = 3
"""Rows of the row groups, and of the pieces of tables: several to a table."""


def predict_records(model: TSEG, records: pd.DataFrame, *, words: list[str] | None, **seen: Any) -> pa.Table:
    return pa.concat_tables(predict.predict_records(model, records, Seen(**seen), words=words))


def mask_records(records: pd.DataFrame, predictions: pd.DataFrame, rules: Any) -> pa.Table:
    return pa.concat_tables(masks.mask_records(records, similarities(predictions), rules))


def label_records(records: pd.DataFrame, predictions: pd.DataFrame, **options: Any) -> pa.Table:
    return pa.concat_tables(semantic.label_records(records, similarities(predictions), **options))


def pseudo_label_records(records: pd.DataFrame, predictions: pd.DataFrame, *options: Any) -> pd.DataFrame:
    return pseudo_labels.pseudo_label_records(records, similarities(predictions), *options)


def score_records(records: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    return iou.score_records(pieces(records), pieces(predicted))


def similarities(predictions: pd.DataFrame) -> Similarities:
    """The rows of `predict_records` in a file."""
    table = pa.Table.from_pandas(predictions[PREDICTIONS.names], PREDICTIONS, preserve_index=False)
    with TemporaryDirectory() as folder:  # a file that is open can be removed
        pq.write_table(table, Path(folder, "found.parquet"), row_group_size=PIECE)
        return Similarities(Path(folder, "found.parquet"))


def pieces(frame: pd.DataFrame) -> list[pa.RecordBatch]:
    return pa.Table.from_pandas(frame, preserve_index=False).to_batches(PIECE)
