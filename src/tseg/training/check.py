"""Build the encoders of a run before any training, and tell all mistakes of their settings at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from tseg.files import write_json
from tseg.model.encoder import Encoder
from tseg.model.image_encoder import ViTEncoder, build_image_encoder, is_on_hub
from tseg.model.language_model import learn_wordpiece
from tseg.model.text_encoder import TextEncoder, build_language_model
from tseg.model.weights import ArgumentError, MissingWeightsError, UnfitWeightsError
from tseg.model.wide_resnet38 import WideResNet38
from tseg.settings.encoders import UsedEncoders
from tseg.settings.schema import LanguageModelSettings

_IMAGE_DEFAULTS: dict[str, dict[str, Any]] = {
    "weights": {"weights": None},
    "options": {"options": {}},
    "mean": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "drop_path": {"drop_path": 0.0},
    "trainable": {"trainable": "all"},
}
"""What replaces an argument of an image encoder that is at fault, so that the others are checked too."""
_TEXT_DEFAULTS: dict[str, dict[str, Any]] = {"max_tokens": {"max_tokens": None}, "trainable": {"trainable": "all"}}
_PROBES = ["a red circle", "two dogs on a beach"]
"""Expressions that no encoder may confuse."""

Kind = TypeVar("Kind", bound=Encoder)
Description = dict[str, Any]
"""Properties of an encoder, by name, as JSON has them."""


def check_encoders(used: UsedEncoders, output: Path) -> list[Description]:
    """Build the encoders, write their descriptions to the JSON file `output`, and return them.

    Raises ValueError with a line for every mistake, each of which names the key that the user wrote.
    """
    checked = [_check_image_encoder(used)]
    if used.language_model is not None:
        checked.append(_check_language_model(used.text_key, used.language_model))
    mistakes = [mistake for _, found in checked for mistake in found]
    if mistakes:
        raise ValueError("\n".join(mistakes))
    descriptions = [description for description, _ in checked]
    write_json(output, descriptions)
    return descriptions


def summarise(description: Description) -> str:
    """A line of text with the properties of an encoder."""
    values = (f"{name} {value}" for name, value in description.items() if name != "key" and value is not None)
    return f"{description['key']}: {', '.join(values)}"


def _check_image_encoder(used: UsedEncoders) -> tuple[Description, list[str]]:
    """Describe an image encoder and list its mistakes."""
    weights = used.image_encoder.weights
    fetch = (
        f"`hf download timm/{weights}` fetches them where there is internet access"
        if weights is not None and is_on_hub(weights)
        else "`tseg fetch vit_small` downloads weights to data/raw/vit_small"
    )
    encoder, mistakes = _build(
        build_image_encoder, used.image_key, used.image_encoder.model_dump(), _IMAGE_DEFAULTS, fetch
    )
    if encoder is None:
        return {}, mistakes
    size, pixels = encoder.patch_size, used.resolution
    if pixels % size:
        below = pixels // size * size
        mistakes.append(
            f"{used.resolution_key}: {pixels} is no multiple of the patch size {size} of {used.image_key}; choose "
            + (f"{below} or {below + size}" if below else f"{size}")
        )
    return _describe_image_encoder(used, encoder), mistakes


def _describe_image_encoder(used: UsedEncoders, encoder: ViTEncoder | WideResNet38) -> Description:
    vit: Any = encoder.vit if isinstance(encoder, ViTEncoder) else None
    positions = None
    if vit is not None:
        rotary = getattr(vit, "rope", None) is not None
        kinds = {f"learnt, {used.image_encoder.positions}": vit.pos_embed is not None, "rotary": rotary}
        positions = " and ".join(kind for kind, present in kinds.items() if present)
    return {
        "key": used.image_key,
        "family": type(vit or encoder).__name__,
        "name": used.image_encoder.name,
        "weights": used.image_encoder.weights,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "patch_size": encoder.patch_size,
        "grid": None if vit is None else list(vit.patch_embed.grid_size),
        "prefix_tokens": 0 if vit is None else vit.num_prefix_tokens,
        "positions": positions,
        "features": encoder.num_features,
        **_count(encoder),
    }


def _check_language_model(key: str, settings: LanguageModelSettings) -> tuple[Description, list[str]]:
    """Describe a language model and list its mistakes."""
    arguments, random = settings.model_dump(), settings.random
    if settings.weights is None:
        assert random is not None, "the schema requires sizes without weights"
        # The size of the model does not depend on the words; the training expressions are not prepared yet.
        arguments["learnt"] = learn_wordpiece(_PROBES, random.vocabulary_size)
    fetch = (
        f"`hf download {settings.weights}` fetches a name on the hub where there is internet access; "
        "`tseg fetch bert_small` downloads weights to data/raw/bert_small"
    )
    encoder, mistakes = _build(build_language_model, key, arguments, _TEXT_DEFAULTS, fetch)
    if encoder is None:
        return {}, mistakes
    if settings.weights is not None and not _distinguishes(encoder):
        mistakes.append(
            f"{key}.pooling: {encoder.pooling} gives all expressions the same token with these weights; choose "
            + " or ".join(kind for kind in ("mean", "last") if kind != encoder.pooling)
        )
    description = {
        "key": key,
        "family": type(encoder.transformer).__name__,
        "weights": settings.weights,
        "pooling": encoder.pooling,
        "max_tokens": encoder.max_tokens,
        "features": encoder.num_features,
        **_count(encoder),
    }
    return description, mistakes


@torch.inference_mode()
def _distinguishes(encoder: TextEncoder) -> bool:
    first, second = encoder.eval()(_PROBES)
    return not torch.allclose(first, second)


def _count(encoder: nn.Module) -> dict[str, int]:
    weights = list(encoder.parameters())
    return {
        "parameters": sum(weight.numel() for weight in weights),
        "learning_parameters": sum(weight.numel() for weight in weights if weight.requires_grad),
    }


def _build(
    build: Callable[..., Kind], key: str, arguments: dict[str, Any], defaults: dict[str, dict[str, Any]], fetch: str
) -> tuple[Kind | None, list[str]]:
    """Build an encoder and list the arguments at fault; after each, try again with its default.

    `fetch` says where missing weights come from. Returns None for the encoder if an argument without default is at
    fault.
    """
    mistakes: dict[str, str] = {}
    while True:
        try:
            return build(**arguments), list(mistakes.values())
        except ArgumentError as error:
            hint = f"; {fetch}" if isinstance(error, MissingWeightsError) else ""
            # Weights fit other options than the defaults.
            if not (isinstance(error, UnfitWeightsError) and "options" in mistakes):
                mistakes.setdefault(error.argument, f"{key}.{error.argument}: {error}{hint}")
            default = defaults.get(error.argument)
            if default is None or default.items() <= arguments.items():
                return None, list(mistakes.values())
            arguments = arguments | default
