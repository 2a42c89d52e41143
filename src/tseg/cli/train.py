"""`tseg train`: from the settings of a run to its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tseg.cli.options import Device, Threads, Tracking, find_device, parse_text, read_text, tracking_uri

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from tseg.model.tseg import TSEG
    from tseg.settings.schema import RunSettings

LOGGED = ("loss", "learning_rate", "tau")
IMAGES_FILE = "images.csv"
"""Beside a model: every image that its weights have seen, its pretraining's first."""


def train(
    config: Annotated[Path, typer.Option("--config", help="The run's config.yaml, from `tseg configure`.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for model.safetensors, history.csv, images.csv.")],
    start: Annotated[Path | None, typer.Option(help="The model.safetensors of the run's pretraining.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random weights, batches and dropout.")] = 0,
    tracking: Tracking = None,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Train a run: weakly, from images and expressions alone; or, as its settings say, from masks or boxes.

    Killed and started again, it goes on from last.ckpt; on one machine the same command gives the same bytes.
    images.csv lists every image that the weights have seen, for `tseg evaluate` to leave out.
    """
    import pandas as pd

    from tseg.datasets.leakage import list_images, read_images, write_images
    from tseg.files import atomic_write
    from tseg.model.tseg import save_model
    from tseg.settings.schema import RunSettings
    from tseg.tracking import Tracker

    run = parse_text(RunSettings, read_text(config), str(config))
    begin, pretraining = _pretrained(run, config, start)
    records, about = _training_records(run, seed)
    about |= pretraining
    seen = [read_images(start.parent / IMAGES_FILE)] if start else []
    seen.append(list_images(records, about["trained_on"]["dataset"]))
    tracker = Tracker(tracking_uri(tracking))
    if (output / "last.ckpt").exists():
        tracker.join(output)
    if tracker.run_id is None:
        tracker.start(run.dataset, f"{run.run}/seed{seed}", run.model_dump() | {"seed": seed}, config, output)
    try:
        # On a GPU the other threads prepare batches; on processors they compute.
        place = find_device(device, threads)
        num_workers = threads - 1 if place.type == "cuda" else 0
        model, history = _train(run, records, about, begin, output, tracker.log, place, num_workers)
    except BaseException:
        tracker.end("FAILED")
        raise
    with atomic_write(output / "history.csv") as partial:
        pd.DataFrame(history).to_csv(partial, index=False)
    write_images(output / IMAGES_FILE, pd.concat(seen))
    save_model(output / "model.safetensors", model, run.model.model_dump(), about)
    (output / "last.ckpt").unlink(missing_ok=True)
    tracker.end("FINISHED")


def _pretrained(run: "RunSettings", config: Path, start: Path | None) -> tuple["TSEG | None", dict[str, Any]]:
    """The model that `run` starts from, and what is told of its training. Raises ValueError when it is another's."""
    from tseg.model.tseg import load_model

    if (start is None) != (run.pretraining is None):
        raise ValueError(f"--start: {config} says pretraining: {run.pretraining}; give the model of that run, or none")
    if start is None:
        return None, {}
    model, about = load_model(start)
    if about["run"] != run.pretraining:
        raise ValueError(f"--start: {start} is of the run {about['run']}; give that of {run.pretraining}")
    return model, {"pretrained_on": about["trained_on"], "num_excluded": about["num_excluded"]}


def _training_records(run: "RunSettings", seed: int) -> tuple["pd.DataFrame", dict[str, Any]]:
    """What `run` may train on, and what its model file and all that is made from it will say about it."""
    from tseg.datasets.leakage import coco_ids, read_records_images, without_images
    from tseg.records import read_metadata, read_records
    from tseg.training.batches import share_of

    records, trained_on = read_records(Path(run.records)), read_metadata(Path(run.records))
    num_excluded = None
    if run.excluded_records:
        evaluated = [read_records_images(Path(path)) for path in run.excluded_records]
        records, num_excluded = without_images(records, frozenset().union(*map(coco_ids, evaluated)))
        print(f"{run.run}: {num_excluded:,} images excluded, which are evaluated on")
    records = share_of(records, run.training.share)
    about = {
        "run": run.run,
        "seed": seed,
        "supervision": run.supervision,
        "pooling": run.pooling.name if run.pooling else None,
        "weighting": run.pooling.weighting.model_dump() if run.pooling and run.pooling.weighting else {},
        "resolution": run.training.resolution,
        "flip_words": run.training.flip_words if trained_on["classes"] is None else "keep",
        "image_encoder": run.model.image_encoder.model_dump(include={"name", "options"}),
        "trained_on": trained_on | {"num_images": records["file_name"].nunique()},
        "pretrained_on": None,
        "num_excluded": num_excluded,
    }
    return records, about


def _train(
    run: "RunSettings",
    records: "pd.DataFrame",
    about: dict[str, Any],
    begin: "TSEG | None",
    output: Path,
    log: Callable[..., None],
    device: "torch.device",
    num_workers: int,
) -> tuple["TSEG", list[dict[str, float]]]:
    """Build what the loop needs from the settings of `run`, and run it."""
    import hashlib

    import torch

    from tseg.training.loop import train
    from tseg.training.schedule import poly_schedule

    settings, seed = run.training, about["seed"]
    torch.manual_seed(seed)
    model = (begin or _new_model(run, records)).to(device)
    rate: dict[str, Any] = {"lr": settings.optimizer.learning_rate, "weight_decay": settings.optimizer.weight_decay}
    match settings.optimizer.name:
        case "sgd":
            optimizer = torch.optim.SGD(model.parameters(), momentum=settings.optimizer.momentum, **rate)
        case "adamw":
            optimizer = torch.optim.AdamW(model.parameters(), fused=True, **rate)
    if settings.resolution % model.patch_size:
        raise ValueError(
            f"training.{run.supervision}.resolution: {settings.resolution} pixels are no whole number of patches; "
            f"choose a multiple of {model.patch_size}"
        )
    fingerprint = hashlib.sha256(f"{run.model_dump_json()} {about} {device.type}".encode())
    fingerprint.update(Path(run.records).read_bytes() + "\n".join(records["record_id"]).encode())
    for weight in model.state_dict().values():
        fingerprint.update(weight.cpu().numpy().tobytes())
    batches, objective = _supervision(run, seed, records, about["trained_on"]["classes"], model)
    history = train(
        model,
        batches,
        objective,
        optimizer,
        poly_schedule(optimizer, settings.iterations, settings.optimizer.poly_power, settings.optimizer.warmup),
        iterations=settings.iterations,
        seed=seed,
        precision=getattr(torch, settings.precision),
        num_workers=num_workers,
        checkpoint=output / "last.ckpt",
        fingerprint=fingerprint.hexdigest(),
        log=lambda row: log({key: row[key] for key in LOGGED}, row["iteration"]),
    )
    return model, history


def _new_model(run: "RunSettings", records: "pd.DataFrame") -> "TSEG":
    """The model with its encoders' weights, before its first iteration."""
    from tseg.model.text_encoder import learn_wordpiece, load_tokenizer
    from tseg.model.tseg import build_tseg
    from tseg.settings.schema import LanguageModelSettings

    text_encoder, tokenizer = run.model.text_encoder, None
    if isinstance(text_encoder, LanguageModelSettings):
        if text_encoder.weights is None:
            tokenizer = learn_wordpiece(list(records["expression"]), text_encoder.vocabulary_size)
        else:
            tokenizer = load_tokenizer(text_encoder.weights)
    return build_tseg(**run.model.model_dump(), tokenizer=tokenizer)


def _supervision(
    run: "RunSettings", seed: int, records: "pd.DataFrame", classes: list[str] | None, model: "TSEG"
) -> tuple[Any, Callable[..., Any]]:
    """What the loop is fed, and what it minimises."""
    import functools

    from tseg.model.pooling import POOLINGS
    from tseg.training import objectives
    from tseg.training.batches import PixelBatches, Sampling, WeakBatches
    from tseg.training.targets import TfidfTargets, identity_targets

    settings, encoder = run.training, model.image_encoder
    sampling = Sampling(
        batch_size=settings.batch_size,
        expressions_per_image=settings.expressions_per_image,
        resolution=settings.resolution,
        scale=settings.scale,
        flip=settings.flip,
        flip_words=settings.flip_words,
        mean=encoder.mean,
        std=encoder.std,
        seed=seed,
    )
    match run.supervision:
        case "weak":
            assert run.pooling is not None, "make_run gives one to weak supervision"
            weighting = run.pooling.weighting.model_dump() if run.pooling.weighting else {}
            score = functools.partial(POOLINGS[run.pooling.name].score, **weighting)
            soft = settings.targets == "tf-idf"
            targets = TfidfTargets(list(records["expression"])) if soft else identity_targets
            objective = functools.partial(objectives.weak, score=score, targets=targets)
            return WeakBatches(records, sampling, classes=classes), objective
        case "full":
            return PixelBatches(records, sampling, region="mask"), objectives.full
        case "boxes":
            return PixelBatches(records, sampling, region="box"), objectives.boxes
