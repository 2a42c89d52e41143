"""`tseg predict`: similarities of a model on records."""

from typing import Annotated

import typer

from tseg.cli.options import Device, Model, Output, Records, Threads, parse_text


def predict(
    model: Model,
    records: Records,
    output: Output,
    resolution: Annotated[int, typer.Option(min=1, help="Longer side of the image in pixels.")],
    scales: Annotated[
        list[float] | None, typer.Option(help="Factors of --resolution to average over; repeatable.")
    ] = None,
    flip: Annotated[bool, typer.Option(help="Average over mirror images too.")] = False,
    labels: Annotated[
        str | None, typer.Option(help="Classes and their words as JSON; every image is asked for all words.")
    ] = None,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Predict patch-level similarities, float16, of every image and its expressions, or the words of --labels."""
    from tseg.inference.stages import predict_file
    from tseg.model.device import select_device

    predict_file(
        model,
        records,
        output,
        resolution=resolution,
        scales=scales or [1.0],
        flip=flip,
        labels=parse_text(dict[str, list[str]], labels, "--labels") if labels else None,
        device=select_device(device, threads),
    )
