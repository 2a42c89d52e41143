"""The instructions of docs/own-data.md work as printed, from photographs and phrases to masks."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from .reader import blocks_of, copy_project, run

SIZE = 80, 60
RECORDS = "data/photos/records/mine"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "brown", "dog", "red", "umbrella", "cat"]


def blocks(kind: str) -> list[str]:
    """The blocks of a kind on the page, in order."""
    return [text for name, text in blocks_of("docs/own-data.md") if name == kind]


def draw_data(folder: Path) -> None:
    """Write the tables of the page, the images and masks that they name, and the photograph that it segments."""
    for name, table in zip(("train", "val"), blocks("csv"), strict=True):
        (folder / f"{name}.csv").write_text(table, encoding="utf-8")
        for number, row in enumerate(csv.DictReader(io.StringIO(table))):
            path = folder / "images" / row["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
            if row.get("mask"):
                (folder / row["mask"]).parent.mkdir(exist_ok=True)
                Image.fromarray(noise[..., 0] > 200).save(folder / row["mask"])
    rotated = Image.Exif()
    rotated[0x0112] = 6  # by 90 degrees
    Image.new("RGB", SIZE, "red").save(folder / "images/garden/001.jpg", exif=rotated)
    Image.new("RGB", SIZE, "blue").save(folder.parent / "photo.jpg")


def cache(hub: Path, name: str) -> Path:
    """The folder of a model in the local cache of the hub, as if it had been downloaded."""
    model = hub / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text("0" * 40)
    snapshot = model / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    return snapshot


def cache_encoders(hub: Path, settings: dict[str, Any]) -> None:
    """Random weights under the names of the page's encoders: the ViT at its size, a small BERT."""
    import tseg.model.torchvision_operators  # noqa: F401  (before timm is imported)

    # isort: split
    import timm
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel, BertTokenizerFast

    image_encoder = settings["image_encoders"][settings["model"]["image_encoder"]]
    vit = timm.create_model(image_encoder["name"], num_classes=0)
    save_file(vit.state_dict(), cache(hub, f"timm/{image_encoder['weights']}") / "model.safetensors")
    bert = cache(hub, settings["language_model"]["weights"])
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(bert)
    (bert / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(bert / "vocab.txt")).save_pretrained(bert)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project with the files of the page, its encoders in the cache, and fewer iterations."""
    folder = tmp_path_factory.mktemp("reader")
    copy_project(folder)
    (folder / "my-data").mkdir()
    draw_data(folder / "my-data")
    settings = yaml.safe_load((folder / "config/photos.yaml").read_text())
    cache_encoders(folder / "home/hub", settings)
    settings["tracking_uri"] = None
    for training in settings["training"].values():
        training["iterations"] = 3
    (folder / "config/photos.yaml").write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(folder / "home"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


def test_the_pages_lines_lead_from_photographs_and_phrases_to_masks_and_scores(project: Path) -> None:
    to_masks, self_trained, fine_tuned, to_scores = blocks("sh")
    output = run(project, "bash", "-ec", to_masks)
    for phrase, name in {"red umbrella": "1-red-umbrella", "cat": "2-cat"}.items():
        assert f"photo.jpg: {phrase}, " in output
        with Image.open(project / f"segmented/photo.jpg/{name}.png") as mask:
            assert (mask.mode, mask.size) == ("1", SIZE)
    with Image.open(project / "results/photos/figures/mine.png") as figure:
        figure.verify()

    records = pd.read_parquet(project / RECORDS / "train.parquet")
    assert records["expression"].tolist()[1:3] == ["red umbrella, folded", "red umbrella"]
    assert records["mask"].isna().all()
    assert (project / RECORDS / "train.skipped.csv").read_text(encoding="utf-8").count("\n") == 1  # the header
    turned = records.loc[records["file_name"].str.endswith("garden/001.jpg"), ["width", "height"]]
    assert (turned.to_numpy() == SIZE[::-1]).all()
    seen = pd.read_csv(project / "results/photos/runs/mine-mpa/seed0/images.csv")
    assert len(seen) == records["image_id"].nunique()

    run(project, "bash", "-ec", self_trained)
    taught = pd.read_parquet(project / "results/photos/pseudo_labels/mine-mpa-pseudo/seed0.parquet")
    assert set(taught["record_id"]) <= set(records["record_id"]) and taught["mask"].notna().all()
    (difference,) = map(yaml.safe_load, blocks("yaml"))
    difference["training"]["weak"]["iterations"] = 2
    (project / "fine-tune.yaml").write_text(yaml.safe_dump(difference))
    run(project, "bash", "-ec", fine_tuned)

    run(project, "bash", "-ec", to_scores)
    summary = json.loads((project / "results/photos/scores/mine-mpa/seed0/mine-val-otsu.json").read_text())
    assert (summary["num_records"], summary["num_without_mask"]) == (2, 1)


def test_the_frozen_encoders_run_once_for_all_trainings(project: Path) -> None:
    logs = project / "results/photos/logs/encode/mine"
    assert len(list(logs.glob("train-patches-*.log"))) == 2  # crops to train on, whole images for the teacher's masks
    assert len(list(logs.glob("val-patches-*.log"))) == 1


def test_the_weights_of_frozen_encoders_are_in_the_model_and_fine_tuning_changes_the_last_blocks(project: Path) -> None:
    from safetensors import safe_open

    snapshot = next((project / "home/hub").glob("models--timm--*/snapshots/*/model.safetensors"))
    student = project / "results/photos/runs/mine-mpa-pseudo/seed0/model.safetensors"
    tuned = project / "results/fine-tuned/runs/mine-mpa/seed0/model.safetensors"
    with safe_open(snapshot, "np") as before, safe_open(student, "np") as frozen, safe_open(tuned, "np") as learnt:
        np.testing.assert_array_equal(
            frozen.get_tensor("image_encoder.vit.norm.weight"), before.get_tensor("norm.weight")
        )
        for block in (0, 9, 10, 11):
            name = f"blocks.{block}.mlp.fc1.weight"
            weights = before.get_tensor(name)
            np.testing.assert_array_equal(frozen.get_tensor(f"image_encoder.vit.{name}"), weights)
            assert np.array_equal(learnt.get_tensor(f"image_encoder.vit.{name}"), weights) == (block < 10)
