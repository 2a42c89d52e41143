"""AugReg's files against a NumPy version of the JAX ViT that they belong to."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf, softmax
from torch import Tensor

from tseg.model.image_encoder import ViTEncoder, build_vit

import timm  # isort: skip  (after tseg.model.image_encoder, which sees to torchvision)
from safetensors.torch import save_file  # isort: skip

NAME = "vit_tiny_patch16_224"
OPTIONS: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
WIDTH, HEADS, PATCH = OPTIONS["embed_dim"], OPTIONS["num_heads"], OPTIONS["patch_size"]

Arrays = dict[str, np.ndarray]


def block_shapes() -> dict[str, tuple[int, ...]]:
    """The variables of an Encoder1DBlock: two LayerNorms, MultiHeadDotProductAttention, MlpBlock."""
    shapes: dict[str, tuple[int, ...]] = {}
    for norm in ("LayerNorm_0", "LayerNorm_2"):
        shapes |= {f"{norm}/scale": (WIDTH,), f"{norm}/bias": (WIDTH,)}
    attention = "MultiHeadDotProductAttention_1"
    for part in ("query", "key", "value"):
        shapes |= {f"{attention}/{part}/kernel": (WIDTH, HEADS, WIDTH // HEADS)}
        shapes |= {f"{attention}/{part}/bias": (HEADS, WIDTH // HEADS)}
    shapes |= {f"{attention}/out/kernel": (HEADS, WIDTH // HEADS, WIDTH), f"{attention}/out/bias": (WIDTH,)}
    shapes |= {"MlpBlock_3/Dense_0/kernel": (WIDTH, 4 * WIDTH), "MlpBlock_3/Dense_0/bias": (4 * WIDTH,)}
    return shapes | {"MlpBlock_3/Dense_1/kernel": (4 * WIDTH, WIDTH), "MlpBlock_3/Dense_1/bias": (WIDTH,)}


def random_arrays(depth: int = 2) -> Arrays:
    """A file of AugReg's with random numbers."""
    shapes: dict[str, tuple[int, ...]] = {"cls": (1, 1, WIDTH), "embedding/bias": (WIDTH,)}
    shapes |= {"embedding/kernel": (PATCH, PATCH, 3, WIDTH), "head/kernel": (WIDTH, 10), "head/bias": (10,)}
    shapes |= {"Transformer/posembed_input/pos_embedding": (1, 17, WIDTH)}
    shapes |= {"Transformer/encoder_norm/scale": (WIDTH,), "Transformer/encoder_norm/bias": (WIDTH,)}
    for number in range(depth):
        shapes |= {f"Transformer/encoderblock_{number}/{name}": shape for name, shape in block_shapes().items()}
    generator = np.random.default_rng(0)
    return {name: generator.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def jax_vit(arrays: Arrays, images: np.ndarray) -> np.ndarray:
    """Patch tokens (B, 16, D) of images (B, 32, 32, 3), float64, module by module."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return normed * arrays[f"{name}/scale"] + arrays[f"{name}/bias"]

    def dense(x: np.ndarray, name: str, equation: str = "bnd,de->bne") -> np.ndarray:
        return np.einsum(equation, x, arrays[f"{name}/kernel"]) + arrays[f"{name}/bias"]

    def attention(x: np.ndarray, name: str) -> np.ndarray:
        query, key, value = (dense(x, f"{name}/{part}", "bnd,dhk->bnhk") for part in ("query", "key", "value"))
        weights = softmax(np.einsum("bnhk,bmhk->bhnm", query, key) / math.sqrt(WIDTH / HEADS), axis=-1)
        return dense(np.einsum("bhnm,bmhk->bnhk", weights, value), f"{name}/out", "bnhk,hkd->bnd")

    def mlp(x: np.ndarray, name: str) -> np.ndarray:
        hidden = dense(x, f"{name}/Dense_0")
        return dense(hidden * (1 + erf(hidden / math.sqrt(2))) / 2, f"{name}/Dense_1")

    number, side = len(images), 32 // PATCH
    windows = images.reshape(number, side, PATCH, side, PATCH, 3)
    x = dense(windows, "embedding", "bipjqc,pqcd->bijd").reshape(number, side * side, WIDTH)
    x = np.concatenate([np.tile(arrays["cls"], (number, 1, 1)), x], axis=1)
    x = x + arrays["Transformer/posembed_input/pos_embedding"]
    for block in range(OPTIONS["depth"]):
        name = f"Transformer/encoderblock_{block}"
        x = x + attention(norm(x, f"{name}/LayerNorm_0"), f"{name}/MultiHeadDotProductAttention_1")
        x = x + mlp(norm(x, f"{name}/LayerNorm_2"), f"{name}/MlpBlock_3")
    return norm(x, "Transformer/encoder_norm")[:, 1:]


def in_jax_layout(weights: dict[str, Tensor]) -> Arrays:
    """timm's weights as AugReg's arrays: kernels of shape (inputs, outputs), with separate attention heads."""
    arrays: Arrays = {"cls": weights["cls_token"].numpy()}
    arrays["embedding/kernel"] = weights["patch_embed.proj.weight"].permute(2, 3, 1, 0).numpy()
    arrays["embedding/bias"] = weights["patch_embed.proj.bias"].numpy()
    arrays["Transformer/posembed_input/pos_embedding"] = weights["pos_embed"].numpy()
    arrays["Transformer/encoder_norm/scale"] = weights["norm.weight"].numpy()
    arrays["Transformer/encoder_norm/bias"] = weights["norm.bias"].numpy()
    for number in range(OPTIONS["depth"]):
        theirs, ours = f"Transformer/encoderblock_{number}", f"blocks.{number}"
        for norm, name in {"LayerNorm_0": "norm1", "LayerNorm_2": "norm2"}.items():
            arrays[f"{theirs}/{norm}/scale"] = weights[f"{ours}.{name}.weight"].numpy()
            arrays[f"{theirs}/{norm}/bias"] = weights[f"{ours}.{name}.bias"].numpy()
        for index, part in enumerate(("query", "key", "value")):
            rows = slice(index * WIDTH, (index + 1) * WIDTH)
            name = f"{theirs}/MultiHeadDotProductAttention_1/{part}"
            arrays[f"{name}/kernel"] = weights[f"{ours}.attn.qkv.weight"][rows].T.reshape(WIDTH, HEADS, -1).numpy()
            arrays[f"{name}/bias"] = weights[f"{ours}.attn.qkv.bias"][rows].reshape(HEADS, -1).numpy()
        name = f"{theirs}/MultiHeadDotProductAttention_1/out"
        arrays[f"{name}/kernel"] = weights[f"{ours}.attn.proj.weight"].T.reshape(HEADS, -1, WIDTH).numpy()
        arrays[f"{name}/bias"] = weights[f"{ours}.attn.proj.bias"].numpy()
        for dense in range(2):
            arrays[f"{theirs}/MlpBlock_3/Dense_{dense}/kernel"] = weights[f"{ours}.mlp.fc{dense + 1}.weight"].T.numpy()
            arrays[f"{theirs}/MlpBlock_3/Dense_{dense}/bias"] = weights[f"{ours}.mlp.fc{dense + 1}.bias"].numpy()
    return arrays


def build(file: Path, **options: int) -> ViTEncoder:
    torch.manual_seed(0)
    return build_vit(NAME, OPTIONS | options, str(file), drop_path=0.0).eval()


def saved(file: Path, arrays: Any) -> Path:
    np.savez(file, **arrays)
    return file


def test_features_are_those_of_the_jax_vit(tmp_path: Path) -> None:
    arrays, images = random_arrays(), np.random.default_rng(1).normal(size=(2, 32, 32, 3))
    encoder = build(saved(tmp_path / "vit.npz", arrays)).double()
    features = encoder(torch.from_numpy(images).permute(0, 3, 1, 2)).detach().numpy()
    np.testing.assert_allclose(features, jax_vit(arrays, images), rtol=1e-9, atol=1e-9)


def test_both_layouts_of_the_same_weights_give_the_same_features(tmp_path: Path) -> None:
    torch.manual_seed(1)
    vit = timm.create_model(NAME, num_classes=0, global_pool="", **OPTIONS)
    for weight in vit.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    arrays: Any = in_jax_layout(vit.state_dict())
    np.savez_compressed(tmp_path / "vit.npz", **arrays)
    images = torch.randn(2, 3, 40, 24)
    ours, theirs = build(tmp_path / "vit.npz"), build(tmp_path / "vit.safetensors")
    assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"depth": 1}, r"16 of its tensors: Transformer/encoderblock_1/\S+ is \(\S+\), expected none"),
        ({"depth": 3}, r"16 of its tensors: Transformer/encoderblock_2/LayerNorm_0/scale is missing, expected \(32,\)"),
        ({"embed_dim": 64}, r"cls is \(1, 1, 32\), expected \(1, 1, 64\)"),
        ({"num_heads": 2}, r"14 of its tensors: \S+query/kernel is \(32, 4, 8\), expected \(32, 2, 16\)"),
        (
            {"patch_size": 4, "img_size": 16},
            r"1 of its tensors: embedding/kernel is \(8, 8, 3, 32\), expected \(4, 4, 3, 32",
        ),
        ({"img_size": 40}, r"1 of its tensors: \S+input/pos_embedding is \(1, 17, 32\), expected \(1, 26, 32\)"),
        ({"class_token": 0}, r"2 of its tensors: \S+pos_embedding is .*; cls is \(1, 1, 32\), expected none"),
        ({"reg_tokens": 2}, r"2 of its tensors: reg_token is missing, expected \(1, 2, 32\)"),
        ({"init_values": 1}, r"4 of its tensors: Transformer/encoderblock_0/ls1/gamma is missing, expected \(32,\)"),
        (
            {"qk_norm": 1},
            r"8 of its tensors: Transformer/encoderblock_0/attn\.q_norm/scale is missing, expected \(8,\)",
        ),
        ({"mlp_ratio": 2}, r"6 of its tensors: \S+/Dense_0/kernel is \(32, 128\), expected \(32, 64\)"),
    ],
)
def test_a_file_of_another_architecture_is_refused(tmp_path: Path, option: dict[str, int], complaint: str) -> None:
    file = saved(tmp_path / "vit.npz", random_arrays())
    with pytest.raises(ValueError, match=rf"^the weights '\S+vit\.npz' do not fit the encoder .*{complaint}"):
        build(file, **option)


@pytest.mark.parametrize("prefix", ["opt/target/", "params/"])
def test_names_of_another_layout_are_refused(tmp_path: Path, prefix: str) -> None:
    file = saved(tmp_path / "vit.npz", {prefix + name: array for name, array in random_arrays().items()})
    with pytest.raises(ValueError, match=r"cls is missing, expected \(1, 1, 32\)"):
        build(file)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("a pickle ran code",))


def test_an_array_of_objects_is_refused_and_its_code_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(tmp_path / "vit.npz", random_arrays() | {"cls": np.full((1, 1, WIDTH), Harmful(), dtype=object)})
    with pytest.raises(ValueError, match=r"vit\.npz' do not fit .* 1 of its tensors: cls is of type object, expected"):
        build(file)
    assert "ran code" not in capsys.readouterr().out


def test_an_array_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    """Its header declares a terabyte that the file does not have."""
    file = saved(tmp_path / "vit.npz", random_arrays())
    with zipfile.ZipFile(file, "a") as archive, archive.open("more.npy", "w") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**38,)}
        np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(ValueError, match=r"1 of its tensors: more is \(274877906944,\), expected none"):
        build(file)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    content = saved(tmp_path / "whole.npz", random_arrays()).read_bytes()
    (tmp_path / "vit.npz").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"^the weights '\S+vit\.npz' cannot be read: "):
        build(tmp_path / "vit.npz")


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    file = saved(tmp_path / "vit.npz", random_arrays())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"vit\.npz' cannot be read: Bad CRC"):
        build(file)


@pytest.mark.parametrize("content", [b"no weights at all", b"\x93NUMPY\x01\x00", b"PK\x05\x06" + bytes(18)])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vit.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"^the weights '\S+vit\.npz' (cannot be read: |do not fit)"):
        build(tmp_path / "vit.npz")
