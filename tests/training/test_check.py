"""All mistakes of a configuration's encoders are told at once, each by the key that the user wrote."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from tseg.model.image_encoder import build_image_encoder
from tseg.settings.encoders import UsedEncoders
from tseg.settings.plan import Plan
from tseg.training.check import check_encoders, summarise

from ..model.test_text_families import IMAGE, publish

from transformers import ViTConfig, ViTModel  # isort: skip  (after tseg.model, which sees to torchvision)

VIT = {"name": "vit_tiny_patch16_224", "options": {}, "weights": None, "drop_path": 0.0}
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
WORDS = {"weights": None, "max_tokens": 12, "dropout": 0.0}
RANDOM = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "vocabulary_size": 60}


def check(tmp_path: Path, image: dict[str, Any], text: dict[str, Any], resolution: int = 96) -> list[dict[str, Any]]:
    used = {"image_key": "image_encoders.vit", "image_encoder": VIT | image}
    used |= {"text_key": "language_model", "language_model": WORDS | text}
    used |= {"resolution_key": "training.weak.resolution", "resolution": resolution}
    return check_encoders(UsedEncoders.model_validate(used), tmp_path / "encoders.json")


def mistakes(tmp_path: Path, *arguments: Any, **changed: Any) -> list[str]:
    with pytest.raises(ValueError) as refused:
        check(tmp_path, *arguments, **changed)
    assert not (tmp_path / "encoders.json").exists()
    return str(refused.value).splitlines()


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_an_encoder_is_described(tmp_path: Path) -> None:
    image, text = check(tmp_path, {"options": SMALL, "trainable": 1}, {"random": RANDOM, "trainable": "heads"})
    encoder = build_image_encoder(VIT["name"], SMALL, None, 0.0)
    assert image == {
        "key": "image_encoders.vit",
        "family": "VisionTransformer",
        "name": "vit_tiny_patch16_224",
        "weights": None,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "patch_size": 8,
        "grid": [4, 4],
        "prefix_tokens": 1,
        "positions": "learnt, bilinear",
        "features": 32,
        "parameters": sum(weight.numel() for weight in encoder.parameters()),
        "learning_parameters": sum(weight.numel() for weight in encoder.vit.blocks[1].parameters()) + 2 * 32,
    }
    expected = {"family": "BertModel", "pooling": "first", "max_tokens": 12, "features": 32, "learning_parameters": 0}
    assert expected.items() <= text.items()
    assert json.loads((tmp_path / "encoders.json").read_text()) == [image, text]
    line = "image_encoders.vit: family VisionTransformer, name vit_tiny_patch16_224, mean [0.5, 0.5, 0.5], std "
    assert summarise(image).startswith(line)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    publish("BERT", tmp_path / "bert")
    image = {"options": {"patch_size": 14, "img_size": 224}, "weights": "data/raw/gone.pth", "trainable": 30}
    text = {"weights": str(tmp_path / "bert"), "max_tokens": 600, "trainable": 9}
    assert mistakes(tmp_path, image, text, resolution=384) == [
        "image_encoders.vit.weights: the weights 'data/raw/gone.pth' are neither a file nor a name on timm's hub; "
        "`tseg fetch vit_small` downloads weights to data/raw/vit_small",
        "image_encoders.vit.trainable: 30 blocks cannot learn, as there are 12; choose 1 to 12",
        "training.weak.resolution: 384 is no multiple of the patch size 14 of image_encoders.vit; choose 378 or 392",
        f"language_model.max_tokens: 600 tokens are more than the 12 positions of the weights '{tmp_path / 'bert'}'; "
        "lower it",
        "language_model.trainable: 9 blocks cannot learn, as there are 3; choose 1 to 3",
    ]


@pytest.mark.parametrize(
    ("wrong", "begin"),
    [
        ({"name": "swin_tiny_patch4_window7_224"}, "name: 'swin_tiny_patch4_window7_224' is not a ViT"),
        (
            {"name": "vit_smal_patch16_224"},
            "name: timm has no 'vit_smal_patch16_224'; did you mean vit_small_patch16_224?",
        ),
        (
            {"options": {"wings": 2}},
            "options: timm cannot build 'vit_tiny_patch16_224' with the options {'wings': 2}: ",
        ),
        (
            {"weights": "vit_small_patch16_224.dino"},
            "weights: the weights 'vit_small_patch16_224.dino' are for the ViT ",
        ),
        ({"name": "wide_resnet38", "drop_path": 0.5}, "drop_path: wide_resnet38 has no drop path"),
        ({"name": "wide_resnet38", "trainable": 2}, "trainable: this encoder has no blocks to count"),
    ],
)
def test_a_mistake_has_the_key_of_its_setting(tmp_path: Path, wrong: dict[str, Any], begin: str) -> None:
    (only,) = mistakes(tmp_path, wrong, {"random": RANDOM})
    assert only.startswith(f"image_encoders.vit.{begin}")


def test_an_unknown_normalisation_is_told_by_its_key(tmp_path: Path) -> None:
    vit = build_image_encoder("vit_small_patch16_224", SMALL, None, 0.0)
    torch.save(vit.get_submodule("vit").state_dict(), tmp_path / "own.pth")
    image = {"name": "vit_small_patch16_224", "options": SMALL, "weights": str(tmp_path / "own.pth")}
    (only,) = mistakes(tmp_path, image, {"random": RANDOM})
    assert only.startswith(f"image_encoders.vit.mean: the weights '{tmp_path / 'own.pth'}' do not say how their images")
    check(tmp_path, image | {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}, {"random": RANDOM})


def test_weights_are_not_blamed_for_wrong_options(tmp_path: Path) -> None:
    vit = build_image_encoder("vit_tiny_patch16_224", SMALL, None, 0.0)
    torch.save(vit.get_submodule("vit").state_dict(), tmp_path / "own.pth")
    image = {"options": SMALL | {"wings": 2}, "weights": str(tmp_path / "own.pth")}
    (only,) = mistakes(tmp_path, image, {"random": RANDOM})
    assert only.startswith("image_encoders.vit.options: ")


def test_missing_weights_of_a_hub_are_told_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    image = {"name": "vit_small_patch14_dinov2", "weights": "vit_small_patch14_dinov2.lvd142m"}
    first, second = mistakes(tmp_path, image, {"weights": "lab/words"}, resolution=14 * 8)
    assert first.startswith(
        "image_encoders.vit.weights: the weights 'vit_small_patch14_dinov2.lvd142m' cannot be loaded"
    )
    assert "`hf download timm/vit_small_patch14_dinov2.lvd142m` fetches them" in first
    assert second.startswith("language_model.weights: the weights 'lab/words' cannot be loaded")
    assert "`hf download lab/words` fetches" in second


def test_a_pooling_that_confuses_all_expressions_is_told(tmp_path: Path) -> None:
    """The first token of CLIP sees nothing of the expression."""
    publish("CLIP", tmp_path / "clip")
    text = {"weights": str(tmp_path / "clip"), "pooling": "first", "max_tokens": None}
    (only,) = mistakes(tmp_path, {"options": SMALL}, text)
    assert only.startswith(
        "language_model.pooling: first gives all expressions the same token with these weights; choose "
    )
    check(tmp_path, {"options": SMALL}, text | {"pooling": "last"})


def test_the_encoders_of_the_default_configuration_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    plan = Plan.read(["config/config.yaml"])
    described = [
        each for used in plan.encoders.values() for each in check_encoders(used, tmp_path / f"{used.name}.json")
    ]
    keys = {f"image_encoders.{key}" for key in plan.settings.image_encoders}
    assert {each["key"] for each in described} == keys | {"language_model"}


DINOV2 = {"name": "vit_small_patch14_dinov2", "options": SMALL | {"img_size": 112, "patch_size": 14}}
OWN = {"name": "vit_small_patch16_224", "options": SMALL, "weights": "my/vit.pth"}
DOCUMENTED: list[tuple[dict[str, Any], dict[str, Any], int]] = [
    ({"name": "swin_tiny_patch4_window7_224"}, {}, 96),
    ({"name": "vit_smal_patch16_224"}, {}, 96),
    ({"name": "vit_small_patch16_224.dino2"}, {}, 96),
    ({"options": {"num_heads": 5}}, {}, 96),
    ({"weights": "my/gone.pth"}, {}, 96),
    ({"weights": "vit_small_patch16_224.dino"}, {}, 96),
    (OWN, {}, 96),
    (OWN | {"name": "vit_small_patch16_224.dino", "options": SMALL | {"depth": 1}}, {}, 96),
    ({"trainable": 30}, {}, 96),
    (DINOV2, {}, 384),
    ({}, {"weights": "my"}, 96),
    ({}, {"weights": "my/image-model"}, 96),
    ({}, {"weights": "my/bert", "max_tokens": 600}, 96),
    ({}, {"weights": "my/clip", "pooling": "first"}, 96),
]


def test_the_messages_of_the_documentation_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8").splitlines()
    monkeypatch.chdir(tmp_path)
    for name in ("BERT", "CLIP"):
        publish(name, Path("my") / name.lower())
    ViTModel(ViTConfig(**IMAGE, patch_size=8)).save_pretrained("my/image-model")
    vit = build_image_encoder("vit_small_patch16_224", SMALL, None, 0.0)
    torch.save(vit.get_submodule("vit").state_dict(), "my/vit.pth")
    for image, text, resolution in DOCUMENTED:
        (message,) = mistakes(tmp_path, image, {"random": RANDOM} | text, resolution)
        assert message in document
