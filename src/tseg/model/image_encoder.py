"""The image encoder: any timm ViT, at any image size (section 3.1, "Image encoder"), or Table 1's wide ResNet."""

import tseg.model.torchvision_operators  # noqa: F401  (before timm is imported)

# isort: split
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import timm
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import VisionTransformer, get_pretrained_cfg, is_model_pretrained, load_state_dict_from_hf
from torch import Tensor, nn
from torch.func import functional_call

from tseg.model.augreg import load_augreg
from tseg.model.weights import load_strictly, parsing, read_weights
from tseg.model.wide_resnet38 import WideResNet38, build_wide_resnet38


class ViTEncoder(nn.Module):
    """Patch tokens of a ViT after its last norm.

    The position embeddings are learnt on the ViT's own grid and resized bilinearly to the grid of each image.
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

    def forward(self, images: Tensor) -> Tensor:
        """Patch tokens (B, N, D_I), in reading order, of images (B, 3, H, W) normalised by `mean` and `std`.

        H and W are multiples of the patch size; N = HW / patch_size^2.
        """
        assert self.vit.pos_embed is not None, "build_image_encoder refuses a ViT without"
        pos_embed = resample_abs_pos_embed(
            self.vit.pos_embed,
            new_size=[side // self.patch_size for side in images.shape[2:]],
            old_size=list(self.vit.patch_embed.grid_size),
            num_prefix_tokens=0 if self.vit.no_embed_class else self.vit.num_prefix_tokens,
            interpolation="bilinear",
            antialias=False,
        )
        tokens: Tensor = functional_call(self.vit, {"pos_embed": pos_embed}, (images,))
        return tokens[:, self.vit.num_prefix_tokens :]


ImageEncoder = ViTEncoder | WideResNet38
"""What turns images into patch tokens; both kinds have the same attributes."""


def build_image_encoder(name: str, options: dict[str, int], weights: str | None, drop_path: float) -> ImageEncoder:
    """The image encoder called `name`: `wide_resnet38` or a timm ViT; ValueError where there is no such encoder."""
    build = build_wide_resnet38 if name == "wide_resnet38" else partial(build_vit, name)
    return build(options, weights, drop_path)


def build_vit(name: str, options: dict[str, int], weights: str | None, drop_path: float) -> ViTEncoder:
    """A timm ViT called `name`, its constructor given `options`.

    `weights`: None for random ones; a file with exactly the ViT's own, a classifier's aside, be it `.safetensors`,
    PyTorch's `.pth` or `.bin`, or AugReg's `.npz`; else a name that timm's hub knows, such as
    `vit_small_patch16_384.augreg_in21k_ft_in1k`. Only an `.npz` file tells how many heads its weights are for.
    `drop_path` is the rate of the last block; it rises linearly. Raises ValueError where timm has no such ViT or the
    weights do not fit it.
    """
    arguments: dict[str, Any] = dict(num_classes=0, global_pool="", drop_path_rate=drop_path, **options)
    try:
        vit = timm.create_model(name, pretrained=False, **arguments)
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise ValueError(f"image_encoders: timm cannot build {name!r} with options {options}: {error}") from error
    if not isinstance(vit, VisionTransformer) or not isinstance(vit.pos_embed, nn.Parameter):
        raise ValueError(
            f"image_encoders: name: {name!r} is not a ViT with position embeddings; "
            "choose wide_resnet38 or one of timm.list_models('vit_*')"
        )
    if weights is not None:
        _load(vit, weights, name, options)
    return ViTEncoder(vit)


def _load(vit: VisionTransformer, weights: str, name: str, options: dict[str, int]) -> None:
    """Fill `vit` with `weights`, a file or a name on the hub, or raise ValueError."""
    origin, architecture = f"image_encoders: weights: {weights!r}", f"{name} with options {options}"
    file = Path(weights)
    if file.is_file() and file.suffix == ".npz":
        load_augreg(vit, weights, origin=origin, architecture=architecture)
    else:
        found = read_weights(weights, origin) if file.is_file() else hub_weights(weights, name, options)
        # After the patch tokens come a pooling of them and a classifier; the model has its own.
        ignored = r"^(head|pre_logits|attn_pool)\."
        load_strictly(vit, found, ignored=ignored, origin=origin, architecture=architecture)


def hub_weights(weights: str, name: str, options: dict[str, int]) -> Mapping[str, object]:
    """What timm's hub, or the copy of it on this machine, has under the name `weights`.

    Raises ValueError unless they can be had and are for the ViT called `name` and images normalised as ours.
    """
    origin = f"image_encoders: weights: {weights!r}"
    fetch = "fetch a file (`tseg fetch vit_small` brings data/raw/vit_small/model.safetensors) and give its path"
    published = get_pretrained_cfg(weights) if is_model_pretrained(weights) else None
    if published is None or published.hf_hub_id is None:
        raise ValueError(f"{origin} is neither a file nor a name on timm's hub; {fetch}")
    if weights.partition(".")[0] != name:
        raise ValueError(f"{origin} are of another ViT than {name!r}; name it so")
    if "num_heads" in options:  # which leaves no trace in the weights' shapes
        raise ValueError(f"image_encoders: options: {weights!r} has a num_heads of its own; leave the option out")
    if tuple(published.mean) != ViTEncoder.mean or tuple(published.std) != ViTEncoder.std:
        raise ValueError(
            f"{origin} were trained on images normalised by {published.mean} and {published.std}, not by "
            f"{ViTEncoder.mean} and {ViTEncoder.std}; choose AugReg weights"
        )
    with parsing(f"{origin} cannot be had from timm's hub", hint=f"; {fetch}"):
        return load_state_dict_from_hf(published.hf_hub_id)
