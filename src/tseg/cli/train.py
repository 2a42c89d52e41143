"""`tseg train`: train a run."""

from pathlib import Path
from typing import Annotated

import typer

from tseg.cli.options import Device, Patches, Threads, Tracking, read_settings
from tseg.cli.ranks import is_rank, run_ranks


def train(
    config: Annotated[Path, typer.Option("--config", help="The run's config.yaml, from `tseg configure`.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for model.safetensors, history.csv, images.csv.")],
    start: Annotated[Path | None, typer.Option(help="The model.safetensors of the run's pretraining.")] = None,
    patches: Patches = None,
    texts: Annotated[Path | None, typer.Option(help="Tokens of the expressions, from `tseg encode`.")] = None,
    pseudo_labels: Annotated[Path | None, typer.Option(help="File written by `tseg pseudo-label`.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of initial weights, batches and dropout.")] = 0,
    tracking: Tracking = None,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0, help="How many minutes of work a killed training loses at most.")
    ] = 5,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of this machine that share each batch; 0 is 1.")] = 1,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Train a run on expressions, masks or boxes, as its config.yaml says.

    A killed training resumes from last.ckpt. SIGTERM, SIGUSR1 and Ctrl-C save
    it first and end with exit code 75, which means: run me again. On one
    machine, the same command writes the same bytes. With --gpus, losses equal
    those of one GPU up to rounding, but for dropout and drop path. images.csv
    lists every image seen in training, so that `tseg evaluate` can exclude it.
    """
    if gpus > 1 and not is_rank():
        from tseg.model.device import claim_gpus
        from tseg.training.interruption import Interrupted

        if device == "auto":
            claim_gpus(gpus)
        elif device != "cpu":
            raise ValueError(f"--device {device}: --gpus {gpus} needs auto, or cpu")
        try:
            run_ranks(gpus)
        except Interrupted:  # unless the signal came when all was done
            if not (output / "model.safetensors").exists() or (output / "last.ckpt").exists():
                raise
        return
    from tseg.model.device import select_device
    from tseg.settings.run_schema import RunSettings
    from tseg.tracking import store_address
    from tseg.training.run import train_run

    threads = max(1, threads // max(1, gpus))
    selected = select_device(device, threads)
    train_run(
        read_settings(RunSettings, config),
        seed=seed,
        config=config,
        output=output,
        start=start,
        patches=patches,
        texts=texts,
        pseudo_labels=pseudo_labels,
        tracking_uri=store_address(tracking),
        device=selected,
        # With a GPU the other threads prepare batches; without one they compute.
        num_workers=threads - 1 if selected.type == "cuda" else 0,
        checkpoint_minutes=checkpoint_minutes,
    )
