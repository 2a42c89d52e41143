"""Assemble a training from the settings of a run, train, and write the model.

Benchmarks build the same parts: `build_model`, `build_objective`, `build_optimizer`.
"""

import hashlib
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.data import Dataset

from tseg.datasets.leakage import coco_ids, list_images, read_images, read_records_images, without_images, write_images
from tseg.encoding.encode import open_tokens
from tseg.encoding.tokens import Tokens
from tseg.files import atomic_write, warn
from tseg.locks import exclusive
from tseg.model.device import compute_in
from tseg.model.image_encoder import build_image_encoder
from tseg.model.language_model import learn_wordpiece
from tseg.model.pooling import POOLINGS
from tseg.model.text_encoder import build_text_encoder
from tseg.model.tseg import TSEG, load_model, save_model
from tseg.model.weights import MissingWeightsError
from tseg.provenance import EncoderProvenance, ModelProvenance, RecordsProvenance
from tseg.records import read_records
from tseg.settings.code import code_of, train_code
from tseg.settings.encodings import crop_views
from tseg.settings.run_schema import RunModelSettings, RunSettings, RunTrainingSettings
from tseg.settings.schema import LanguageModelSettings, OptimizerSettings
from tseg.tracking import tracked
from tseg.training import objectives
from tseg.training.batches import Batch, PixelBatches, Sampling, WeakBatches, share_of
from tseg.training.checkpoint import History, remove_checkpoints
from tseg.training.interruption import stop_requests
from tseg.training.loop import optimise
from tseg.training.objectives import Objective
from tseg.training.ranks import ALONE, Ranks, joined
from tseg.training.schedule import poly_schedule
from tseg.training.targets import TfidfTargets, WithoutSimilar, identity_targets

IMAGES_FILE = "images.csv"
"""The file beside a model that lists its training images, those of its pretraining first."""
LOGGED = ("loss", "learning_rate", "tau", "foreground", "empty")


def train_run(
    run: RunSettings,
    *,
    seed: int,
    config: Path,
    output: Path,
    start: Path | None,
    patches: Path | None = None,
    texts: Path | None = None,
    pseudo_labels: Path | None = None,
    tracking_uri: str | None,
    device: torch.device,
    num_workers: int,
    checkpoint_minutes: float = 5,
) -> None:
    """Train `run` and write model.safetensors, history.csv and images.csv to the folder `output`.

    `config` is the file that `run` was read from; `start` is the model of its pretraining; `pseudo_labels` are the
    masks of its teacher; `patches` and `texts` are the tokens of its frozen encoders, which are computed if not given.
    A training that was killed resumes from last.ckpt, at most `checkpoint_minutes` old. After SIGTERM, SIGUSR1 or
    Ctrl-C it saves its state and raises Interrupted. If another process trains in `output`, waits until that ends.
    Raises ValueError if one of these files belongs to another run or encoder, if the records lack what its supervision
    needs, or if a loss is not finite.
    """
    model, pretrained = _load_start(run, config, start)
    seen = [read_images(start.parent / IMAGES_FILE)] if start else []
    records, trained_on, num_excluded = _training_records(run, config, pseudo_labels)
    provenance = ModelProvenance(
        run=run.run,
        seed=seed,
        supervision=run.supervision,
        pooling=run.pooling.name if run.pooling else None,
        pooling_options=run.pooling.options if run.pooling else {},
        resolution=run.training.resolution,
        flip_words=run.training.flip_words if trained_on.classes is None else "keep",
        image_encoder=EncoderProvenance(name=run.model.image_encoder.name, options=run.model.image_encoder.options),
        trained_on=trained_on,
        pretrained_on=pretrained.trained_on if pretrained else None,
        num_excluded=pretrained.num_excluded if pretrained else num_excluded,
    )
    # A student has learnt from all images of its teacher.
    seen.append(read_records_images(Path(run.records)) if run.teacher else list_images(records, trained_on.dataset))
    checkpoint = output / "last.ckpt"
    with joined(device) as ranks, ExitStack() as held, stop_requests() as stop:
        if ranks.is_first:
            # Ranks cannot wait for long: the others would run into the time limit of their first message.
            held.enter_context(exclusive(output / ".lock", "trains this run", wait=ranks == ALONE))
        ranks.wait()
        torch.manual_seed(seed)
        model = (model or build_model(run.model, list(records["expression"]))).to(device)
        for loss in model.text_encoder.losses(list(dict.fromkeys(records["expression"]))):
            warn(f"{run.run}: warning: {loss}")
        tokens = _open_tokens(run, model, patches, texts)
        fingerprint = _fingerprint(run, model, records, provenance, pseudo_labels, bool(tokens))
        name, settings = f"{run.run}/seed{seed}", run.model_dump() | {"seed": seed}
        store = tracking_uri if ranks.is_first else None
        with tracked(store, run.dataset, name, settings, output, fingerprint) as log:

            def log_row(row: dict[str, float]) -> None:
                log({key: row[key] for key in LOGGED}, int(row["iteration"]))

            history = _train(
                run,
                model,
                records,
                tokens,
                provenance,
                num_workers=num_workers,
                checkpoint=checkpoint,
                checkpoint_seconds=60 * checkpoint_minutes,
                fingerprint=fingerprint,
                log=log_row,
                stop=stop,
                ranks=ranks,
            )
            if not ranks.is_first:
                return
            for row in history:  # those that were not yet in the store when a training was killed
                log_row(row)
            with atomic_write(output / "history.csv") as partial_file:
                pd.DataFrame(history).to_csv(partial_file, index=False)
            write_images(output / IMAGES_FILE, pd.concat(seen))
            save_model(output / "model.safetensors", model, run.model.model_dump(), provenance)
        remove_checkpoints(checkpoint)


def build_model(settings: RunModelSettings, expressions: Sequence[str]) -> TSEG:
    """Build the model of a run before its training, with pretrained encoders where the settings name weights.

    A language model without pretrained weights learns its vocabulary from the training `expressions`. Raises
    ValueError naming the key of an encoder that cannot be built.
    """
    with _naming("image_encoders", "vit_small"):
        image_encoder = build_image_encoder(**settings.image_encoder.model_dump())
    with _naming("language_model", "bert_small"):
        tokenizer = None
        if isinstance(settings.text_encoder, LanguageModelSettings) and settings.text_encoder.weights is None:
            assert settings.text_encoder.random is not None, "the schema requires sizes without weights"
            tokenizer = learn_wordpiece(expressions, settings.text_encoder.random.vocabulary_size)
        text_encoder = build_text_encoder(settings.text_encoder.model_dump(), tokenizer)
    return TSEG(
        image_encoder,
        text_encoder,
        embed_dim=settings.embed_dim,
        patch_hidden=settings.patch_hidden,
        tau=settings.tau,
    )


@contextmanager
def _naming(key: str, source: str) -> Generator[None, None, None]:
    """Prefix the errors of an encoder with its `key` in the settings; if weights are missing, suggest `source`."""
    try:
        yield
    except MissingWeightsError as error:
        raise ValueError(f"{key}: {error}; `tseg fetch {source}` downloads weights to data/raw/{source}") from error
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def build_objective(run: RunSettings, expressions: Sequence[str]) -> Objective:
    """Build the loss that `run` minimises. tf-idf targets learn word weights from the training `expressions`."""
    match run.supervision:
        case "weak":
            return _weak_objective(run, expressions)
        case "full":
            return objectives.full
        case "pseudo":
            assert run.training.absent_weight is not None, "the schema of pseudo labels requires it"
            return partial(objectives.pseudo, absent_weight=run.training.absent_weight)
        case "boxes":
            return objectives.boxes


def _weak_objective(run: RunSettings, expressions: Sequence[str]) -> Objective:
    """The loss of weak supervision, with what the run's settings add to the paper's."""
    assert run.pooling is not None, "make_run gives weak supervision a pooling"
    pooling, training = POOLINGS[run.pooling.name], run.training
    objective = partial(
        objectives.weak,
        score=partial(pooling.score, **run.pooling.options),
        targets=TfidfTargets(expressions) if training.targets == "tf-idf" else identity_targets,
        counted=None if training.ignore_similar is None else WithoutSimilar(expressions, training.ignore_similar),
        over_expressions=training.loss or "mean",
    )
    if not training.same_image_weight:
        return objective
    assert pooling.masks is not None, "make_run refuses same_image_weight for such poolings"
    return partial(objectives.weak_apart, weak=objective, masks=pooling.masks, weight=training.same_image_weight)


def build_optimizer(settings: RunTrainingSettings, model: TSEG) -> Optimizer:
    """SGD or AdamW over the parameters of `model` that require gradients, each at the rate of its part.

    The first parameter group is empty and has the base rate, which is thus the first that a schedule reports.
    """
    base: dict[str, Any] = {"lr": settings.optimizer.learning_rate, "weight_decay": settings.optimizer.weight_decay}
    groups = [{"params": []}, *_parameter_groups(settings.optimizer, model)]
    match settings.optimizer.name:
        case "sgd":
            return SGD(groups, momentum=settings.optimizer.momentum, fused=True, **base)
        case "adamw":
            return AdamW(groups, fused=True, **base)


def _parameter_groups(settings: OptimizerSettings, model: TSEG) -> list[dict[str, Any]]:
    """The parameters of `model` that require gradients, by their part and by whether their weights decay."""
    groups: dict[tuple[str, bool], list[Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = next((part for part in ("image_encoder", "text_encoder") if name.startswith(f"{part}.")), "heads")
            decays = settings.decay == "all" or _is_matrix(name, parameter)
            groups.setdefault((part, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": settings.learning_rate * getattr(settings.rates, part),
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


def _is_matrix(name: str, parameter: Parameter) -> bool:
    """Whether a parameter is a layer's weights: no bias, norm, scale, tau, position embedding, class or register token.

    timm's position embeddings and tokens (`pos_embed`, `cls_token`) are no layers; transformers' are an Embedding.
    """
    return parameter.ndim > 1 and name.endswith(".weight") and "position" not in name


def build_batches(
    run: RunSettings,
    seed: int,
    records: pd.DataFrame,
    classes: list[str] | None,
    ranks: Ranks = ALONE,
    **tokens: Tokens,
) -> Dataset[Batch]:
    """Build the batches of `run`.

    `ranks` says whose images are read. `tokens`: those of `patches` and `texts`, if its encoders are frozen; see
    `Sampling`.
    """
    settings = run.training
    sampling = Sampling(
        batch_size=settings.batch_size,
        expressions_per_image=settings.expressions_per_image,
        resolution=settings.resolution,
        scale=settings.scale,
        flip=settings.flip,
        flip_words=settings.flip_words,
        seed=seed,
        views=crop_views(settings),
        ranks=ranks,
        **tokens,
    )
    if run.supervision == "weak":
        return WeakBatches(records, sampling, classes=classes, apart=bool(settings.same_image_weight))
    # A student's records lack those whose pseudo label is empty; the image has their expressions all the same.
    known = read_records(Path(run.records))[0] if run.teacher else None
    return PixelBatches(records, sampling, region="box" if run.supervision == "boxes" else "mask", known=known)


def _load_start(run: RunSettings, config: Path, start: Path | None) -> tuple[TSEG | None, ModelProvenance | None]:
    """Load the model of the run's pretraining and its provenance. Raises ValueError if it belongs to another run."""
    if (start is None) != (run.pretraining is None):
        raise ValueError(
            f"{config} says pretraining: {run.pretraining}; pass the model of that run, or none if it is null"
        )
    if start is None:
        return None, None
    model, provenance = load_model(start)
    if provenance.run != run.pretraining:
        raise ValueError(f"{start} belongs to the run {provenance.run}; pass that of {run.pretraining}")
    return model, provenance


def _open_tokens(run: RunSettings, model: TSEG, patches: Path | None, texts: Path | None) -> dict[str, Tokens]:
    """Open the tokens of the frozen encoders. Raises ValueError if they belong to other encoders or other crops."""
    views = crop_views(run.training)
    if patches and views is None:
        raise ValueError(f"{patches}: the run draws new crops each time; set training.{run.supervision}.views")
    tokens: dict[str, Tokens] = {}
    if patches:
        tokens["patches"] = open_tokens(patches, model.image_encoder, views)
    if texts:
        tokens["texts"] = open_tokens(texts, model.text_encoder, None)
    return tokens


def _training_records(
    run: RunSettings, config: Path, pseudo_labels: Path | None
) -> tuple[pd.DataFrame, RecordsProvenance, int | None]:
    """The training records, their provenance, and the number of excluded images (None without excluded_records)."""
    if (pseudo_labels is None) != (run.teacher is None):
        raise ValueError(
            f"{config} says teacher: {run.teacher}; pass the pseudo labels of that run, or none if it is null"
        )
    records, provenance = read_records(pseudo_labels or Path(run.records))
    if provenance.teacher != run.teacher:
        raise ValueError(f"{pseudo_labels} holds masks of {provenance.teacher}; pass those of the run {run.teacher}")
    num_excluded = None
    if run.excluded_records:
        evaluated = [read_records_images(Path(path)) for path in run.excluded_records]
        records, num_excluded = without_images(records, frozenset().union(*map(coco_ids, evaluated)))
        print(f"{run.run}: {num_excluded:,} images excluded because an evaluation has them")
    records = share_of(records, run.training.share)
    return records, provenance.model_copy(update={"num_images": records["file_name"].nunique()}), num_excluded


def _train(
    run: RunSettings,
    model: TSEG,
    records: pd.DataFrame,
    tokens: dict[str, Tokens],
    provenance: ModelProvenance,
    **execution: Any,
) -> History:
    """Train `model` in place and return its history. `execution`: the arguments of `optimise` that change no result."""
    settings = run.training
    if settings.resolution % model.patch_size:
        raise ValueError(
            f"training.{run.supervision}.resolution: {settings.resolution} pixels are not a whole number of patches; "
            f"choose a multiple of {model.patch_size}"
        )
    if settings.compile:
        model.compile_encoders()
    optimizer = build_optimizer(settings, model)
    ranks: Ranks = execution["ranks"]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if ranks != ALONE and any(norm.weight.requires_grad for norm in norms):
        raise ValueError(f"{run.run} learns batch norms, which need the whole batch on one GPU; train it on one")
    if settings.batch_size < ranks.number:
        raise ValueError(
            f"training.{run.supervision}.batch_size: {settings.batch_size} images are too few for {ranks.number} GPUs"
        )
    return optimise(
        model,
        build_batches(run, provenance.seed, records, provenance.trained_on.classes, ranks, **tokens),
        build_objective(run, list(records["expression"])),
        optimizer,
        poly_schedule(optimizer, settings.iterations, settings.optimizer.poly_power, settings.optimizer.warmup),
        iterations=settings.iterations,
        seed=provenance.seed,
        precision=compute_in(settings.precision),
        **execution,
    )


def _fingerprint(
    run: RunSettings,
    model: TSEG,
    records: pd.DataFrame,
    provenance: ModelProvenance,
    pseudo_labels: Path | None,
    has_tokens: bool,
) -> str:
    """Hash everything that determines the training. A checkpoint with another hash is not resumed."""
    device = model.log_tau.device.type
    code = train_code(run) + (code_of("encode") if has_tokens else "")
    described = f"{run.model_dump_json()} {provenance.to_json()} {code} {device}"
    fingerprint = hashlib.sha256(described.encode())
    fingerprint.update((pseudo_labels or Path(run.records)).read_bytes() + "\n".join(records["record_id"]).encode())
    for weight in model.state_dict().values():
        fingerprint.update(weight.cpu().numpy().tobytes())
    return fingerprint.hexdigest()
