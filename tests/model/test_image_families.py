"""Ten families of timm's ViTs, small and with random weights: tokens, normalisation, one training step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from tseg.model.image_encoder import ViTEncoder, build_image_encoder
from tseg.model.language_model import learn_wordpiece

from ..models import build_tseg

import timm  # isort: skip  (after tseg.model.image_encoder, which sees to torchvision)
from safetensors.torch import save_file  # isort: skip

FAMILIES = {
    "AugReg": "vit_small_patch16_384.augreg_in21k_ft_in1k",
    "DeiT": "deit_small_patch16_224.fb_in1k",
    "distilled DeiT": "deit_small_distilled_patch16_224.fb_in1k",
    "DINO": "vit_small_patch16_224.dino",
    "DINOv2": "vit_small_patch14_dinov2.lvd142m",
    "DINOv2 with registers": "vit_small_patch14_reg4_dinov2.lvd142m",
    "DINOv3": "vit_small_patch16_dinov3.lvd1689m",
    "SigLIP": "vit_base_patch16_siglip_224.webli",
    "CLIP": "vit_base_patch16_clip_224.openai",
    "EVA-02": "eva02_tiny_patch14_224.mim_in22k",
}
SMALL = {"img_size": 112, "embed_dim": 32, "depth": 2, "num_heads": 2}
"""112 pixels are a whole number of patches of 14 and of 16."""
DOCUMENT = Path(__file__).parents[2] / "docs" / "encoders.md"


def small(name: str, weights: str | None = None, **changed: Any) -> ViTEncoder:
    torch.manual_seed(0)
    encoder = build_image_encoder(name, SMALL, weights, drop_path=0.0, **changed)
    assert isinstance(encoder, ViTEncoder)
    return encoder.eval()


def published(name: str, path: Path) -> Any:
    """timm's own small model with its classifier and pooling, saved in `path`, its positions and scales large."""
    torch.manual_seed(1)
    vit: Any = timm.create_model(name, num_classes=10, dynamic_img_size=True, **SMALL)
    for key, weight in vit.named_parameters():
        if "pos_embed" in key or "gamma" in key:
            torch.nn.init.normal_(weight)
    save_file(vit.state_dict(), path)
    return vit.eval()


def images(rows: int, columns: int, patch_size: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, rows * patch_size, columns * patch_size, generator=generator)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("grid", [(8, 8), (7, 7), (3, 10)])
def test_tokens_are_those_of_timm_at_any_size(tmp_path: Path, family: str, grid: tuple[int, int]) -> None:
    """Here with timm's bicubic positions; every weight comes from the file, what follows the tokens is left out."""
    name, path = FAMILIES[family], tmp_path / "vit.safetensors"
    theirs, ours = published(name, path), small(name, str(path), positions="bicubic")
    inputs = images(*grid, ours.patch_size)
    with torch.no_grad():
        expected = theirs.fc_norm(theirs.forward_features(inputs))[:, theirs.num_prefix_tokens :]
        tokens = ours(inputs)
    assert tokens.shape == (2, grid[0] * grid[1], ours.num_features)
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_normalisation_is_that_of_the_published_weights(family: str) -> None:
    encoder, config = small(FAMILIES[family]), timm.models.get_pretrained_cfg(FAMILIES[family])
    assert (encoder.mean, encoder.std) == (config.mean, config.std)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_step_reaches_every_weight(family: str, architecture: dict[str, Any]) -> None:
    torch.manual_seed(0)
    architecture["image_encoder"] = {"name": FAMILIES[family], "options": SMALL, "weights": None, "drop_path": 0.1}
    words = ["red square", "the green square on the left"]
    model = build_tseg(**architecture, tokenizer=learn_wordpiece(words, 128)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = {name: weight.clone() for name, weight in model.image_encoder.named_parameters()}
    assert isinstance(model.image_encoder, ViTEncoder)
    softplus(-model(images(5, 7, model.patch_size), words)).mean().backward()
    optimizer.step()
    assert [name for name, weight in model.image_encoder.named_parameters() if torch.equal(weight, before[name])] == []


@pytest.mark.parametrize("family", ["DINOv2", "EVA-02", "DINOv3"])
def test_the_kind_of_resizing_matters_only_to_learnt_positions(family: str) -> None:
    name = FAMILIES[family]
    encoders = [small(name, positions=kind) for kind in ("bilinear", "bicubic")]
    for encoder in encoders:
        for position in (weight for key, weight in encoder.named_parameters() if key.endswith("pos_embed")):
            torch.nn.init.normal_(position, generator=torch.Generator().manual_seed(3))
    inputs = images(5, 9, encoders[0].patch_size)
    first, second = (encoder(inputs) for encoder in encoders)
    assert torch.equal(first, second) == (family == "DINOv3")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_without_exactly_the_weights_is_refused(tmp_path: Path, family: str) -> None:
    path = tmp_path / "vit.safetensors"
    weights = published(FAMILIES[family], path).state_dict()
    lacking = {name: weight for name, weight in weights.items() if name != "blocks.1.norm2.weight"}
    for wrong, complaint in (
        (lacking, r"blocks\.1\.norm2\.weight is missing"),
        (weights | {"adapter": torch.ones(1)}, r"adapter is \(1,\), expected none"),
    ):
        save_file(wrong, path)
        with pytest.raises(ValueError, match=rf"do not fit the encoder in 1 of its tensors: {complaint}"):
            small(FAMILIES[family], str(path))


def test_the_token_of_masked_patches_is_not_needed(tmp_path: Path) -> None:
    """Files of DINOv2's authors have it."""
    name, path = FAMILIES["DINOv2"], tmp_path / "dinov2.pth"
    weights = published(name, tmp_path / "vit.safetensors").state_dict()
    torch.save(weights | {"mask_token": torch.zeros(1, 32)}, path)
    encoder = small(name, str(path))
    assert all(torch.equal(weight, weights[key]) for key, weight in encoder.vit.state_dict().items())


def described(family: str, name: str) -> str:
    """A line of the table of docs/encoders.md, from timm's model at its own size."""
    with torch.device("meta"):
        encoder = build_image_encoder(name, {}, None, drop_path=0.0)
    vit: Any = encoder.vit
    learnt = "learnt" if vit.pos_embed is not None else ""
    rotary = "rotary" if getattr(vit, "rope", None) is not None else ""
    cells = (
        family,
        f"`{name}`",
        ", ".join(f"{value:.3f}".rstrip("0") for value in encoder.mean),
        ", ".join(f"{value:.3f}".rstrip("0") for value in encoder.std),
        encoder.patch_size,
        " x ".join(map(str, vit.patch_embed.grid_size)),
        vit.num_prefix_tokens,
        " and ".join(filter(None, (learnt, rotary))),
        encoder.num_features,
        f"{sum(weight.numel() for weight in encoder.parameters()) / 1e6:.1f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_of_the_documentation_is_true(family: str) -> None:
    assert described(family, FAMILIES[family]) in DOCUMENT.read_text(encoding="utf-8").splitlines()
