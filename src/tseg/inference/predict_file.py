"""`tseg predict`: from a model and records to similarities, from files to files."""

from collections.abc import Sequence
from pathlib import Path

import torch

from tseg.encoding.encode import open_tokens
from tseg.inference.predict import Seen, predict_records
from tseg.model.device import compute_in
from tseg.model.tseg import load_model
from tseg.parts import in_parts
from tseg.provenance import PredictionsProvenance
from tseg.records import PREDICTIONS, read_columns, write_tables
from tseg.settings.encodings import WholeViews
from tseg.settings.validation import check_known

PRECISIONS = ("float32", "bfloat16")
"""What encoders can compute in."""


def predict_file(
    model: Path,
    records: Path,
    output: Path,
    *,
    resolution: int,
    scales: Sequence[float],
    flip: bool,
    window: int | None,
    precision: str = "float32",
    labels: dict[str, list[str]] | None,
    patches: Path | None = None,
    device: torch.device,
    num_threads: int = 1,
) -> None:
    """Write the similarities, float16, of every image of `records` to its expressions or to the words of `labels`.

    `labels` maps each class to its words; None for a data set without classes, and to ask each image for its own
    classes alone. `patches` are the tokens of the images, if the image encoder is frozen. For `resolution`, `scales`,
    `flip`, `window` and `precision` see `predict.Seen`. Raises ValueError if the precision is unknown, if `labels` is
    empty or the data set has no classes to label, or if the tokens belong to another encoder or other views.
    """
    check_known(precision, PRECISIONS, "precision: there is no")
    loaded, trained = load_model(model)
    rows, evaluated_on = read_columns(records, ["image_id", "file_name", "height", "width", "expression"])
    if labels == {}:
        raise ValueError("--labels names no class; name each with its words, or leave --labels out")
    if labels is not None and evaluated_on.classes is None:
        raise ValueError(f"{records}: the data set has no classes; leave out --labels")
    views = WholeViews(resolution=resolution, scales=list(scales), flip=flip)
    if patches and window:
        raise ValueError("--window: tokens are of whole images; leave out --patches")
    words = None if labels is None else list(dict.fromkeys(word for of_class in labels.values() for word in of_class))
    seen = Seen(resolution, scales, flip, trained.flip_words, window, compute_in(precision))
    provenance = PredictionsProvenance(
        model=trained,
        evaluated_on=evaluated_on,
        resolution=resolution,
        scales=list(scales),
        flip=flip,
        window=window,
        precision=precision,
        labels=labels,
    )
    with in_parts(
        output, f"{__name__}.predict_file", model, records, patches, how=provenance.to_json(), device=device.type
    ) as parts:
        similarities = predict_records(
            loaded.to(device),
            rows,
            seen,
            words=words,
            patches=open_tokens(patches, loaded.image_encoder, views) if patches else None,
            parts=parts,
            num_threads=num_threads,
        )
        write_tables(output, PREDICTIONS, similarities, provenance)
