"""`tseg train`: the settings of a run in, its weights out."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Device, Threads, Tracking, read_settings, tracking_uri


def train(
    config: Annotated[Path, typer.Option("--config", help="The run's config.yaml, from `tseg configure`.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for model.safetensors, history.csv, images.csv.")],
    start: Annotated[Path | None, typer.Option(help="The model.safetensors of the run's pretraining.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of random weights, batches and dropout.")] = 0,
    tracking: Tracking = None,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Train a run: from images and expressions alone, or from masks or boxes if its settings say so.

    A killed training resumes from last.ckpt. On one machine the same command gives the same bytes.
    images.csv lists every image that the weights have seen; `tseg evaluate` leaves them out.
    """
    from tseg.model.device import select_device
    from tseg.settings.schema import RunSettings
    from tseg.training.run import train_run

    selected = select_device(device, threads)
    train_run(
        read_settings(RunSettings, config),
        seed=seed,
        config=config,
        output=output,
        start=start,
        tracking_uri=tracking_uri(tracking),
        device=selected,
        # With a GPU the other threads prepare batches; without one they compute.
        num_workers=threads - 1 if selected.type == "cuda" else 0,
    )
