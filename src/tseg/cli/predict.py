"""`tseg predict`: predict similarities."""

from typing import Annotated

import typer

from tseg.cli.options import Device, Model, Output, Patches, Records, Threads, parse_text


def predict(
    model: Model,
    records: Records,
    output: Output,
    resolution: Annotated[int, typer.Option(min=1, help="Shorter side of the encoder's input in pixels.")],
    scales: Annotated[
        list[float] | None, typer.Option(help="Factor of --resolution, a view each; repeatable. Default: 1.")
    ] = None,
    flip: Annotated[bool, typer.Option(help="A view of the mirrored image at every scale too.")] = False,
    window: Annotated[
        int | None, typer.Option(min=1, help="Side of square windows in pixels. Default: the whole image at once.")
    ] = None,
    precision: Annotated[str, typer.Option(help="What the encoders compute in: float32 or bfloat16.")] = "float32",
    labels: Annotated[
        str | None, typer.Option(help="JSON object: class to its words. Required for a data set with classes.")
    ] = None,
    patches: Patches = None,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Predict the similarity of every image patch to every expression.

    Each image is compared with its own expressions or, for a data set with
    classes, with all words of --labels.
    """
    from tseg.inference.predict_file import predict_file
    from tseg.model.device import select_device

    predict_file(
        model,
        records,
        output,
        resolution=resolution,
        scales=scales or [1.0],
        flip=flip,
        window=window,
        precision=precision,
        patches=patches,
        labels=parse_text(dict[str, list[str]], labels, "--labels") if labels else None,
        device=select_device(device, threads),
        num_threads=threads,
    )
