"""AugReg's `.npz` files: the weights of a ViT in the names and the layout of its original JAX implementation."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from timm.models import VisionTransformer
from torch import Tensor

from tseg.files import remember_read
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
"""Layer names, timm's to AugReg's; both without the prefix of a block."""


def load_augreg(vit: VisionTransformer, file: str) -> None:
    """Load the weights in `file`, except a classifier's, into `vit`.

    Raises ValueError if `file` is damaged or does not fit `vit`.
    """
    complaint = f"the weights {file!r} cannot be read"
    with parsing(complaint):
        found = _shapes(file)
    # Check first: timm silently resizes arrays that do not fit, and keeps random values for layers that AugReg lacks.
    check_fit(found, augreg_shapes(vit), ignored="^(head|pre_logits)/", weights=file)
    with parsing(complaint):
        vit.load_pretrained(file)
    remember_read(Path(file))


def augreg_shapes(vit: VisionTransformer) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array that an AugReg file for `vit` must have, except a classifier's."""
    outside = {name: weight for name, weight in vit.state_dict().items() if not name.startswith("blocks.")}
    shapes = dict(_arrays(outside, heads=1))
    blocks: Any = vit.blocks
    for index, block in enumerate(blocks):
        for name, shape in _arrays(block.state_dict(), block.attn.num_heads):
            shapes[f"Transformer/encoderblock_{index}/{name}"] = shape
    return shapes


def _arrays(weights: Mapping[str, Tensor], heads: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of each AugReg array for timm's `weights`, from one block or from outside all blocks."""
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
    """Name and shape of every floating-point array in an `.npz` file; for any other array, its type.

    Only headers are read: an array of Python objects is never unpickled.
    """
    shapes: dict[str, object] = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            with archive.open(member) as stream:
                np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            shapes[member.removesuffix(".npy")] = shape if dtype.kind == "f" else f"of type {dtype}"
    return shapes
