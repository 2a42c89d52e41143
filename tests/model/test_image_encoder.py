"""The image encoder against timm's own forward pass and torch's own interpolation."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.model.image_encoder import ViTEncoder, build_image_encoder, build_vit, check_hub_weights
from tseg.model.wide_resnet38 import WideResNet38

import timm  # isort: skip  (after tseg.model.image_encoder, which sees to torchvision)
from safetensors.torch import save_file  # isort: skip

NAME = "vit_tiny_patch16_224"
OPTIONS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def build(weights: Path | None = None, **options: int) -> ViTEncoder:
    torch.manual_seed(0)
    return build_vit(NAME, OPTIONS | options, str(weights) if weights else None, drop_path=0.0).eval()


def timm_vit(num_classes: int = 10, **options: Any) -> Any:
    """A ViT that timm made, its position embeddings large enough to matter."""
    torch.manual_seed(1)
    vit = timm.create_model(NAME, num_classes=num_classes, **(OPTIONS | options)).eval()
    torch.nn.init.normal_(vit.pos_embed)
    return vit


def pictures(height: int, width: int, number: int = 2) -> Tensor:
    return torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(2))


def test_tokens_at_the_native_size_are_those_of_timm_without_the_class_token() -> None:
    vit = timm_vit()
    expected = vit.forward_features(pictures(32, 32))[:, 1:]
    torch.testing.assert_close(ViTEncoder(timm_with_no_head(vit))(pictures(32, 32)), expected)


def timm_with_no_head(vit: Any) -> Any:
    """The same weights in a ViT as `build_image_encoder` makes it."""
    headless = timm.create_model(NAME, num_classes=0, global_pool="", **OPTIONS).eval()
    headless.load_state_dict({key: value for key, value in vit.state_dict().items() if not key.startswith("head.")})
    return headless


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (3, 7), (2, 2), (1, 5)])
def test_position_embeddings_at_another_grid_are_bilinear(rows: int, columns: int) -> None:
    """timm's ViT of that very size, given torch's interpolation, has the same tokens."""
    vit = timm_vit()
    class_token, grid = vit.pos_embed[:, :1], vit.pos_embed[:, 1:].unflatten(1, (4, 4)).movedim(-1, 1)
    resized = interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=False)
    native = timm_vit(img_size=(8 * rows, 8 * columns))
    positions = torch.cat([class_token, resized.flatten(2).movedim(1, 2)], dim=1)
    native.load_state_dict(vit.state_dict() | {"pos_embed": positions})
    inputs = pictures(8 * rows, 8 * columns)
    tokens = ViTEncoder(timm_with_no_head(vit))(inputs)
    assert tokens.shape == (2, rows * columns, 32)
    torch.testing.assert_close(tokens, native.forward_features(inputs)[:, 1:], rtol=1e-4, atol=1e-5)


def test_patches_come_in_reading_order() -> None:
    """Without any block a token knows its own patch alone."""
    encoder, inputs = build(depth=0), pictures(24, 40, number=1)
    changed = inputs.clone()
    changed[:, :, 8:16, 24:32] += 1  # row 1, column 3 of 3 x 5
    differs = (encoder(inputs) != encoder(changed)).any(dim=-1)[0]
    assert differs.nonzero().flatten().tolist() == [1 * 5 + 3]


def test_tokens_of_a_batch_are_those_of_its_pictures() -> None:
    encoder, inputs = build(), pictures(24, 40, number=3)
    single = torch.cat([encoder(picture[None]) for picture in inputs])
    torch.testing.assert_close(encoder(inputs), single, rtol=1e-4, atol=1e-5)


def test_drop_path_rises_linearly_to_its_rate() -> None:
    blocks = build_vit(NAME, OPTIONS | {"depth": 5}, None, drop_path=0.2).vit.blocks
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("num_classes", [0, 10])
def test_every_weight_comes_from_the_file(tmp_path: Path, suffix: str, num_classes: int) -> None:
    theirs = timm_vit(num_classes).state_dict()
    encoder = build(saved(tmp_path / f"vit.{suffix}", theirs))
    assert all(torch.equal(weight, theirs[name]) for name, weight in encoder.vit.state_dict().items())


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("wrong", ["lacks one", "has one more", "has none"])
def test_a_file_that_does_not_hold_just_the_weights_is_refused(tmp_path: Path, suffix: str, wrong: str) -> None:
    weights = timm_vit().state_dict()
    if wrong == "lacks one":
        del weights["blocks.1.mlp.fc1.bias"]
    elif wrong == "has one more":
        weights["blocks.2.mlp.fc1.bias"] = torch.zeros(1)
    else:
        weights = {}
    with pytest.raises(ValueError, match=r"image_encoders.*vit\."):
        build(saved(tmp_path / f"vit.{suffix}", weights))


@pytest.mark.parametrize("option", [{"embed_dim": 64}, {"depth": 3}, {"depth": 1}, {"patch_size": 16}])
def test_weights_of_another_architecture_are_refused(tmp_path: Path, option: dict[str, int]) -> None:
    file = saved(tmp_path / "vit.safetensors", timm_vit().state_dict())
    with pytest.raises(ValueError, match=r"image_encoders.*vit\.safetensors"):
        build(file, **option)


@pytest.mark.parametrize("name", ["vit.safetensors", "vit.pth", "absent.pth"])
@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    if name != "absent.pth":
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"image_encoders.*{name}"):
        build(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "options"),
    [("vit_of_nobody", {}), ("resnet18", {}), (NAME, {"wings": 2}), (NAME, OPTIONS | {"num_heads": 5})],
)
def test_a_model_that_cannot_be_an_encoder_is_refused(name: str, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"image_encoders"):
        build_image_encoder(name, options, None, drop_path=0.0)


def test_the_name_decides_on_the_kind_of_encoder() -> None:
    vit = build_image_encoder(NAME, OPTIONS, None, drop_path=0.0)
    resnet = build_image_encoder("wide_resnet38", {"width": 1}, None, drop_path=0.0)
    assert isinstance(vit, ViTEncoder)
    assert isinstance(resnet, WideResNet38)
    for encoder in (vit, resnet):
        tokens = encoder(pictures(24, 40))
        assert tokens.shape == (2, 24 * 40 // encoder.patch_size**2, encoder.num_features)


def hub_vit(mean: float, std: float) -> SimpleNamespace:
    """What `check_hub_weights` reads of a ViT from the hub."""
    return SimpleNamespace(pretrained_cfg={"mean": (mean,) * 3, "std": (std,) * 3})


def test_hub_weights_of_augreg_are_accepted() -> None:
    check_hub_weights(hub_vit(0.5, 0.5), NAME, f"{NAME}.augreg_in21k")


@pytest.mark.parametrize(
    ("mean", "std", "weights"), [(0.485, 0.5, NAME), (0.5, 0.225, NAME), (0.5, 0.5, "vit_small_patch16_224.augreg")]
)
def test_hub_weights_of_another_vit_or_normalisation_are_refused(mean: float, std: float, weights: str) -> None:
    with pytest.raises(ValueError, match=r"image_encoders"):
        check_hub_weights(hub_vit(mean, std), NAME, weights)


def saved(path: Path, weights: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path
