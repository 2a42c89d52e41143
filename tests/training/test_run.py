"""A run lists the images that its weights have seen, and refuses the pretraining of another run."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml

from tseg.datasets.leakage import read_images
from tseg.model.text_encoder import learn_wordpiece
from tseg.records import read_records
from tseg.settings.run_schema import RunModelSettings, RunSettings
from tseg.settings.validation import parse
from tseg.training.run import build_model, train_run

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


def train(config: Path, output: Path, start: Path | None = None) -> None:
    run = parse(RunSettings, yaml.safe_load(config.read_text()), str(config))
    options: dict[str, Any] = {"tracking_uri": None, "device": torch.device("cpu"), "num_workers": 0}
    train_run(run, seed=0, config=config, output=output, start=start, **options)


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
