"""`tseg evaluate`: scores of masks."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Output, Records, Tracking, tracking_uri


def evaluate(
    masks: Annotated[Path, typer.Option(help="File written by `tseg refine`.")],
    records: Records,
    output: Output,
    summary: Annotated[Path, typer.Option(help="JSON file for the metrics.")],
    num_bootstrap: Annotated[int, typer.Option(min=1, help="Resamplings behind the interval.")] = 1000,
    images: Annotated[
        Path | None, typer.Option(help="The images.csv beside the model: what the run has seen. Default: unchecked.")
    ] = None,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen/--keep-seen", help="Leave out images seen as part of other data sets.")
    ] = True,
    model_dir: Annotated[
        Path | None, typer.Option(help="Folder of the model; its MLflow run gets the metrics.")
    ] = None,
    tracking: Tracking = None,
) -> None:
    """Score masks against the records: one row each to --output, the metrics to --summary and MLflow.

    Data sets share images. Those of --images that the run has seen as part of another data set, known by their ids in
    COCO, are left out, or with --keep-seen only counted.
    """
    from tseg.evaluation.score import score_masks
    from tseg.tracking import log_metrics

    result = score_masks(
        masks,
        records,
        output=output,
        summary=summary,
        num_bootstrap=num_bootstrap,
        images=images,
        exclude_seen=exclude_seen,
    )
    if result.num_seen is not None:
        action = "left out" if exclude_seen else "scored all the same"
        print(f"{masks.name}: {result.num_seen:,} images that the run was trained on in other data sets, {action}")
    mean, low, high = (result.metrics[name] for name in ("mIoU", "mIoU_low", "mIoU_high"))
    print(f"{masks.name}: mIoU {mean:.2%} (95% interval {low:.2%} to {high:.2%})")
    if model_dir is not None:
        log_metrics(tracking_uri(tracking), model_dir, result.numbers(), prefix=f"{masks.stem}/")
