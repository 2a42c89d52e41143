"""The text encoder: a transformer with its tokenizer (section 3.1, "Text encoder"), or a vector per class."""

import tseg.model.torchvision_operators  # noqa: F401  (before transformers is imported)

# isort: split
import re
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn, tensor
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

from tseg.model.encoder import Encoder, Trainable
from tseg.model.weights import ArgumentError, MissingWeightsError, UnfitWeightsError, check_fit, parsing

TextPooling = Literal["first", "mean", "last"]
"""What represents an expression: its first token (BERT), the mean (sentence encoders), the last (CLIP, SigLIP)."""

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_TEXT_TOWERS = {"clip": CLIPTextConfig, "siglip": SiglipTextConfig}
"""Models of images and texts, of which only the configuration of the text encoder is read."""
_IGNORED = (
    r"^(\w+\.)?pooler\.|^(cls|classifier|qa_outputs|lm_head|mlm_head|generator_\w+|discriminator_\w+|vocab_\w+)\b"
    r"|^(\w+\.)*position_ids$|^(vision_model|visual_projection|text_projection|logit_scale|logit_bias)\b"
    r"|^(text_model\.)?head\.|^decoder\."
)
"""Tensors that are not loaded: what follows the tokens (TSEG has its own), image encoders and decoders."""
_CHUNK = 4096
"""Expressions that are tokenized at once only to count."""
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "dropout_rate")
"""The names of a dropout rate in the configurations of transformers."""


class TextEncoder(Encoder):
    """A transformer of which one token, or the mean of all, represents an expression.

    `tokenizer` truncates and pads expressions, as `_set_lengths` configured it.
    """

    def __init__(self, transformer: PreTrainedModel, tokenizer: Tokenizer, pooling: TextPooling):
        super().__init__()
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.pooling: TextPooling = pooling

    @property
    def num_features(self) -> int:
        """Size D_T of an expression's token."""
        return self.transformer.config.hidden_size

    @property
    def max_tokens(self) -> int:
        """Tokens, special ones included, beyond which an expression is truncated."""
        truncation = self.tokenizer.truncation
        assert truncation is not None, "the tokenizer truncates"
        return truncation["max_length"]

    def tokenize(self, expressions: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, int64 (L, T), padded to the longest of the L expressions.

        SigLIP was trained on expressions padded to one length, whose padding is attended to.
        """
        encodings = self.tokenizer.encode_batch(expressions)
        ids = tensor([encoding.ids for encoding in encodings], device=self.transformer.device)
        if _attends_padding(self.transformer.config):
            return ids, torch.ones_like(ids)
        return ids, tensor([encoding.attention_mask for encoding in encodings], device=ids.device)

    def forward(self, expressions: list[str]) -> Tensor:
        """Expression tokens (L, D_T)."""
        token_ids, mask = self.tokenize(expressions)
        tokens: Tensor = self.transformer(input_ids=token_ids, attention_mask=mask).last_hidden_state
        match self.pooling:
            case "first":
                return tokens[:, 0]
            case "mean":
                weights = mask[:, :, None].to(tokens.dtype)
                return (tokens * weights).sum(dim=1) / weights.sum(dim=1)
            case "last":
                return tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(dim=1) - 1]

    def losses(self, expressions: Sequence[str]) -> list[str]:
        """A sentence for each kind of input that the encoder loses: truncated expressions and unknown words."""
        unknown_id = self.tokenizer.token_to_id(getattr(self.tokenizer.model, "unk_token", None) or "<unk>")
        truncated = unknown = 0
        for start in range(0, len(expressions), _CHUNK):
            for encoding in self.tokenizer.encode_batch(list(expressions[start : start + _CHUNK])):
                tokens = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
                truncated += bool(encoding.overflowing)
                unknown += any(token_id == unknown_id and not special for token_id, special in tokens)
        total = f"of {len(expressions):,} expressions"
        long = f"{truncated:,} {total} have more than {self.max_tokens} tokens; the rest of them is not seen"
        strange = f"{unknown:,} {total} have words that the vocabulary lacks; all such words are alike"
        return [sentence for sentence, number in ((long, truncated), (strange, unknown)) if number]

    def blocks(self) -> list[nn.Module] | None:
        """The blocks of the transformer, first to last; None if they share weights."""
        number = self.transformer.config.num_hidden_layers
        lists = [each for each in self.transformer.modules() if isinstance(each, nn.ModuleList) and len(each) == number]
        return [*lists[0]] if lists else None

    def last_norm(self) -> list[nn.Module]:
        """The norm after the blocks, if there is one."""
        return [
            each for name, each in self.transformer.named_modules() if re.fullmatch(r"(\w+\.)?final_layer_norm", name)
        ]


class ClassEncoder(Encoder):
    """A learnt vector per class in place of a language model (Table 1, "class encoding")."""

    def __init__(self, classes: Sequence[str], num_features: int):
        super().__init__()
        self.num_features = num_features
        self.indices = {name: index for index, name in enumerate(classes)}
        assert len(self.indices) == len(classes), "class names are distinct"
        # ASSUME: unit variance, as a BERT's tokens have after their last norm. Vectors of length 1 would be no larger
        # than the bias of their projection, so all classes would start out similar.
        self.embedding = nn.Embedding(len(classes), num_features)

    def losses(self, expressions: Sequence[str]) -> list[str]:
        """Nothing of a class is lost."""
        return []

    def forward(self, expressions: list[str]) -> Tensor:
        """Class vectors (L, D_T). Raises ValueError for an expression that is not a class."""
        for expression in expressions:
            if expression not in self.indices:
                raise ValueError(f"{expression!r} is not a class of this model; choose from {list(self.indices)}")
        indices = tensor([self.indices[expression] for expression in expressions], device=self.embedding.weight.device)
        return self.embedding(indices)


def build_text_encoder(arguments: dict[str, Any], learnt: Tokenizer | None) -> TextEncoder | ClassEncoder:
    """Build a class encoder or a language model from the `arguments` of `ClassEncoder` or `build_language_model`.

    `learnt`: the tokenizer of a language model with random weights. Raises MissingWeightsError if the weights cannot be
    found, and ArgumentError if another argument is unusable.
    """
    return ClassEncoder(**arguments) if "classes" in arguments else build_language_model(**arguments, learnt=learnt)


def build_language_model(
    *,
    weights: str | None,
    pooling: TextPooling,
    max_tokens: int | None,
    dropout: float,
    random: dict[str, int] | None = None,
    trainable: Trainable = "all",
    learnt: Tokenizer | None = None,
) -> TextEncoder:
    """Build a language model with its tokenizer.

    `weights`: a local folder or a name on the hub that transformers can load, with sizes and tokenizer; None for a BERT
    of the sizes in `random` (hidden_size, num_layers, num_heads, vocabulary_size), random weights, and the tokenizer
    `learnt`. `max_tokens`: longer expressions are truncated; None for the model's own limit. `dropout` replaces its
    rates. `trainable`: see `Encoder`. Raises MissingWeightsError and ArgumentError as `build_text_encoder`.
    """
    if weights is None:
        assert random is not None, "random weights need sizes"
        assert learnt is not None, "random weights need a tokenizer"
        transformer, tokenizer, limit = _random_bert(**random, max_tokens=max_tokens, dropout=dropout), learnt, None
        pad_id, pad_token = tokenizer.token_to_id("[PAD]"), "[PAD]"
    else:
        transformer = _load_transformer(weights, dropout)
        tokenizer, pad_id, pad_token, limit = _load_tokenizer(weights, transformer.config)
    if tokenizer.get_vocab_size() > transformer.config.vocab_size:
        raise ArgumentError(
            "random" if weights is None else "weights",
            f"the tokenizer has {tokenizer.get_vocab_size()} pieces, more than the vocabulary of "
            f"{transformer.config.vocab_size}; "
            + ("raise vocabulary_size" if weights is None else "use the tokenizer that belongs to the weights"),
        )
    num_positions = _num_positions(transformer)
    if max_tokens is not None and num_positions is not None and max_tokens > num_positions:
        raise ArgumentError(
            "max_tokens",
            f"{max_tokens} tokens are more than the {num_positions} positions of the weights {weights!r}; lower it",
        )
    limits = [each for each in (max_tokens, num_positions, limit if max_tokens is None else None) if each is not None]
    if not limits:
        raise ArgumentError("max_tokens", f"the weights {weights!r} have no limit of their own; set one")
    tokenizer.enable_truncation(min(limits))
    # SigLIP has learnt from expressions of exactly this length.
    length = num_positions if _attends_padding(transformer.config) else None
    tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token, length=length)
    encoder = TextEncoder(transformer, tokenizer, pooling)
    encoder.restrict(trainable, encoder.blocks(), encoder.last_norm())
    return encoder


def rebuild_text_encoder(
    arguments: dict[str, Any], config: dict[str, Any] | None, tokenizer: str | None
) -> TextEncoder | ClassEncoder:
    """Rebuild what `build_text_encoder` built from `arguments`, with random weights.

    `config`: the configuration of its transformer; `tokenizer`: the tokenizer's JSON; both None for a class encoder.
    """
    if "classes" in arguments:
        return ClassEncoder(**arguments)
    if config is None or tokenizer is None:
        raise ValueError("its language model has no configuration or no tokenizer")
    transformer = _create(CONFIG_MAPPING[config["model_type"]].from_dict(config))
    encoder = TextEncoder(transformer, Tokenizer.from_str(tokenizer), arguments["pooling"])
    encoder.restrict(arguments["trainable"], encoder.blocks(), encoder.last_norm())
    return encoder


def _attends_padding(config: PreTrainedConfig) -> bool:
    return config.model_type.startswith("siglip")


def _random_bert(
    hidden_size: int, num_layers: int, num_heads: int, vocabulary_size: int, max_tokens: int | None, dropout: float
) -> PreTrainedModel:
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


def _create(config: PreTrainedConfig) -> PreTrainedModel:
    """The text encoder with this `config` and random weights."""
    kind = _class_of(config)
    return _tokens_only(kind(config, **_without_pooler(kind)))


def _tokens_only(transformer: PreTrainedModel) -> PreTrainedModel:
    """Remove the layer after SigLIP's last token: TSEG has its own."""
    if isinstance(transformer, SiglipTextModel):
        transformer.head = nn.Identity()  # type: ignore[assignment]
    return transformer


def _load_transformer(weights: str, dropout: float) -> PreTrainedModel:
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


def _num_positions(transformer: PreTrainedModel) -> int | None:
    """The number of positions that have an embedding; None if positions are relative."""
    for name, module in transformer.named_modules():
        if re.search(r"position_embeddings?$", name) and isinstance(module, nn.Embedding):
            # RoBERTa and MPNet count positions from the padding token's id on.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def _read_tokenizer(weights: str, config: PreTrainedConfig) -> Any:
    try:
        return AutoTokenizer.from_pretrained(weights, config=config, trust_remote_code=False)
    except ImportError:  # SigLIP's own class needs SentencePiece; its tokenizer.json does not
        return PreTrainedTokenizerFast.from_pretrained(weights)


def _load_tokenizer(weights: str, config: PreTrainedConfig) -> tuple[Tokenizer, int, str, int | None]:
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


def _pretrained(weights: str, load: Callable[..., Any], **arguments: Any) -> Any:
    """Call `load` of transformers with `weights`, a local folder or a name on the hub, and convert its errors."""
    complaint, folder = f"the weights {weights!r} cannot be loaded", Path(weights)
    if folder.exists() and not (folder / "config.json").is_file():
        raise UnfitWeightsError(f"{complaint}: they are not a folder with a config.json")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with parsing(complaint, UnfitWeightsError if folder.exists() else MissingWeightsError):
            return load(weights, **arguments)
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


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
