"""Score masks against records: a row each, and a summary with its provenance."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tseg.datasets.leakage import read_images, read_records_images, shared_images
from tseg.evaluation.iou import TRUTH, score_records, summarise_records
from tseg.evaluation.subsets import summarise_subsets
from tseg.evaluation.voc_miou import score_labels, summarise_labels
from tseg.files import atomic_write, require_file
from tseg.parts import Parts, in_parts
from tseg.provenance import (
    FrozenModel,
    MasksProvenance,
    ModelProvenance,
    PredictionsProvenance,
    RecordsProvenance,
    ScoresProvenance,
)
from tseg.records import (
    CONFUSIONS,
    MASKS,
    SCORES,
    check_columns,
    read,
    read_columns,
    read_pieces,
    read_provenance,
    read_records,
    write,
)
from tseg.settings.validation import parse


class Summary(FrozenModel):
    """The metrics of an evaluation, and the provenance of the masks."""

    masks: MasksProvenance
    metrics: dict[str, float]
    """Name to value in [0, 1], in the order of the tables; mIoU and its interval come first."""
    num_images: int
    num_records: int | None = None
    """Records with a true mask; like the next two fields, None for label maps."""
    num_without_mask: int | None = None
    """Records without a true mask, which have no score."""
    subsets: dict[str, dict[str, float | int]] | None = None
    """Tag to the mIoU and num_records of its records."""
    classes: dict[str, float | None] | None = None
    """Class to its IoU, the background first; None if neither truth nor prediction has the class."""
    num_seen: int | None = None
    """Images that the run was trained on as part of another data set; None if this was not checked."""
    seen_excluded: bool = False
    """Whether those images are excluded."""

    @property
    def predictions(self) -> PredictionsProvenance:
        """How the similarities were predicted."""
        return self.masks.predictions

    @property
    def model(self) -> ModelProvenance:
        """How the model was trained."""
        return self.predictions.model

    def numbers(self) -> dict[str, float]:
        """Metrics and counts by name."""
        counts = {"num_records", "num_images", "num_without_mask", "num_seen"}
        return self.metrics | self.model_dump(include=counts, exclude_none=True)

    def metric(self, name: str) -> float | None:
        """The metric with a dotted name (mIoU, subsets.c20, classes.cat), in [0, 1]; None if no record belongs to it.

        Raises ValueError if there is no such metric.
        """
        group, _, member = name.partition(".")
        if name in self.metrics:
            return self.metrics[name]
        if group == "subsets" and member and self.subsets is not None:  # an empty subset is not listed
            return self.subsets[member]["mIoU"] if member in self.subsets else None
        if group == "classes" and self.classes is not None and member in self.classes:
            return self.classes[member]
        raise ValueError(f"no metric is called {name}; choose one of {', '.join(self.metrics)}, subsets or classes")


def read_summary(path: Path) -> Summary:
    """Read a summary of `score_masks`. Raises ValueError if the file is missing or of another kind or version."""
    hint = "make it with `tseg evaluate`"
    text = require_file(path, hint).read_text(encoding="utf-8")
    try:
        return parse(Summary, json.loads(text), "its content")
    except ValueError as error:
        raise ValueError(f"{path} is not a summary of this version ({error}); {hint}") from None


def score_masks(
    masks: Path,
    records: Path,
    *,
    output: Path,
    summary: Path,
    num_bootstrap: int,
    images: Path | None = None,
    exclude_seen: bool = True,
) -> Summary:
    """Score the masks in the file `masks` against `records`: write rows to `output` and metrics to `summary` (JSON).

    `images` is the images.csv beside the model. It identifies, by COCO id, the images that the run has seen as part of
    another data set: they are excluded if `exclude_seen`, otherwise only counted. Raises ValueError if none remains.
    """
    provenance = read_provenance(masks, MasksProvenance)
    read_provenance(records, RecordsProvenance)
    seen = _seen_images(records, images, exclude_seen) if images else None
    excluded = seen if seen and exclude_seen else frozenset[str]()
    classes = provenance.predictions.evaluated_on.classes
    if classes is None or provenance.predictions.labels is None:
        rows, measured = _score_records(records, masks, excluded, num_bootstrap)
    else:
        with in_parts(output, f"{__name__}.score_masks", masks, records, images, exclude_seen=exclude_seen) as parts:
            rows, measured = _score_labels(records, masks, excluded, classes, num_bootstrap, parts)
    result = Summary(
        masks=provenance,
        num_seen=None if seen is None else len(seen),
        seen_excluded=seen is not None and exclude_seen,
        **measured,
    )
    write(output, rows, ScoresProvenance(masks=provenance))
    with atomic_write(summary) as partial:
        partial.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return result


def _score_records(
    records: Path, masks: Path, excluded: frozenset[str], num_bootstrap: int
) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of records, and the measured fields of the summary."""
    num_records = check_columns(records, RecordsProvenance, [*TRUTH, "tags"])
    check_columns(masks, MasksProvenance, MASKS.names)
    truth = read_pieces(records, RecordsProvenance, TRUTH)
    found = read_pieces(masks, MasksProvenance, MASKS.names)
    scores = score_records(truth, found, num_records, excluded)
    tags, _ = read_columns(records, ["record_id", "tags"])
    measured = summarise_records(scores, num_bootstrap, seed=0) | {"subsets": summarise_subsets(scores, tags)}
    return pa.Table.from_pandas(scores, SCORES, preserve_index=False), measured


def _score_labels(
    records: Path, masks: Path, excluded: frozenset[str], classes: Sequence[str], num_bootstrap: int, parts: Parts
) -> tuple[pa.Table, dict[str, Any]]:
    """The rows of images, and the measured fields of the summary."""
    (truth, _), (found, _) = read_records(records), read(masks, MasksProvenance)
    truth, found = (table.loc[~table["image_id"].isin(list(excluded))] for table in (truth, found))
    scores = score_labels(truth, found, classes, parts)
    measured = summarise_labels(scores, classes, num_bootstrap, seed=0)
    return pa.Table.from_pandas(scores, CONFUSIONS, preserve_index=False), measured


def _seen_images(records: Path, images: Path, exclude: bool) -> frozenset[str]:
    """The image_ids of `records` that the run has seen as part of another data set.

    Raises ValueError if these are all, and to be excluded.
    """
    evaluated, trained = read_records_images(records), read_images(images)
    seen = shared_images(trained.loc[~trained["dataset"].isin(evaluated["dataset"])], evaluated)
    if exclude and len(seen) == len(evaluated):
        raise ValueError(
            f"{images}: the run was trained on all {len(seen)} images to score; evaluate it on others, or pass "
            "--keep-seen"
        )
    return seen
