"""The image encoder: any timm ViT, at any picture size (section 3.1, "Image encoder"), or Table 1's wide ResNet."""

import tseg.torchvision_operators  # noqa: F401  (before timm is imported)

# isort: split
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import VisionTransformer, load_state_dict
from torch import Tensor, nn
from torch.func import functional_call

from tseg.model.wide_resnet38 import WideResNet38, build_wide_resnet38


class ViTEncoder(nn.Module):
    """Patch tokens of a ViT after its last norm.

    The position embeddings are learnt on the ViT's own grid and resized bilinearly to the grid of each picture.
    """

    mean = (0.5, 0.5, 0.5)
    """What is subtracted from red, green and blue in [0, 1]; that of AugReg ViTs."""
    std = (0.5, 0.5, 0.5)
    """What red, green and blue are then divided by."""

    def __init__(self, vit: VisionTransformer):
        super().__init__()
        vit.patch_embed.strict_img_size = False
        self.vit = vit

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.vit.patch_embed.patch_size[0]

    @property
    def num_features(self) -> int:
        """Size D_I of a patch token."""
        return self.vit.num_features

    def forward(self, pictures: Tensor) -> Tensor:
        """Patch tokens (B, N, D_I), in reading order, of pictures (B, 3, H, W) normalised by `mean` and `std`.

        H and W are multiples of the patch size; N = HW / patch_size^2.
        """
        assert self.vit.pos_embed is not None, "build_image_encoder refuses a ViT without"
        pos_embed = resample_abs_pos_embed(
            self.vit.pos_embed,
            new_size=[side // self.patch_size for side in pictures.shape[2:]],
            old_size=list(self.vit.patch_embed.grid_size),
            num_prefix_tokens=0 if self.vit.no_embed_class else self.vit.num_prefix_tokens,
            interpolation="bilinear",
            antialias=False,
        )
        tokens: Tensor = functional_call(self.vit, {"pos_embed": pos_embed}, (pictures,))
        return tokens[:, self.vit.num_prefix_tokens :]


ImageEncoder = ViTEncoder | WideResNet38
"""What turns pictures into patch tokens; both kinds have the same attributes."""


def build_image_encoder(name: str, options: dict[str, int], weights: str | None, drop_path: float) -> ImageEncoder:
    """The image encoder called `name`: `wide_resnet38` or a timm ViT; ValueError where there is no such encoder."""
    build = build_wide_resnet38 if name == "wide_resnet38" else partial(build_vit, name)
    return build(options, weights, drop_path)


def build_vit(name: str, options: dict[str, int], weights: str | None, drop_path: float) -> ViTEncoder:
    """A timm ViT called `name`, its constructor given `options`.

    `weights`: None for random ones; a `.safetensors` or `.pth` file with exactly the ViT's own, a classifier's aside;
    else a name that timm's hub knows, such as `vit_small_patch16_384.augreg_in21k_ft_in1k`. `drop_path` is the rate of
    the last block; it rises linearly. Raises ValueError where timm has no such ViT or the weights do not fit it.
    """
    arguments: dict[str, Any] = dict(num_classes=0, global_pool="", drop_path_rate=drop_path, **options)
    file = weights if weights is not None and Path(weights).is_file() else None
    try:
        if weights is None or file:
            vit = timm.create_model(name, pretrained=False, **arguments)
        else:
            vit = timm.create_model(weights, pretrained=True, **arguments)
        if file:
            # By itself timm would leave what the file lacks at random and resize what does not fit.
            found = load_state_dict(file, weights_only=True)
            vit.load_state_dict({key: value for key, value in found.items() if key[:5] != "head."})
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, EOFError, SafetensorError) as error:
        raise ValueError(
            f"image_encoders: timm cannot build {name!r} with options {options} and weights {weights!r}: {error}"
        ) from error
    if weights is not None and not file:
        check_hub_weights(vit, name, weights)
    if not isinstance(vit, VisionTransformer) or not isinstance(vit.pos_embed, torch.nn.Parameter):
        raise ValueError(
            f"image_encoders: name: {name!r} is not a ViT with position embeddings; "
            "choose wide_resnet38 or one of timm.list_models('vit_*')"
        )
    return ViTEncoder(vit)


def check_hub_weights(vit: Any, name: str, weights: str) -> None:
    """Raise ValueError unless the hub's `weights` are of the architecture `name` and of our normalisation."""
    if weights.partition(".")[0] != name:
        raise ValueError(f"image_encoders: the weights {weights!r} are of another ViT than {name!r}; name it so")
    mean, std = vit.pretrained_cfg["mean"], vit.pretrained_cfg["std"]
    if tuple(mean) != ViTEncoder.mean or tuple(std) != ViTEncoder.std:
        raise ValueError(
            f"image_encoders: weights: {weights!r} were trained on pictures normalised by {mean} and {std}, not by "
            f"{ViTEncoder.mean} and {ViTEncoder.std}; choose AugReg weights"
        )
