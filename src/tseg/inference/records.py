"""Records in; similarities, then masks, out: the tables that `tseg predict` and `tseg refine` write."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from tseg.data.transforms import open_picture
from tseg.inference.masks import segment
from tseg.inference.predict import predict_similarities
from tseg.model.tseg import TSEG
from tseg.progress import progress
from tseg.records import encode_mask

PREDICTIONS = pa.schema(
    [
        ("record_id", pa.string()),
        ("grid_height", pa.int32()),  # patches
        ("grid_width", pa.int32()),
        ("similarities", pa.list_(pa.float16())),  # row by row
    ]
)
MASKS = pa.schema(
    [("record_id", pa.string()), ("mask", pa.string())]
)  # COCO compressed RLE at the picture's resolution


def predict_records(
    model: TSEG, records: pd.DataFrame, *, resolution: int, scales: Sequence[float], flip: bool
) -> pa.Table:
    """The similarities of every record, as `PREDICTIONS`, all expressions of a picture at once."""
    rows = []
    for file_name, of_picture, expressions in _pictures(records, "predict"):
        maps = predict_similarities(
            model, open_picture(file_name), expressions, resolution=resolution, scales=scales, flip=flip
        )
        for record_id, expression in zip(of_picture["record_id"], of_picture["expression"], strict=True):
            similarities = maps[expressions.index(expression)]
            values = similarities.numpy().astype(np.float16).ravel()
            rows.append(dict(zip(PREDICTIONS.names, (record_id, *similarities.shape, values), strict=True)))
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def mask_records(
    records: pd.DataFrame, predictions: pd.DataFrame, *, pooling: str, background: float, crf: str | None
) -> pa.Table:
    """The mask of every record, as `MASKS`, from the rows of `PREDICTIONS`; for the rest see `segment`.

    Raises ValueError where a record has no prediction.
    """
    missing = set(records["record_id"]) - set(predictions["record_id"])
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(records)} records have no prediction, {min(missing)} for one; "
            "predict these records again"
        )
    predictions = predictions.set_index("record_id")
    rows = []
    for file_name, of_picture, expressions in _pictures(records, "refine"):
        one_each = of_picture.drop_duplicates("expression")["record_id"]
        similarities = np.stack(
            [
                row.similarities.reshape(row.grid_height, row.grid_width)
                for row in predictions.loc[one_each].itertuples()
            ]
        )
        masks = segment(
            torch.from_numpy(similarities.astype(np.float32)),
            open_picture(file_name),
            pooling=pooling,
            background=background,
            crf=crf,
        )
        encoded = dict(zip(expressions, map(encode_mask, masks), strict=True))
        rows += [
            {"record_id": record_id, "mask": encoded[expression]}
            for record_id, expression in zip(of_picture["record_id"], of_picture["expression"], strict=True)
        ]
    return pa.Table.from_pylist(rows, schema=MASKS)


def _pictures(records: pd.DataFrame, what: str) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """Each picture's file name, records and distinct expressions, under a progress bar."""
    pictures = records.groupby("file_name", sort=False)
    for file_name, of_picture in progress(pictures, what, "pictures", pictures.ngroups):
        yield str(file_name), of_picture, list(dict.fromkeys(of_picture["expression"]))
