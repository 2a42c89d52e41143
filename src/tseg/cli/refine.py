"""`tseg refine`: turn similarities into masks."""

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
    preset,
    threshold_rule,
)


def refine(
    predictions: Annotated[Path, typer.Option(help="File written by `tseg predict`.")],
    records: Records,
    output: Output,
    background: Background = 0.2,
    overlapping: Overlapping = False,
    threshold: Annotated[
        str, typer.Option(help="Where to cut a map: fixed (s > 0), halfway, relative, otsu, or oracle (the true area).")
    ] = "fixed",
    confidence: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Data sets with classes: threshold on the sigmoid of a word's score.",
        ),
    ] = 0.5,
    crf: Crf = "none",
    crf_backend: CrfBackend = "lattice",
    crf_background: Annotated[
        float | None,
        typer.Option(min=0, help="Data sets with classes, GAP and GMP: psa's alpha. Default: --background."),
    ] = None,
    threads: ImageThreads = 1,
) -> None:
    """Turn similarities into masks at image resolution; --crf refines them.

    Writes one mask per record or, for a data set with classes, one label map
    per image.
    """
    from tseg.inference.refine_file import refine_file
    from tseg.model.device import select_device

    select_device("cpu", 1)  # each thread computes the masks of an image
    refine_file(
        predictions,
        records,
        output,
        background=background,
        exclusive_activations=not overlapping,
        threshold=threshold_rule(threshold),
        confidence=confidence,
        crf=preset(crf, crf_backend),
        crf_backend=crf_backend,
        crf_background=crf_background,
        num_threads=threads,
    )
