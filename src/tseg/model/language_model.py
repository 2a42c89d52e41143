"""The transformer of a text encoder and its tokenizer, random or pretrained (section 3.1, "Text encoder")."""

import tseg.model.torchvision_operators  # noqa: F401  (before transformers is imported)

# isort: split
import re
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
    AutoTokenizer,
    BertConfig,
    CLIPTextConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipTextConfig,
    SiglipTextModel,
)
from transformers.utils import logging

from tseg.files import remember_read
from tseg.model.weights import ArgumentError, MissingWeightsError, UnfitWeightsError, check_fit, parsing

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_TEXT_TOWERS = {"clip": CLIPTextConfig, "siglip": SiglipTextConfig}
"""Models of images and texts, of which only the configuration of the text encoder is read."""
_IGNORED = (
    r"^(\w+\.)?pooler\.|^(cls|classifier|qa_outputs|lm_head|mlm_head|generator_\w+|discriminator_\w+|vocab_\w+)\b"
    r"|^(\w+\.)*position_ids$|^(vision_model|visual_projection|text_projection|logit_scale|logit_bias)\b"
    r"|^(text_model\.)?head\.|^decoder\."
)
"""Tensors that are not loaded: what follows the tokens (TSEG has its own), image encoders and decoders."""
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "dropout_rate")
"""The names of a dropout rate in the configurations of transformers."""


def random_bert(
    hidden_size: int, num_layers: int, num_heads: int, vocabulary_size: int, max_tokens: int | None, dropout: float
) -> PreTrainedModel:
    """A BERT with random weights; `max_tokens` positions, or BERT's own number."""
    if hidden_size % num_heads:
        raise ArgumentError(
            "random",
            f"hidden_size is {hidden_size}, which {num_heads} heads cannot share; choose a multiple of num_heads",
        )
    positions: dict[str, Any] = {} if max_tokens is None else {"max_position_embeddings": max_tokens}
    config = BertConfig(
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        vocab_size=vocabulary_size,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        intermediate_size=4 * hidden_size,
        # BERT's 0.02 suits 2,500 features; a narrower encoder would map all expressions to nearly the same token.
        initializer_range=hidden_size**-0.5,
        **positions,
    )
    return _create(config)


def recreate(config: dict[str, Any]) -> PreTrainedModel:
    """The transformer, with random weights, of a `config` that transformers wrote as a dictionary."""
    return _create(CONFIG_MAPPING[config["model_type"]].from_dict(config))


def attends_padding(transformer: PreTrainedModel) -> bool:
    """Whether it was trained on expressions padded to one length, whose padding is attended to, as SigLIP was."""
    return transformer.config.model_type.startswith("siglip")


def _create(config: PreTrainedConfig) -> PreTrainedModel:
    """The transformer with this `config` and random weights."""
    kind = _class_of(config)
    return _tokens_only(kind(config, **_without_pooler(kind)))


def load_transformer(weights: str, dropout: float) -> PreTrainedModel:
    """The text encoder with all of its `weights`, converted to float32."""
    # The config.json of older folders does not name the model's type, and is a BERT's.
    model_type = _pretrained(weights, lambda name: PreTrainedConfig.get_config_dict(name)[0].get("model_type", "bert"))
    if model_type not in CONFIG_MAPPING:
        raise ArgumentError(
            "weights", f"the weights {weights!r} are of the type {model_type!r}, which transformers lacks"
        )
    kind_of_config = _TEXT_TOWERS.get(model_type) or CONFIG_MAPPING[model_type]
    config = _pretrained(weights, kind_of_config.from_pretrained)
    for key in _DROPOUTS:
        if hasattr(config, key):
            setattr(config, key, dropout)
    try:
        kind = _class_of(config)
    except ValueError as error:
        raise ArgumentError("weights", f"the weights {weights!r} cannot be used: {error}") from error
    transformer, loaded = _pretrained(
        weights,
        kind.from_pretrained,
        config=config,
        dtype=torch.float32,
        # transformers keeps random values for tensors that do not fit; `check_fit` below refuses them.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **_without_pooler(kind),
    )
    _tokens_only(transformer)
    needed = {name: tuple(weight.shape) for name, weight in transformer.state_dict().items()}
    found: dict[str, object] = {name: shape for name, shape in needed.items() if name not in loaded["missing_keys"]}
    found |= {name: tuple(shape) for name, shape, _ in loaded["mismatched_keys"]}
    found |= dict.fromkeys(sorted(loaded["unexpected_keys"]), "present")
    check_fit(found, needed, ignored=_IGNORED, weights=weights)
    return transformer


def num_positions(transformer: PreTrainedModel) -> int | None:
    """The number of positions that have an embedding; None if positions are relative."""
    for name, module in transformer.named_modules():
        if re.search(r"position_embeddings?$", name) and isinstance(module, nn.Embedding):
            # RoBERTa and MPNet count positions from the padding token's id on.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def load_tokenizer(weights: str, config: PreTrainedConfig) -> tuple[Tokenizer, int, str, int | None]:
    """The tokenizer of pretrained `weights`, id and text of its padding, and its limit of tokens, if it has one."""
    loaded: Any = _pretrained(weights, _read_tokenizer, config=config)
    tokenizer: Tokenizer | None = getattr(loaded, "backend_tokenizer", None)
    if tokenizer is None or loaded.pad_token is None:
        raise ArgumentError(
            "weights", f"the tokenizer of the weights {weights!r} has no tokenizer.json or no padding token; add them"
        )
    # Without a vocabulary file transformers makes a tokenizer of the special tokens alone.
    if tokenizer.get_vocab_size() <= len(_SPECIAL_TOKENS):
        raise ArgumentError(
            "weights", f"the weights {weights!r} have no vocabulary; add a vocab.txt or a tokenizer.json"
        )
    # transformers writes 10^30 where there is no limit.
    limit = loaded.model_max_length if loaded.model_max_length < 1_000_000 else None
    return tokenizer, loaded.pad_token_id, loaded.pad_token, limit


def learn_wordpiece(expressions: Sequence[str], vocabulary_size: int) -> Tokenizer:
    """Learn a lower-case WordPiece tokenizer of at most `vocabulary_size` pieces; deterministic in `expressions`."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(" ".join(expressions)))
    # Left to itself, the trainer numbers the letters inside words in hash order, which varies between runs.
    inner_letters = sorted({f"##{letter}" for word, _ in words for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, special_tokens=[*_SPECIAL_TOKENS, *inner_letters], show_progress=False
    )
    tokenizer.train_from_iterator(expressions, trainer)
    first, last = ((token, _SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(last, first)
    return tokenizer


def _class_of(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of the text encoder with this `config`. Raises ValueError if there is none."""
    mappings: list[Any] = [{SiglipTextConfig: SiglipTextModel}, MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING]
    found = next((mapping[type(config)] for mapping in mappings if type(config) in mapping), None)
    decodes = config.is_encoder_decoder and found is not None and "Encoder" not in found.__name__
    if found is None or decodes or found.main_input_name != "input_ids" or not hasattr(config, "num_hidden_layers"):
        raise ValueError(f"{config.model_type} is not a text encoder")
    return found


def _without_pooler(kind: type[PreTrainedModel]) -> dict[str, bool]:
    """The argument that builds a model of this `kind` without what follows its tokens, if it has one."""
    return {"add_pooling_layer": False} if "add_pooling_layer" in signature(kind).parameters else {}


def _tokens_only(transformer: PreTrainedModel) -> PreTrainedModel:
    """Remove the layer after SigLIP's last token: TSEG has its own."""
    if isinstance(transformer, SiglipTextModel):
        transformer.head = nn.Identity()  # type: ignore[assignment]
    return transformer


def _read_tokenizer(weights: str, config: PreTrainedConfig) -> Any:
    try:
        return AutoTokenizer.from_pretrained(weights, config=config, trust_remote_code=False)
    except ImportError:  # SigLIP's own class needs SentencePiece; its tokenizer.json does not
        return PreTrainedTokenizerFast.from_pretrained(weights)


def _pretrained(weights: str, load: Callable[..., Any], **arguments: Any) -> Any:
    """Call `load` of transformers with `weights`, a local folder or a name on the hub, and convert its errors."""
    complaint, folder = f"the weights {weights!r} cannot be loaded", Path(weights)
    if folder.exists() and not (folder / "config.json").is_file():
        raise UnfitWeightsError(f"{complaint}: they are not a folder with a config.json")
    remember_read(*sorted(folder.glob("*")))
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with parsing(complaint, UnfitWeightsError if folder.exists() else MissingWeightsError):
            return load(weights, **arguments)
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
