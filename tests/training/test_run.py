"""A run lists the images that its weights have seen, and refuses the pretraining of another run."""

import itertools
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from tseg.datasets.leakage import read_images
from tseg.encoding.encode import encode_expressions, encode_images
from tseg.model.language_model import learn_wordpiece
from tseg.model.tseg import load_model
from tseg.records import read_records
from tseg.settings.encodings import crop_views
from tseg.settings.run_schema import PoolingSettings, RunModelSettings, RunSettings, RunTrainingSettings
from tseg.settings.validation import parse
from tseg.training.batches import Batch
from tseg.training.run import build_model, build_objective, build_optimizer, train_run
from tseg.training.schedule import poly_schedule

from ..models import build_tseg
from ..provenances import write_records

SETTINGS = {
    "iterations": 1,
    "batch_size": 2,
    "expressions_per_image": 2,
    "optimizer": {"name": "sgd", "learning_rate": 0.1, "weight_decay": 0, "warmup": 0, "poly_power": 0.9},
    "resolution": 32,
    "scale": [1.0, 1.0],
    "flip": False,
    "flip_words": "keep",
    "precision": "float32",
    "targets": None,
}


def prepare(template: Path, path: Path, dataset: str, coco_ids: dict[str, str | None]) -> str:
    """Write the records of a data set with the images of `coco_ids`."""
    rows = [
        row | {"coco_id": coco_ids[row["image_id"]], "box": list(row["box"]), "tags": []}
        for row in read_records(template)[0].to_dict("records")
        if row["image_id"] in coco_ids
    ]
    write_records(path, [row | {"ignore": None} for row in rows], dataset=dataset, split=path.stem)
    return str(path)


@pytest.fixture
def runs(records_path: Path, tmp_path: Path, architecture: dict[str, Any]) -> dict[str, Path]:
    """Settings of a box pretraining on three images, one of them excluded, and of a run that starts from it."""
    coco = prepare(records_path, tmp_path / "coco.parquet", "refcoco", {"a": "1", "b": "2", "c": "3"})
    own = prepare(records_path, tmp_path / "own.parquet", "phrasecut", {"c": "3", "d": None})
    evaluated = prepare(records_path, tmp_path / "val.parquet", "refcoco", {"b": "2"})
    shared = {"model": architecture, "pooling": None}
    boxes = {"dataset": "refcoco", "supervision": "boxes", "records": coco, "excluded_records": [evaluated]}
    boxes |= {"run": "refcoco-boxes", "pretraining": None, "training": SETTINGS}
    full = {"dataset": "phrasecut", "supervision": "full", "records": own, "excluded_records": []}
    full |= {"run": "phrasecut-full", "pretraining": "refcoco-boxes", "training": SETTINGS | {"share": 0.5}}
    paths = {}
    for settings in (boxes, full):
        paths[settings["supervision"]] = tmp_path / f"{settings['run']}.yaml"
        paths[settings["supervision"]].write_text(yaml.safe_dump(settings | shared))
    return paths


def train(config: Path, output: Path, start: Path | None = None, seed: int = 0, **given: Path) -> None:
    run = parse(RunSettings, yaml.safe_load(config.read_text()), str(config))
    options: dict[str, Any] = {"tracking_uri": None, "device": torch.device("cpu"), "num_workers": 0}
    train_run(run, seed=seed, config=config, output=output, start=start, **options, **given)


def seen(folder: Path) -> list[tuple[str, ...]]:
    return [tuple(row) for row in read_images(folder / "images.csv").fillna("").to_numpy()]


def test_images_are_those_of_the_pretraining_then_of_the_run_without_excluded_ones(runs, tmp_path):
    train(runs["boxes"], tmp_path / "boxes")
    assert seen(tmp_path / "boxes") == [("refcoco", "a", "1"), ("refcoco", "c", "3")]
    train(runs["full"], tmp_path / "full", start=tmp_path / "boxes" / "model.safetensors")
    pretraining, own = seen(tmp_path / "full")[:2], seen(tmp_path / "full")[2:]
    assert pretraining == seen(tmp_path / "boxes")
    assert own in ([("phrasecut", "c", "3")], [("phrasecut", "d", "")])  # a half of two images


def test_a_model_is_written_only_after_its_images(runs, tmp_path, monkeypatch):
    def fail(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("tseg.training.run.write_images", fail)
    with pytest.raises(OSError, match="no space left"):
        train(runs["boxes"], tmp_path / "boxes")
    assert not (tmp_path / "boxes" / "model.safetensors").exists()


def test_a_pretraining_without_a_list_of_images_is_refused_before_training(runs, tmp_path):
    train(runs["boxes"], tmp_path / "boxes")
    (tmp_path / "boxes" / "images.csv").unlink()
    with pytest.raises(ValueError, match=r"boxes/images\.csv does not exist; .* or train the model again"):
        train(runs["full"], tmp_path / "full", start=tmp_path / "boxes" / "model.safetensors")
    assert not (tmp_path / "full").exists()


def run_of(architecture: dict[str, Any]) -> RunSettings:
    """Settings of which `build_model` reads only the model."""
    return RunSettings.model_construct(model=RunModelSettings.model_validate(architecture))


def test_the_vocabulary_is_that_of_the_records(architecture, records):
    torch.manual_seed(0)
    ours = build_model(run_of(architecture).model, list(records["expression"])).state_dict()
    torch.manual_seed(0)
    tokenizer = learn_wordpiece(list(records["expression"]), 128)
    theirs = build_tseg(**architecture, tokenizer=tokenizer).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("encoder", "key", "source"),
    [("image_encoder", "image_encoders", "vit_small"), ("text_encoder", "language_model", "bert_small")],
)
def test_missing_weights_are_reported_with_their_key_and_a_source(
    architecture, records, tmp_path, monkeypatch, encoder, key, source
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    architecture[encoder]["weights"] = "data/raw/gone"
    fix = f"`tseg fetch {source}` downloads weights to data/raw/{source}"
    with pytest.raises(ValueError, match=rf"^{key}: the weights 'data/raw/gone' [^\n]*; {fix}$"):
        build_model(run_of(architecture).model, list(records["expression"]))


def test_weights_that_do_not_fit_are_reported_with_their_key(architecture, records, tmp_path):
    torch.save({}, tmp_path / "vit.pth")
    architecture["image_encoder"]["weights"] = str(tmp_path / "vit.pth")
    with pytest.raises(ValueError, match=r"^image_encoders: the weights '\S+vit\.pth' do not fit the encoder in "):
        build_model(run_of(architecture).model, list(records["expression"]))


def training_of(**changed: Any) -> RunTrainingSettings:
    optimizer = SETTINGS["optimizer"] | changed.pop("optimizer", {})
    return parse(RunTrainingSettings, SETTINGS | {"optimizer": optimizer} | changed, "training")


def weights_of(model: Any, group: dict[str, Any]) -> set[str]:
    names = {id(weight): name for name, weight in model.named_parameters()}
    return {names[id(weight)] for weight in group["params"]}


PARTS = ("image_encoder", "text_encoder", "heads")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_each_part_has_its_rate_and_the_schedule_reports_the_base_rate(make_model, name):
    model, rates = make_model(0), {"image_encoder": 0.01, "text_encoder": 0.5, "heads": 25.0}
    optimizer = build_optimizer(training_of(optimizer={"name": name, "rates": rates}), model)
    found = {weight: group["lr"] for group in optimizer.param_groups for weight in weights_of(model, group)}
    assert found == {
        weight: pytest.approx(0.1 * next((rates[part] for part in PARTS if weight.startswith(part)), rates["heads"]))
        for weight, _ in model.named_parameters()
    }
    schedule = poly_schedule(optimizer, 10, 1.0, warmup=0)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model(torch.randn(2, 3, 32, 32), ["red square", "blue square"]).sum().backward()
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr()[0] == pytest.approx(0.1 * 0.9)
    assert schedule.get_last_lr()[1:] == pytest.approx([rate * 0.9 for rate in schedule.base_lrs[1:]])
    moved = {name: (weight - before[name]).abs().max().item() for name, weight in model.named_parameters()}
    if name == "adamw":  # the first step of Adam is the learning rate, whatever the gradient
        assert moved["project_patches.weight"] == pytest.approx(2.5, rel=0.01)
        assert moved["image_encoder.vit.patch_embed.proj.weight"] == pytest.approx(0.001, rel=0.01)


def test_decay_of_matrices_spares_biases_norms_tau_positions_and_tokens(make_model):
    model = make_model(0)
    optimizer = build_optimizer(training_of(optimizer={"weight_decay": 0.01, "decay": "matrices"}), model)
    decays = {True: set(), False: set()}
    for group in optimizer.param_groups:
        assert group["weight_decay"] in (0.0, 0.01)
        decays[group["weight_decay"] > 0] |= weights_of(model, group)
    assert decays[True] | decays[False] == {name for name, _ in model.named_parameters()}
    spared = {name for name in decays[False] if not name.endswith(".bias") and "norm" not in name.lower()}
    assert spared == {
        "log_tau",
        "image_encoder.vit.pos_embed",
        "image_encoder.vit.cls_token",
        "text_encoder.transformer.embeddings.position_embeddings.weight",
    }
    assert not any(name.endswith("bias") or "norm" in name.lower() for name in decays[True])
    everywhere = build_optimizer(training_of(optimizer={"weight_decay": 0.01}), model)
    assert {group["weight_decay"] for group in everywhere.param_groups if group["params"]} == {0.01}


def test_only_weights_that_require_gradients_are_optimised(make_model):
    model = make_model(0)
    model.image_encoder.requires_grad_(False)
    model.text_encoder.transformer.embeddings.requires_grad_(False)
    optimizer = build_optimizer(training_of(), model)
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    assert {id(weight) for weight in trained} == {id(w) for w in model.parameters() if w.requires_grad}
    assert len(trained) < len(list(model.parameters()))


def weak_loss(similarities: torch.Tensor, batch: Batch, pooling: Literal["mpa", "gap"] = "mpa", **chosen: Any) -> float:
    run = RunSettings.model_construct(
        supervision="weak",
        pooling=PoolingSettings(name=pooling),
        training=training_of(targets="identity", **chosen),
    )
    return build_objective(run, ["tabby cat", "brown cat", "brown dog"])(similarities, batch).item()


def test_the_settings_of_weak_training_are_those_of_its_loss():
    """MPA's score, the loss, what counts and the overlap, written out in float64."""
    similarities = 3 * torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    expressions = ["tabby cat", "brown cat", "brown dog"]
    positives = [frozenset({"tabby cat", "brown dog"}), frozenset({"brown cat"})]
    batch = Batch(torch.zeros(2, 3, 6, 6), expressions, positives, apart=torch.tensor([[0, 0, 2]]))
    s = similarities.double().numpy()
    m = 1 / (1 + np.exp(-s))
    size = m.mean(axis=1)
    z = (m * s).sum(axis=1) / (m.sum(axis=1) + 1.0) + (1 - size) ** 5 * np.log(0.01 + size)
    zbar = np.array([[1, 0, 1], [0, 1, 0]])
    losses = np.where(zbar, np.log(1 + np.exp(-z)), np.log(1 + np.exp(z)))
    one, other = m[0, :, 0], m[0, :, 2]
    overlap = (one @ other) / np.sqrt((one @ one) * (other @ other))
    # Each cat shares a word with the other, and each brown thing; the second image's cat shares none with "dog" alone.
    counts = np.array([[1, 0, 1], [0, 1, 0]], bool)
    for loss, ignore, weight in itertools.product(("mean", "sum"), (None, 0.1), (0.0, 0.5)):
        own = losses[counts] if ignore else losses
        expected = (own.mean() if loss == "mean" else own.sum() / 2) + weight * overlap
        found = weak_loss(similarities, batch, loss=loss, ignore_similar=ignore, same_image_weight=weight)
        assert found == pytest.approx(expected, rel=1e-5)
    assert weak_loss(similarities, batch) == pytest.approx(losses.mean(), rel=1e-5)


def test_a_weak_run_pushes_different_regions_apart_and_logs_coverage(records_path, tmp_path, architecture):
    """From the settings of a run to history.csv; the weight changes the weights."""
    shared = {"model": architecture, "dataset": "own", "supervision": "weak", "records": str(records_path)}
    shared |= {"excluded_records": [], "pretraining": None, "pooling": {"name": "mpa"}}
    losses = []
    for weight in (0.0, 0.5):
        training = SETTINGS | {"targets": "identity", "loss": "sum", "same_image_weight": weight}
        config = tmp_path / f"{weight}.yaml"
        config.write_text(yaml.safe_dump(shared | {"run": f"own-{weight}", "training": training}))
        train(config, tmp_path / str(weight))
        history = pd.read_csv(tmp_path / str(weight) / "history.csv")
        assert list(history) == ["iteration", "loss", "learning_rate", "tau", "foreground", "empty"]
        assert history["foreground"].between(0, 1).all() and history["empty"].between(0, 1).all()
        losses.append(history["loss"][0])
    assert losses[0] < losses[1] <= losses[0] + 0.5


def changed(config: Path, **encoders: dict[str, Any]) -> Path:
    """The settings in `config` with changes of its encoders."""
    run = yaml.safe_load(config.read_text())
    for encoder, change in encoders.items():
        run["model"][encoder] |= change
    path = config.with_name(f"changed-{config.name}")
    path.write_text(yaml.safe_dump(run))
    return path


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_encoders_keep_their_weights_and_the_heads_learn(runs, tmp_path, optimizer):
    heads = {"trainable": "heads"}
    config = changed(runs["boxes"], image_encoder=heads, text_encoder=heads)
    text = config.read_text().replace("name: sgd", f"name: {optimizer}")
    config.write_text(text.replace("weight_decay: 0", "weight_decay: 0.1"))
    run = parse(RunSettings, yaml.safe_load(config.read_text()), str(config))
    torch.manual_seed(0)
    before = build_model(run.model, list(read_records(Path(run.records))[0]["expression"]))
    learning = {
        id(weight) for group in build_optimizer(run.training, before).param_groups for weight in group["params"]
    }
    heads = {name for name, weight in before.named_parameters() if id(weight) in learning}
    projections = {f"project_{side}.{part}" for side in ("patches", "expressions") for part in ("weight", "bias")}
    assert heads == {"log_tau"} | projections
    train(config, tmp_path / "boxes")
    after = load_model(tmp_path / "boxes" / "model.safetensors")[0].state_dict()
    for name, weight in before.state_dict().items():
        if "encoder" in name:
            assert torch.equal(after[name], weight)
    assert not torch.equal(after["project_patches.weight"], before.state_dict()["project_patches.weight"])


def test_truncated_expressions_are_reported(runs, tmp_path, capsys):
    train(runs["boxes"], tmp_path / "boxes")
    assert "warning" not in capsys.readouterr().out
    train(changed(runs["boxes"], text_encoder={"max_tokens": 4}), tmp_path / "short")
    warning = "refcoco-boxes: warning: 2 of 4 expressions have more than 4 tokens; the rest of them is not seen"
    assert warning in capsys.readouterr().out


FROZEN = {"trainable": "heads"}


@pytest.fixture
def frozen(runs: dict[str, Path], tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    """Settings of a run with frozen encoders and fixed crops, and the tokens of its encoders."""
    config = changed(runs["boxes"], image_encoder=FROZEN, text_encoder=FROZEN)
    settings = yaml.safe_load(config.read_text())
    settings["training"] |= {"iterations": 12, "views": 3, "scale": [0.8, 1.2], "flip": True, "flip_words": "swap"}
    config.write_text(yaml.safe_dump(settings))
    run = parse(RunSettings, settings, str(config))
    records = read_records(Path(run.records))[0]
    torch.manual_seed(0)
    model = build_model(run.model, list(records.loc[records["coco_id"] != "2", "expression"])).eval()
    views = crop_views(run.training)
    assert views is not None
    tokens = {"patches": tmp_path / "patches.parquet", "texts": tmp_path / "texts.parquet"}
    encode_images(model.image_encoder, records, views, tokens["patches"])
    encode_expressions(model.text_encoder, records["expression"], True, tokens["texts"])
    return config, tokens


def losses(folder: Path) -> list[float]:
    return pd.read_csv(folder / "history.csv")["loss"].tolist()


def test_a_training_from_tokens_has_the_losses_of_one_that_runs_the_frozen_encoders(frozen, tmp_path):
    """To float16's rounding, over a training whose loss falls."""
    config, tokens = frozen
    train(config, tmp_path / "encoders")
    train(config, tmp_path / "tokens", **tokens)
    expected = losses(tmp_path / "encoders")
    assert expected[-1] < 0.9 * expected[0]
    assert losses(tmp_path / "tokens") == pytest.approx(expected, rel=2e-3)
    models = [load_model(tmp_path / name / "model.safetensors")[0].state_dict() for name in ("tokens", "encoders")]
    assert models[0].keys() == models[1].keys()


def test_tokens_of_other_weights_or_for_new_crops_are_refused(frozen, tmp_path):
    config, tokens = frozen
    with pytest.raises(ValueError, match=r"patches\.parquet holds the tokens of another encoder; delete it"):
        train(config, tmp_path / "run", seed=1, **tokens)
    settings = yaml.safe_load(config.read_text())
    settings["training"]["views"] = None
    config.write_text(yaml.safe_dump(settings))
    with pytest.raises(
        ValueError, match=r"patches\.parquet: the run draws new crops each time; set training\.boxes\.views"
    ):
        train(config, tmp_path / "run", **tokens)


def test_pseudo_labels_are_those_of_the_runs_teacher(runs, tmp_path):
    settings = yaml.safe_load(runs["full"].read_text())
    training = settings["training"] | {"absent_weight": 1.0}
    settings |= {"supervision": "pseudo", "pretraining": None, "teacher": "phrasecut-mpa", "training": training}
    config = tmp_path / "student.yaml"
    config.write_text(yaml.safe_dump(settings))
    blank = {"tags": [], "ignore": None, "coco_id": None}
    records = read_records(Path(settings["records"]))[0].to_dict("records")
    rows = [row | {"box": list(row["box"])} | blank for row in records]
    for teacher in ("phrasecut-mpa", "phrasecut-spa"):
        write_records(tmp_path / f"{teacher}.parquet", rows, dataset="phrasecut", teacher=teacher)
    with pytest.raises(ValueError, match="says teacher: phrasecut-mpa; pass the pseudo labels of that run"):
        train(config, tmp_path / "student")
    with pytest.raises(ValueError, match="holds masks of phrasecut-spa; pass those of the run phrasecut-mpa"):
        train(config, tmp_path / "student", pseudo_labels=tmp_path / "phrasecut-spa.parquet")
    # All masks of an image may be empty; the teacher has seen it all the same.
    fewer = [row for row in rows if row["image_id"] != rows[0]["image_id"]]
    write_records(tmp_path / "phrasecut-mpa.parquet", fewer, dataset="phrasecut", teacher="phrasecut-mpa")
    train(config, tmp_path / "student", pseudo_labels=tmp_path / "phrasecut-mpa.parquet")
    assert set(read_images(tmp_path / "student/images.csv")["image_id"]) == {row["image_id"] for row in rows}
    assert load_model(tmp_path / "student" / "model.safetensors")[1].trained_on.teacher == "phrasecut-mpa"
