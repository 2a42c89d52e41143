"""AugReg's `.npz` files: a ViT's weights as its original implementation, in JAX, names them and lays them out."""

import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from timm.models import VisionTransformer
from torch import Tensor

from tseg.model.weights import check_fit, parsing

_ATTENTION = "MultiHeadDotProductAttention_1"
_NAMES = {
    "cls_token": "cls",
    "pos_embed": "Transformer/posembed_input/pos_embedding",
    "patch_embed.proj": "embedding",
    "norm1": "LayerNorm_0",
    "attn.proj": f"{_ATTENTION}/out",
    "norm2": "LayerNorm_2",
    "mlp.fc1": "MlpBlock_3/Dense_0",
    "mlp.fc2": "MlpBlock_3/Dense_1",
    "norm": "Transformer/encoder_norm",
}
"""What timm calls a layer, inside a block or outside, to what AugReg calls it."""


def load_augreg(vit: VisionTransformer, file: str, *, origin: str, architecture: str) -> None:
    """Fill `vit` with the weights in `file`, a classifier's aside.

    Raises ValueError, which `origin` opens, where `file` is damaged or does not fit the `architecture` of `vit`.
    """
    complaint = f"{origin} is no readable file of weights"
    with parsing(complaint):
        found = _shapes(file)
    # By itself timm would resize what does not fit, and leave at random what it does not look for.
    check_fit(found, augreg_shapes(vit), ignored="^(head|pre_logits)/", origin=origin, architecture=architecture)
    with parsing(complaint):
        vit.load_pretrained(file)


def augreg_shapes(vit: VisionTransformer) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays in which a file of AugReg's has the weights of `vit`, a classifier's aside."""
    outside = {name: weight for name, weight in vit.state_dict().items() if not name.startswith("blocks.")}
    shapes = dict(_arrays(outside, heads=1))
    blocks: Any = vit.blocks
    for number, block in enumerate(blocks):
        for name, shape in _arrays(block.state_dict(), block.attn.num_heads):
            shapes[f"Transformer/encoderblock_{number}/{name}"] = shape
    return shapes


def _arrays(weights: Mapping[str, Tensor], heads: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of AugReg's arrays for timm's `weights`, those of one block or all that are outside."""
    for timm_name, weight in weights.items():
        shape = list(weight.shape)
        layer, _, kind = timm_name.rpartition(".")
        if kind == "weight":
            kind = "scale" if weight.ndim == 1 else "kernel"
        if layer == "attn.qkv":
            for part in ("query", "key", "value"):
                yield f"{_ATTENTION}/{part}/{kind}", (*shape[1:], heads, shape[0] // 3 // heads)
        elif (layer, kind) == ("attn.proj", "kernel"):
            yield f"{_NAMES[layer]}/{kind}", (heads, shape[1] // heads, shape[0])
        elif layer:
            # From (outputs, inputs, rows, columns) to (rows, columns, inputs, outputs).
            yield f"{_NAMES.get(layer, layer)}/{kind}", (*shape[2:], *shape[1::-1])
        else:
            yield _NAMES.get(timm_name, timm_name), tuple(shape)


def _shapes(file: str) -> dict[str, object]:
    """Name and shape of every array of floating-point numbers in an `.npz` file, of any other its type.

    No array is read, only what stands before it: one of Python objects is never unpickled.
    """
    shapes: dict[str, object] = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            with archive.open(member) as stream:
                np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            shapes[member.removesuffix(".npy")] = shape if dtype.kind == "f" else f"of type {dtype}"
    return shapes
