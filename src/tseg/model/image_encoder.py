"""The image encoder: any timm ViT, at any image size (section 3.1, "Image encoder"), or Table 1's wide ResNet."""

import tseg.model.torchvision_operators  # noqa: F401  (before timm is imported)

# isort: split
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import (
    Eva,
    VisionTransformer,
    get_arch_pretrained_cfgs,
    get_pretrained_cfg,
    is_model_pretrained,
    load_state_dict_from_hf,
)
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from tseg.model.augreg import load_augreg
from tseg.model.encoder import Encoder, Trainable
from tseg.model.weights import ArgumentError, MissingWeightsError, load_strictly, parsing, read_weights
from tseg.model.wide_resnet38 import WideResNet38, build_wide_resnet38

Channels = tuple[float, float, float]
"""A number for each of red, green and blue."""
Positions = Literal["bilinear", "bicubic"]
"""How position embeddings are resized. bilinear: as Segmenter does. bicubic: with antialiasing, as timm does."""

_IGNORED = r"^(head|head_dist|pre_logits|attn_pool)\.|^mask_token$|^rope\.(?!freqs$)"
"""Tensors that are not loaded: what follows the patch tokens (TSEG has its own), the token that stands for masked
patches in self-supervised training, and tables of rotary positions, which timm computes."""


class ViTEncoder(Encoder):
    """Patch tokens of a ViT after its last norm.

    Learnt position embeddings are resized from the ViT's own grid to the grid of each image; rotary ones are computed
    for it. Where timm averages the tokens before the last norm (EVA, SigLIP's `gap` models), each token is normed here.
    """

    def __init__(self, vit: VisionTransformer | Eva, mean: Channels, std: Channels, positions: Positions = "bilinear"):
        """`mean` is subtracted from RGB values in [0, 1], then `std` divides them."""
        super().__init__()
        self.vit = vit
        self.mean, self.std, self.positions = mean, std, positions

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        patch_embed: Any = self.vit.patch_embed
        return patch_embed.patch_size[0]

    @property
    def num_features(self) -> int:
        """Size D_I of a patch token."""
        return self.vit.num_features

    def forward(self, images: Tensor) -> Tensor:
        """Patch tokens (B, N, D_I), in reading order, of images (B, 3, H, W) normalised by `mean` and `std`.

        H and W are multiples of the patch size; N = HW / patch_size^2. Changes nothing in the ViT, so that threads can
        share it.
        """
        vit: Any = self.vit
        patches: Tensor = vit.patch_embed(images)
        grid = list(patches.shape[1:3])
        tokens = vit.norm_pre(self._add_positions(patches.flatten(1, 2), grid))
        for block, rotation in zip(vit.blocks, self._rotations(grid), strict=True):
            tokens = block(tokens) if rotation is None else block(tokens, rope=rotation)
        return vit.fc_norm(vit.norm(tokens))[:, vit.num_prefix_tokens :]

    def _add_positions(self, patches: Tensor, grid: list[int]) -> Tensor:
        """Tokens (B, P + N, D_I) of `patches` (B, N, D_I): P class, distillation and register tokens come first."""
        vit: Any = self.vit
        prefix = [getattr(vit, name, None) for name in ("cls_token", "dist_token", "reg_token")]
        prefix = [token.expand(len(patches), -1, -1) for token in prefix if token is not None]
        if vit.pos_embed is None:
            return torch.cat([*prefix, patches], dim=1)
        positions = resample_abs_pos_embed(
            vit.pos_embed,
            new_size=grid,
            old_size=list(vit.patch_embed.grid_size),
            num_prefix_tokens=0 if vit.no_embed_class else vit.num_prefix_tokens,
            interpolation=self.positions,
            antialias=self.positions == "bicubic",
        )
        if vit.no_embed_class:
            return torch.cat([*prefix, patches + positions], dim=1)
        return torch.cat([*prefix, patches], dim=1) + positions

    def _rotations(self, grid: list[int]) -> list[Tensor | None]:
        """The rotary positions of each block; None without."""
        vit: Any = self.vit
        if getattr(vit, "rope", None) is None:
            return [None] * len(vit.blocks)
        rotations = vit.rope.get_embed(shape=grid)
        return list(rotations) if vit.rope_mixed else [rotations] * len(vit.blocks)


ImageEncoder = ViTEncoder | WideResNet38
"""Both turn images into patch tokens and have the same attributes."""


def build_image_encoder(
    name: str,
    options: dict[str, int],
    weights: str | None,
    drop_path: float,
    *,
    mean: Channels | None = None,
    std: Channels | None = None,
    positions: Positions = "bilinear",
    trainable: Trainable = "all",
) -> ImageEncoder:
    """Build the image encoder called `name`: `wide_resnet38` (`build_wide_resnet38`) or a timm ViT (`build_vit`).

    `mean` and `std` of the RGB values replace those that belong to the weights. `trainable`: see `Encoder`. Raises
    MissingWeightsError if the weights cannot be found, and ArgumentError for any other unusable argument.
    """
    if name != "wide_resnet38":
        vit = build_vit(name, options, weights, drop_path, mean=mean, std=std, positions=positions)
        blocks: Any = vit.vit.blocks
        vit.restrict(trainable, [*blocks], [vit.vit.norm, vit.vit.fc_norm])
        return vit
    net = build_wide_resnet38(options, weights, drop_path)
    net.mean, net.std = mean or net.mean, std or net.std
    net.restrict(trainable, None, [])
    return net


def build_vit(
    name: str,
    options: dict[str, int],
    weights: str | None,
    drop_path: float,
    *,
    mean: Channels | None = None,
    std: Channels | None = None,
    positions: Positions = "bilinear",
) -> ViTEncoder:
    """Build the timm ViT called `name`, with or without a tag; `options` are arguments of its constructor.

    `weights`: None for random weights; a file (`.safetensors`, PyTorch's `.pth` or `.bin`, AugReg's `.npz`) that has
    exactly the ViT's tensors, except a classifier's; or a name on timm's hub, such as
    `vit_small_patch16_384.augreg_in21k_ft_in1k`. Only an `.npz` file allows a check of the number of heads.
    `drop_path`: rate of the last block; it rises linearly from 0. `mean`, `std`: see `normalisation`. Raises
    ArgumentError if timm has no such ViT, the weights do not fit it, or their normalisation is unknown.
    """
    vit = _create(name, options, drop_path)
    file = Path(weights) if weights is not None and Path(weights).is_file() else None
    if weights is not None and file is None:
        _check_published(weights, name, options)
    if mean is None or std is None:
        mean, std = normalisation(name, weights)
    if file is not None and file.suffix == ".npz" and isinstance(vit, VisionTransformer):
        load_augreg(vit, str(file))
    elif weights is not None:
        found = read_weights(weights) if file is not None else _hub_weights(weights)
        load_strictly(vit, _with_last_norm(vit, found), ignored=_IGNORED, weights=weights)
    return ViTEncoder(vit, mean, std, positions)


def _with_last_norm(vit: nn.Module, found: Mapping[str, object]) -> dict[str, object]:
    """The tensors `found`, with the last norm named as in `vit`: timm says fc_norm where it follows an average."""
    needed = vit.state_dict()
    here, there = ("fc_norm", "norm") if "fc_norm.weight" in needed else ("norm", "fc_norm")
    if f"{there}.weight" in needed or f"{here}.weight" in found:
        return dict(found)
    return {
        name.replace(f"{there}.", f"{here}.", 1) if name.startswith(f"{there}.") else name: found[name]
        for name in found
    }


def _create(name: str, options: dict[str, int], drop_path: float) -> VisionTransformer | Eva:
    """The ViT called `name` with random weights and without classifier."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=1)
        raise ArgumentError("name", f"timm has no {name!r}{f'; did you mean {nearest[0]}?' if nearest else ''}")
    if tag and name not in _published(architecture):
        known = ", ".join(_published(architecture)) or "none"
        raise ArgumentError("name", f"timm has no weights {name!r}; valid are {known}")
    arguments: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True, "drop_path_rate": drop_path, **options}
    with torch.device("meta"):
        plain = timm.create_model(architecture, num_classes=0)
    if not _is_usable(plain):
        raise ArgumentError(
            "name",
            f"{name!r} is not a ViT whose tokens are square patches; choose wide_resnet38 or a ViT of timm's "
            "(AugReg, DeiT, DINO, DINOv2, DINOv3, SigLIP, CLIP, EVA)",
        )
    if not isinstance(plain, VisionTransformerDistilled):  # which exists only with its two tokens' pooling
        arguments["global_pool"] = ""
    create: Any = timm.create_model
    try:
        return create(name, pretrained=False, **arguments)
    except (RuntimeError, ValueError, TypeError, KeyError, AssertionError, ZeroDivisionError) as error:
        raise ArgumentError("options", f"timm cannot build {name!r} with the options {options}: {error}") from error


def _is_usable(model: Any) -> bool:
    """Whether `model` is a ViT of which `ViTEncoder` knows the patch tokens."""
    if not isinstance(model, (VisionTransformer, Eva)) or type(model.patch_embed) is not PatchEmbed:
        return False
    height, width = model.patch_embed.patch_size
    return height == width


def normalisation(name: str, weights: str | None) -> tuple[Channels, Channels]:
    """Mean and standard deviation, as timm publishes them, of the RGB values that `weights` of the ViT `name` expect.

    They are those of the tag: of a name on timm's hub; for a file, of `name` (`vit_small_patch16_224.dino`), else of
    the file's own name (`vit_small_patch16_224.dino.safetensors`), else of all tags of the ViT if they agree. Raises
    ArgumentError if they do not. Random weights expect those of timm's default tag.
    """
    published = _published(name)
    if weights is None or (is_model_pretrained(weights) and not Path(weights).is_file()):
        config = get_pretrained_cfg(weights or name)
        configs = [config] if config else []
    else:
        named = name if "." in name else Path(weights).stem
        configs = [published[named]] if named in published else [*published.values()]
    found: set[Any] = {(tuple(config.mean), tuple(config.std)) for config in configs}
    if len(found) == 1:
        return found.pop()
    examples = {(config.mean, config.std): tag for tag, config in published.items()}
    known = "; ".join(f"{tag} has {mean} and {std}" for (mean, std), tag in examples.items())
    raise ArgumentError(
        "mean",
        f"the weights {weights or name!r} do not say how their images were normalised; set mean and std"
        + (f", or add the tag to the name: {known}" if known else ""),
    )


def _published(name: str) -> dict[str, Any]:
    """Name on timm's hub, with its tag, to the configuration of all published weights of a ViT."""
    configs = get_arch_pretrained_cfgs(name)
    return {tag: config for tag, config in configs.items() if is_model_pretrained(tag)}


def is_on_hub(weights: str) -> bool:
    """Whether timm's hub has `weights`, by name."""
    published = get_pretrained_cfg(weights) if is_model_pretrained(weights) else None
    return published is not None and published.hf_hub_id is not None


def _check_published(weights: str, name: str, options: dict[str, int]) -> None:
    """Raise ArgumentError unless `weights` is a name on timm's hub for the ViT `name` with these `options`."""
    if not is_on_hub(weights):
        raise MissingWeightsError(f"the weights {weights!r} are neither a file nor a name on timm's hub")
    architecture, _, tag = name.partition(".")
    theirs = weights.partition(".")[0]
    if theirs != architecture or (tag and weights != name):
        raise ArgumentError(
            "weights", f"the weights {weights!r} are for the ViT {theirs!r}, not for {name!r}; make the two agree"
        )
    if "num_heads" in options:  # the shapes of the weights would not reveal a mismatch
        raise ArgumentError(
            "options", f"the weights {weights!r} fix the number of heads; leave out the option num_heads"
        )


def _hub_weights(weights: str) -> Mapping[str, object]:
    """Load the tensors, by name, that timm's hub or its local cache has under the name `weights`."""
    published = get_pretrained_cfg(weights)
    assert published is not None, "_check_published refuses unknown names"
    assert published.hf_hub_id is not None, "_check_published refuses names without weights"
    with parsing(f"the weights {weights!r} cannot be loaded from timm's hub", MissingWeightsError):
        return load_state_dict_from_hf(published.hf_hub_id)
