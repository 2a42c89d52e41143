"""Parts of an encoder that do not learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tseg.model.encoder import Encoder
from tseg.model.image_encoder import build_image_encoder
from tseg.model.language_model import learn_wordpiece
from tseg.model.text_encoder import build_language_model
from tseg.model.tseg import load_model, save_model
from tseg.model.weights import ArgumentError

from ..models import build_tseg
from ..provenances import model_provenance

WORDS = ["red square", "the green square on the left"]
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
BERT = {"hidden_size": 32, "num_layers": 3, "num_heads": 2, "vocabulary_size": 60}


def images() -> Tensor:
    return torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(2))


def vit(trainable: Any) -> Encoder:
    torch.manual_seed(0)
    return build_image_encoder("vit_tiny_patch16_224", VIT, None, 0.5, trainable=trainable)


def resnet(trainable: Any) -> Encoder:
    torch.manual_seed(0)
    return build_image_encoder("wide_resnet38", {"width": 1}, None, 0.0, trainable=trainable)


def bert(trainable: Any) -> Encoder:
    torch.manual_seed(0)
    return build_language_model(
        weights=None,
        pooling="first",
        max_tokens=12,
        dropout=0.5,
        random=BERT,
        trainable=trainable,
        learnt=learn_wordpiece(WORDS, 60),
    )


ENCODERS: dict[str, tuple[Callable[[Any], Encoder], Callable[[], Any]]] = {
    "vit": (vit, images),
    "resnet": (resnet, images),
    "bert": (bert, lambda: WORDS),
}


def learns(encoder: Any) -> bool:
    return any(weight.requires_grad for weight in encoder.parameters())


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_frozen_encoder_computes_in_training_as_in_evaluation(kind: str) -> None:
    """Without dropout, drop path and new statistics of batch norms; no gradient is recorded."""
    make, inputs = ENCODERS[kind]
    encoder = make("heads")
    assert not learns(encoder)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    expected = encoder.eval()(inputs())
    tokens = encoder.train()(inputs())
    assert torch.equal(tokens, expected)
    assert not tokens.requires_grad
    assert not any(module.training for module in encoder.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("kind", ENCODERS)
def test_by_default_everything_learns(kind: str) -> None:
    encoder = ENCODERS[kind][0]("all")
    assert all(weight.requires_grad for weight in encoder.parameters())
    assert all(module.training for module in encoder.train().modules())


@pytest.mark.parametrize("kind", ["vit", "bert"])
@pytest.mark.parametrize("number", [1, 2])
def test_only_the_last_blocks_and_the_last_norm_learn(kind: str, number: int) -> None:
    make, inputs = ENCODERS[kind]
    encoder = make(number).train()
    encoder(inputs()).square().mean().backward()
    learning = {name for name, weight in encoder.named_parameters() if weight.grad is not None}
    blocks = {f".{index}." for index in range(3 - number, 3)}
    assert {name for name, weight in encoder.named_parameters() if weight.requires_grad} == learning
    assert all(any(block in name for block in blocks) or name.startswith("vit.norm.") for name in learning)
    assert all(any(block in name for name in learning) for block in blocks)
    assert ("vit.norm.weight" in learning) == (kind == "vit")
    training = {name for name, module in encoder.named_modules() if module.training}
    assert all(any(block in f"{name}." for block in blocks) or name in ("vit.norm", "vit.fc_norm") for name in training)
    assert not any(module.training for module in encoder.eval().modules())


@pytest.mark.parametrize("kind", ["vit", "bert"])
@pytest.mark.parametrize("number", [0, 4])
def test_more_blocks_than_there_are_are_refused(kind: str, number: int) -> None:
    with pytest.raises(
        ArgumentError, match=rf"^{number} blocks cannot learn, as there are 3; choose 1 to 3$"
    ) as refused:
        ENCODERS[kind][0](number)
    assert refused.value.argument == "trainable"


def test_a_net_without_blocks_cannot_count_them() -> None:
    with pytest.raises(ArgumentError, match=r"^this encoder has no blocks to count; choose all or heads$"):
        resnet(1)


@pytest.mark.parametrize("trainable", ["heads", 1])
def test_what_is_frozen_stays_so_in_a_model_read_back(
    trainable: Any, architecture: dict[str, Any], tmp_path: Path
) -> None:
    for encoder in ("image_encoder", "text_encoder"):
        architecture[encoder]["trainable"] = trainable
    model = build_tseg(**architecture, tokenizer=learn_wordpiece(WORDS, 128))
    save_model(tmp_path / "model.safetensors", model, architecture, model_provenance())
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert torch.equal(loaded(images(), WORDS), model.eval()(images(), WORDS))
    learning = {name: weight.requires_grad for name, weight in model.named_parameters()}
    assert learning == {name: weight.requires_grad for name, weight in loaded.named_parameters()}
    assert learning["project_patches.weight"]
    assert not learning["image_encoder.vit.pos_embed"]


def test_a_pretrained_resnet_can_be_frozen_whole(architecture: dict[str, Any], tmp_path: Path) -> None:
    """Its own freezing of the first blocks does not thaw the others."""
    described = {
        "name": "wide_resnet38",
        "options": {"width": 1},
        "weights": None,
        "drop_path": 0.0,
        "trainable": "heads",
    }
    model = build_tseg(**architecture | {"image_encoder": described}, tokenizer=learn_wordpiece(WORDS, 128))
    pretrained = architecture | {"image_encoder": described | {"weights": "imagenet.pth"}}
    save_model(tmp_path / "model.safetensors", model, pretrained, model_provenance())
    assert not learns(load_model(tmp_path / "model.safetensors")[0].image_encoder)
