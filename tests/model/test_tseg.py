"""Similarities (eq. 1) and the model's file."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tseg.model.language_model import learn_wordpiece
from tseg.model.tseg import TSEG, load_model, save_model

from ..models import build_tseg

from safetensors.torch import save_file  # isort: skip

from ..provenances import model_provenance

EXPRESSIONS = ["red square", "square on the left", "green", "the leftmost blue square on the right"]
WIDE_RESNET38 = {"name": "wide_resnet38", "options": {"width": 1}, "weights": None, "drop_path": 0.0}
CLASSES = {"classes": EXPRESSIONS, "num_features": 16}
PROVENANCE = model_provenance()


def images(height: int = 32, width: int = 32, number: int = 2) -> Tensor:
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(0))


def unit_rows(tokens: Tensor, layer: torch.nn.Linear) -> np.ndarray:
    """Linear projection and L2 normalisation of tokens (..., D), in float64."""
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    projected = tokens.detach().double().numpy() @ weight.T + bias
    return projected / np.sqrt((projected**2).sum(axis=-1, keepdims=True))


def test_similarities_are_equation_1(model: TSEG) -> None:
    x = unit_rows(model.image_encoder(images()), model.project_patches)
    y = unit_rows(model.text_encoder(EXPRESSIONS), model.project_expressions)
    expected = model.tau.item() * np.einsum("bnd,ld->bnl", x, y)
    np.testing.assert_allclose(model(images(), EXPRESSIONS).detach(), expected, rtol=1e-4, atol=1e-5)


def test_a_hidden_layer_projects_patches_by_two_linear_maps_with_a_gelu_between(architecture: dict[str, Any]) -> None:
    wide = build_tseg(**architecture | {"patch_hidden": 12}, tokenizer=learn_wordpiece(EXPRESSIONS, 128)).eval()
    first, _, last = wide.project_patches
    tokens = wide.image_encoder(images()).detach().double().numpy()
    hidden = tokens @ first.weight.detach().double().numpy().T + first.bias.detach().double().numpy()
    gelu = torch.from_numpy(hidden * np.vectorize(lambda value: 0.5 * (1 + math.erf(value / math.sqrt(2))))(hidden))
    expected = unit_rows(gelu, last)
    np.testing.assert_allclose(wide.embed_patches(images()).detach(), expected, atol=1e-5)


def test_tokens_in_place_of_images_and_expressions_give_the_same_similarities(model: TSEG) -> None:
    tokens = model.image_encoder(images()), model.text_encoder(EXPRESSIONS)
    assert torch.equal(model(*tokens), model(images(), EXPRESSIONS))


@pytest.mark.parametrize("tau", [0.5, 10.0, 80.0])
def test_similarities_lie_between_minus_tau_and_tau(model: TSEG, tau: float) -> None:
    torch.nn.init.constant_(model.log_tau, np.log(tau))
    similarities = model(images(), EXPRESSIONS)
    assert model.tau.item() == pytest.approx(tau)
    assert similarities.abs().max() <= tau * (1 + 1e-6)
    cosines = model.embed_patches(images()) @ model.embed_expressions(EXPRESSIONS).T
    torch.testing.assert_close(similarities, tau * cosines)


def test_temperature_starts_at_tau_and_learns(model: TSEG) -> None:
    assert model.tau.item() == pytest.approx(10.0)
    model(images(), EXPRESSIONS).square().sum().backward()
    assert model.log_tau.grad is not None
    assert model.log_tau.grad.item() > 0


def test_temperature_stays_positive_under_any_update(model: TSEG) -> None:
    optimizer = torch.optim.SGD([model.log_tau], lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        model.tau.backward()
        optimizer.step()
    assert 0 < model.tau.item() < 1


def test_permuting_expressions_permutes_columns(model: TSEG) -> None:
    order = [2, 0, 3, 1]
    permuted = model(images(), [EXPRESSIONS[index] for index in order])
    torch.testing.assert_close(permuted, model(images(), EXPRESSIONS)[..., order], rtol=1e-4, atol=1e-5)


def test_a_similarity_depends_on_its_own_image_and_expression_alone(model: TSEG) -> None:
    together = model(images(24, 40, number=3), EXPRESSIONS)
    assert together.shape == (3, 15, len(EXPRESSIONS))
    for b, image in enumerate(images(24, 40, number=3)):
        for j, expression in enumerate(EXPRESSIONS):
            alone = model(image[None], [expression])
            torch.testing.assert_close(together[b : b + 1, :, j : j + 1], alone, rtol=1e-4, atol=1e-5)


def test_similarities_are_float32_under_bfloat16_autocast(model: TSEG) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        similarities = model(images(), EXPRESSIONS)
    assert similarities.dtype == torch.float32
    torch.testing.assert_close(similarities, model(images(), EXPRESSIONS), rtol=0, atol=0.5)


@pytest.mark.parametrize(
    "changed", [{}, {"image_encoder": WIDE_RESNET38}, {"text_encoder": CLASSES}, {"patch_hidden": 12}]
)
def test_a_model_of_any_encoders_read_back_is_the_same(
    architecture: dict[str, Any], changed: dict[str, Any], tmp_path: Path
) -> None:
    architecture |= changed
    tokenizer = None if "text_encoder" in changed else learn_wordpiece(EXPRESSIONS, 128)
    torch.manual_seed(3)
    model = build_tseg(**architecture, tokenizer=tokenizer)
    model.train()(images(), EXPRESSIONS)  # updates the statistics of batch norms
    save_model(tmp_path / "model.safetensors", model.eval(), architecture, PROVENANCE)
    loaded, provenance = load_model(tmp_path / "model.safetensors")
    assert provenance == PROVENANCE
    assert not any(module.training for module in loaded.modules())
    assert loaded.patch_size == model.patch_size
    assert loaded.image_encoder.mean == model.image_encoder.mean
    assert torch.equal(loaded(images(24, 40), EXPRESSIONS), model(images(24, 40), EXPRESSIONS))
    save_model(tmp_path / "again.safetensors", loaded, architecture, provenance)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_a_pretrained_net_stays_frozen_when_read_back(architecture: dict[str, Any], tmp_path: Path) -> None:
    architecture["image_encoder"] = WIDE_RESNET38
    model = build_tseg(**architecture, tokenizer=learn_wordpiece(EXPRESSIONS, 128))
    for weights, frozen in ((None, False), ("imagenet.pth", True)):
        described = architecture | {"image_encoder": WIDE_RESNET38 | {"weights": weights}}
        save_model(tmp_path / "model.safetensors", model, described, PROVENANCE)
        encoder = load_model(tmp_path / "model.safetensors")[0].train().image_encoder
        assert encoder.get_submodule("bn7").training is not frozen
        assert encoder.get_parameter("bn7.weight").requires_grad is not frozen


def test_the_same_model_is_the_same_bytes(
    make_model: Callable[[int], TSEG], architecture: dict[str, Any], tmp_path: Path
) -> None:
    for number in range(2):
        save_model(tmp_path / f"{number}.safetensors", make_model(3), architecture, PROVENANCE)
    save_model(tmp_path / "other.safetensors", make_model(4), architecture, PROVENANCE)
    assert (tmp_path / "0.safetensors").read_bytes() == (tmp_path / "1.safetensors").read_bytes()
    assert (tmp_path / "0.safetensors").read_bytes() != (tmp_path / "other.safetensors").read_bytes()


def test_a_model_is_the_same_bytes_before_and_after_use(
    model: TSEG, architecture: dict[str, Any], tmp_path: Path
) -> None:
    save_model(tmp_path / "before.safetensors", model, architecture, PROVENANCE)
    model(images(), EXPRESSIONS)
    save_model(tmp_path / "after.safetensors", model, architecture, PROVENANCE)
    assert (tmp_path / "before.safetensors").read_bytes() == (tmp_path / "after.safetensors").read_bytes()


def test_a_model_does_not_need_the_weights_that_its_encoders_started_from(
    model: TSEG, architecture: dict[str, Any], tmp_path: Path
) -> None:
    for encoder in ("image_encoder", "text_encoder"):
        architecture[encoder]["weights"] = "gone"
    save_model(tmp_path / "model.safetensors", model, architecture, PROVENANCE)
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert torch.equal(loaded(images(), EXPRESSIONS), model(images(), EXPRESSIONS))


def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match=r"model\.safetensors does not exist"):
        load_model(path)
    path.write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match=r"model\.safetensors is not a model of `tseg train`"):
        load_model(path)
    for metadata in ({}, {"format": json.dumps("pt")}, {"tseg": "no JSON"}, {"tseg": json.dumps({"architecture": {}})}):
        save_file({"weight": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises(ValueError, match=r"model\.safetensors is not a model of `tseg train`"):
            load_model(path)
    fields = json.loads(PROVENANCE.to_json())
    for wrong, message in (
        ({"provenance": {"kind": "records"}}, "is of another kind"),
        ({"provenance": fields | {"lot": 1}}, "is of another version; make it again with `tseg train`"),
        ({"provenance": fields}, "was not written by this version of `tseg train`"),
    ):
        header = {"architecture": {}, "bert": None, "tokenizer": None} | wrong
        save_file({"weight": torch.zeros(1)}, path, metadata={"tseg": json.dumps(header)})
        with pytest.raises(ValueError, match=rf"model\.safetensors {message}"):
            load_model(path)
