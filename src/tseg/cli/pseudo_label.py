"""`tseg pseudo-label`: turn a run's masks of its training images into the masks of a second run."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import (
    Background,
    Crf,
    CrfBackend,
    ImageThreads,
    Output,
    Overlapping,
    Records,
    Threshold,
    preset,
    threshold_rule,
)


def pseudo_label(
    predictions: Annotated[Path, typer.Option(help="File that `tseg predict` wrote for the training records.")],
    records: Records,
    output: Output,
    threshold: Threshold = "fixed",
    background: Background = 0.2,
    overlapping: Overlapping = False,
    ignore_band: Annotated[
        float, typer.Option(min=0, max=0.5, help="Ignore pixels whose probability is closer to 0.5 than this.")
    ] = 0.0,
    crf: Crf = "none",
    crf_backend: CrfBackend = "lattice",
    threads: ImageThreads = 1,
) -> None:
    """Turn a run's masks of its own training images into the masks of a second run.

    True masks are not read. A record whose predicted mask is empty is left
    out and counted.
    """
    from tseg.inference.pseudo_labels import pseudo_label_file
    from tseg.model.device import select_device

    select_device("cpu", 1)  # each thread computes the masks of an image
    pseudo_label_file(
        predictions,
        records,
        output,
        background=background,
        exclusive_activations=not overlapping,
        threshold=threshold_rule(threshold),
        crf=preset(crf, crf_backend),
        crf_backend=crf_backend,
        ignore_band=ignore_band,
        num_threads=threads,
    )
