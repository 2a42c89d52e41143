"""Sub-commands after training: similarities, masks, scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tseg.cli.options import (
    Background,
    Crf,
    Device,
    Model,
    Output,
    Records,
    Threads,
    Tracking,
    find_device,
    parse_text,
    preset,
    tracking_uri,
    write_json,
)

if TYPE_CHECKING:
    import pandas as pd

TOLD = (
    "run",
    "seed",
    "supervision",
    "pooling",
    "crf",
    "labels",
    "scales",
    "flip",
    "image_encoder",
    "trained_on",
    "pretrained_on",
    "num_excluded",
    "evaluated_on",
    "comparison",
)
"""What a summary repeats of its masks' metadata."""


def predict(
    model: Model,
    records: Records,
    output: Output,
    resolution: Annotated[int, typer.Option(min=1, help="Longer side of the image in pixels.")],
    scales: Annotated[
        list[float] | None, typer.Option(help="Factors of --resolution to average over; repeat it.")
    ] = None,
    flip: Annotated[bool, typer.Option(help="Average over mirror images too.")] = False,
    labels: Annotated[
        str | None, typer.Option(help="Classes and their words as JSON; all words are asked of every image.")
    ] = None,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Predict patch-level similarities, float16, of every image and its expressions, or the words of --labels."""
    from tseg.inference.predict import predict_records
    from tseg.model.tseg import load_model
    from tseg.records import read_metadata, read_records, write_table

    loaded, about = load_model(model)
    loaded.to(find_device(device, threads))
    words = parse_text(dict[str, list[str]], labels, "--labels") if labels else None
    views: dict[str, Any] = {"resolution": resolution, "scales": scales or [1.0], "flip": flip}
    asked = list(dict.fromkeys(word for of_class in words.values() for word in of_class)) if words else None
    told = {"labels": words, "evaluated_on": read_metadata(records)}
    if (words is None) != (told["evaluated_on"]["classes"] is None):
        raise ValueError(f"--labels goes with a data set with classes, and only with one; see whether {records} is one")
    flip_words = about["flip_words"]
    predictions = predict_records(loaded, read_records(records), words=asked, flip_words=flip_words, **views)
    write_table(output, predictions, about | views | told)


def refine(
    predictions: Annotated[Path, typer.Option(help="What `tseg predict` wrote.")],
    records: Records,
    output: Output,
    background: Background = 0.2,
    confidence: Annotated[
        float,
        typer.Option(min=0, max=1, help="Classes: what the sigmoid of a word's score must exceed for it to take part."),
    ] = 0.5,
    crf: Crf = "none",
) -> None:
    """Make masks of similarities at the images' own resolution, on request refined by a dense CRF.

    A mask for every record; where words of classes were asked, a class for every pixel.
    """
    from tseg.inference import semantic
    from tseg.inference.masks import COMPARISON, mask_records
    from tseg.records import read_metadata, read_records, read_table, write_table

    about = read_metadata(predictions, "predict")
    choices: dict[str, Any] = {"pooling": about["pooling"], "background": background, "crf": preset(crf)}
    images, similarities = read_records(records), read_table(predictions)
    if about["labels"] is None:
        masks, comparison = mask_records(images, similarities, **choices), COMPARISON
    elif about["pooling"] is None:
        raise ValueError(
            f"{predictions}: a model of {about['supervision']} supervision scores no class; ask a weak one"
        )
    else:
        asked = {"labels": about["labels"], "weighting": about["weighting"], "confidence": confidence}
        masks = semantic.label_records(images, similarities, **asked, **choices)
        comparison = semantic.comparison(confidence)
    write_table(output, masks, about | {"crf": choices["crf"], "background": background, "comparison": comparison})


def evaluate(
    masks: Annotated[Path, typer.Option(help="What `tseg refine` wrote.")],
    records: Records,
    output: Output,
    summary: Annotated[Path, typer.Option(help="JSON file for the metrics.")],
    num_bootstrap: Annotated[int, typer.Option(min=1, help="Resamplings behind the interval.")] = 1000,
    images: Annotated[
        Path | None, typer.Option(help="The images.csv beside the model: what the run has seen; absent: unchecked.")
    ] = None,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen/--keep-seen", help="Leave seen images of other data sets out.")
    ] = True,
    model_dir: Annotated[Path | None, typer.Option(help="Folder of the model, whose MLflow run this joins.")] = None,
    tracking: Tracking = None,
) -> None:
    """Score masks against the records: a row each to --output, the metrics to --summary and MLflow.

    Data sets share images: those of --images that the run has seen as part of another data set than this one, known
    by their ids in COCO, are left out, or with --keep-seen only counted.
    """
    import pyarrow as pa

    from tseg.records import read_metadata, read_records, read_table, write_table

    about = read_metadata(masks, "refine")
    evaluated_on, to_score, found, num_seen = about["evaluated_on"], read_records(records), read_table(masks), None
    if images is not None:
        seen = _seen(to_score, evaluated_on["dataset"], images)
        if exclude_seen:
            to_score, found = _without(seen, to_score, found, images)
        num_seen, told = len(seen), "left out" if exclude_seen else "scored all the same"
        print(f"{masks.name}: {num_seen:,} images that the run was trained on, in other data sets, {told}")
    scores, metrics = _score(to_score, found, about, num_bootstrap)
    metrics["num_seen"] = num_seen
    write_table(output, pa.Table.from_pandas(scores, preserve_index=False), about)
    write_json(
        summary,
        {key: about[key] for key in TOLD}
        | {"dataset": evaluated_on["dataset"], "split": evaluated_on["split"], "resolution": "the image's own"}
        | {"seen_excluded": images is not None and exclude_seen}
        | metrics,
    )
    print(
        f"{masks.name}: mIoU {metrics['mIoU']:.2%} "
        f"(95% interval {metrics['mIoU_low']:.2%} to {metrics['mIoU_high']:.2%})"
    )
    if model_dir is not None:
        _log(metrics, f"{masks.stem}/", model_dir, tracking)


def _seen(records: "pd.DataFrame", dataset: str, images: Path) -> frozenset[str]:
    """The image_id of each image of the records that the run has seen as part of another data set than `dataset`."""
    from tseg.datasets.leakage import list_images, read_images, shared_images

    met = read_images(images)
    return shared_images(met.loc[met["dataset"] != dataset], list_images(records, dataset))


def _without(
    seen: frozenset[str], records: "pd.DataFrame", masks: "pd.DataFrame", images: Path
) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """Records and masks of the other images. Raises ValueError when there is none."""
    import numpy as np

    of_seen = records["image_id"].isin(list(seen))
    if np.all(of_seen):
        raise ValueError(
            f"{images}: the run was trained on all {len(seen)} images to score; evaluate it on others, or say "
            "--keep-seen"
        )
    key = "image_id" if "image_id" in masks else "record_id"  # a label map is of an image
    of_seen_mask = masks[key].isin(list(records.loc[of_seen, key]))
    return records.loc[~of_seen].reset_index(drop=True), masks.loc[~of_seen_mask].reset_index(drop=True)


def _score(
    records: "pd.DataFrame", masks: "pd.DataFrame", about: dict[str, Any], num_bootstrap: int
) -> tuple["pd.DataFrame", dict[str, Any]]:
    """Scores and their summary: of records, or where the data set has classes, of images."""
    from tseg.evaluation import iou, subsets, voc_miou

    classes = about["evaluated_on"]["classes"]
    if classes is None:
        scores = iou.score_records(records, masks)
        metrics = iou.summarise(scores, num_bootstrap, seed=0)
        return scores, metrics | {"subsets": subsets.summarise_subsets(scores, records)}
    scores = voc_miou.score_labels(records, masks, classes)
    return scores, voc_miou.summarise_labels(scores, classes, num_bootstrap, seed=0)


def _log(metrics: dict[str, Any], prefix: str, model_dir: Path, tracking: Path | None) -> None:
    """The plain numbers of `metrics`, into the run in MLflow that trained the model."""
    from tseg.tracking import Tracker

    tracker = Tracker(tracking_uri(tracking))
    tracker.join(model_dir)
    tracker.log({prefix + name: value for name, value in metrics.items() if isinstance(value, int | float)})
    tracker.end("FINISHED")
