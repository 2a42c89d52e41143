"""Models for tests, without the settings of a run."""

from typing import Any

from tokenizers import Tokenizer

from tseg.model.image_encoder import build_image_encoder
from tseg.model.text_encoder import build_text_encoder
from tseg.model.tseg import TSEG


def build_tseg(
    image_encoder: dict[str, Any],
    text_encoder: dict[str, Any],
    embed_dim: int,
    tau: float,
    tokenizer: Tokenizer | None,
    patch_hidden: int | None = None,
) -> TSEG:
    """The model with random weights, of the architecture that `save_model` writes."""
    encoders = build_image_encoder(**image_encoder), build_text_encoder(text_encoder, tokenizer)
    return TSEG(*encoders, embed_dim=embed_dim, patch_hidden=patch_hidden, tau=tau)
