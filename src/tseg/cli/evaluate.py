"""`tseg evaluate`: score masks."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Output, Records, Tracking


def evaluate(
    masks: Annotated[Path, typer.Option(help="File written by `tseg refine`.")],
    records: Records,
    output: Output,
    summary: Annotated[Path, typer.Option(help="JSON file to write the metrics to.")],
    num_bootstrap: Annotated[int, typer.Option(min=1, help="Bootstrap resamples for the 95% interval.")] = 1000,
    images: Annotated[
        Path | None,
        typer.Option(help="The images.csv beside the model: images seen in training. Default: no check."),
    ] = None,
    exclude_seen: Annotated[
        bool, typer.Option("--exclude-seen/--keep-seen", help="Exclude or keep images seen in training.")
    ] = True,
    model_dir: Annotated[
        Path | None, typer.Option(help="Folder of the model, whose MLflow run receives the metrics.")
    ] = None,
    tracking: Tracking = None,
) -> None:
    """Score predicted masks against the true masks of the records.

    Writes the score of each record to --output, and the metrics to --summary
    and MLflow.

    Data sets share images. With --images, images that the run was trained on
    as part of another data set are excluded; --keep-seen only counts them.
    COCO ids identify them.
    """
    from tseg.evaluation.score import score_masks
    from tseg.tracking import log_evaluation, store_address

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
        action = "excluded" if exclude_seen else "kept"
        print(f"{masks.name}: {result.num_seen:,} images seen in training as part of other data sets, {action}")
    mean, low, high = (result.metrics[name] for name in ("mIoU", "mIoU_low", "mIoU_high"))
    print(f"{masks.name}: mIoU {mean:.2%} (95% interval {low:.2%} to {high:.2%})")
    if model_dir is not None:
        log_evaluation(store_address(tracking), model_dir, result.numbers(), prefix=f"{masks.stem}/")
