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
from tseg.model.weights import MissingWeightsError, load_strictly, parsing, read_weights
from tseg.model.wide_resnet38 import WideResNet38, build_wide_resnet38


class ViTEncoder(nn.Module):
    """Patch tokens of a ViT after its last norm.

    The position embeddings are learnt on the ViT's own grid, and resized bilinearly to the grid of each image.
    """

    mean = (0.5, 0.5, 0.5)
    """Subtracted from RGB values in [0, 1], as for AugReg's ViTs."""
    std = (0.5, 0.5, 0.5)
    """Divides the RGB values after `mean` is subtracted."""

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
        assert self.vit.pos_embed is not None, "build_vit refuses a ViT without position embeddings"
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
"""Both turn images into patch tokens and have the same attributes."""


def build_image_encoder(name: str, options: dict[str, int], weights: str | None, drop_path: float) -> ImageEncoder:
    """Build the image encoder called `name`: `wide_resnet38` (`build_wide_resnet38`) or a timm ViT (`build_vit`).

    Raises MissingWeightsError if the weights cannot be found, and ValueError for any other unusable argument.
    """
    build = build_wide_resnet38 if name == "wide_resnet38" else partial(build_vit, name)
    return build(options, weights, drop_path)


def build_vit(name: str, options: dict[str, int], weights: str | None, drop_path: float) -> ViTEncoder:
    """Build the timm ViT called `name`; `options` are arguments of its constructor.

    `weights`: None for random weights; a file (`.safetensors`, PyTorch's `.pth` or `.bin`, AugReg's `.npz`) that has
    exactly the ViT's tensors, except a classifier's; or a name on timm's hub, such as
    `vit_small_patch16_384.augreg_in21k_ft_in1k`. Only an `.npz` file allows a check of the number of heads.
    `drop_path`: rate of the last block; it rises linearly from 0. Raises ValueError if timm has no such ViT or the
    weights do not fit it.
    """
    arguments: dict[str, Any] = dict(num_classes=0, global_pool="", drop_path_rate=drop_path, **options)
    try:
        vit = timm.create_model(name, pretrained=False, **arguments)
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise ValueError(f"timm cannot build {name!r} with the options {options}: {error}") from error
    if not isinstance(vit, VisionTransformer) or not isinstance(vit.pos_embed, nn.Parameter):
        raise ValueError(
            f"{name!r} is not a ViT with position embeddings; choose wide_resnet38 or one of timm.list_models('vit_*')"
        )
    if weights is not None:
        _load(vit, weights, name, options)
    return ViTEncoder(vit)


def _load(vit: VisionTransformer, weights: str, name: str, options: dict[str, int]) -> None:
    """Load `weights`, a file or a name on the hub, into `vit`."""
    file = Path(weights)
    if file.is_file() and file.suffix == ".npz":
        load_augreg(vit, weights)
    else:
        found = read_weights(weights) if file.is_file() else hub_weights(weights, name, options)
        # Pooling and classifier follow the patch tokens; TSEG has its own.
        load_strictly(vit, found, ignored=r"^(head|pre_logits|attn_pool)\.", weights=weights)


def hub_weights(weights: str, name: str, options: dict[str, int]) -> Mapping[str, object]:
    """Load the tensors, by name, that timm's hub or its local cache has under the name `weights`.

    Raises MissingWeightsError if neither has them, and ValueError if they belong to another ViT than `name` or expect
    another normalisation than that of `ViTEncoder`.
    """
    published = get_pretrained_cfg(weights) if is_model_pretrained(weights) else None
    if published is None or published.hf_hub_id is None:
        raise MissingWeightsError(f"the weights {weights!r} are neither a file nor a name on timm's hub")
    vit_name = weights.partition(".")[0]
    if vit_name != name:
        raise ValueError(f"the weights {weights!r} are for the ViT {vit_name!r}, not for {name!r}; make the two agree")
    if "num_heads" in options:  # the shapes of the weights would not reveal a mismatch
        raise ValueError(f"the weights {weights!r} fix the number of heads; leave out the option num_heads")
    if tuple(published.mean) != ViTEncoder.mean or tuple(published.std) != ViTEncoder.std:
        raise ValueError(
            f"the weights {weights!r} were trained on images normalised by {published.mean} and {published.std}, not "
            f"by {ViTEncoder.mean} and {ViTEncoder.std}; choose AugReg weights"
        )
    with parsing(f"the weights {weights!r} cannot be loaded from timm's hub", MissingWeightsError):
        return load_state_dict_from_hf(published.hf_hub_id)
