"""The text encoder: a transformer with its tokenizer (section 3.1, "Text encoder"), or a vector per class."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn, tensor

from tseg.model.encoder import Encoder, Trainable
from tseg.model.language_model import (
    attends_padding,
    load_tokenizer,
    load_transformer,
    num_positions,
    random_bert,
    recreate,
)
from tseg.model.weights import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TextPooling = Literal["first", "mean", "last"]
"""What represents an expression: its first token (BERT), the mean (sentence encoders), the last (CLIP, SigLIP)."""

_CHUNK = 4096
"""Expressions that are tokenized at once only to count."""


class TextEncoder(Encoder):
    """A transformer of which one token, or the mean of all, represents an expression.

    `tokenizer` truncates and pads expressions, as `build_language_model` configured it.
    """

    def __init__(self, transformer: "PreTrainedModel", tokenizer: Tokenizer, pooling: TextPooling):
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
        encodings, device = self.tokenizer.encode_batch(expressions), self.transformer.device
        ids = tensor([encoding.ids for encoding in encodings])
        mask = tensor([encoding.attention_mask for encoding in encodings])
        if attends_padding(self.transformer):
            mask = torch.ones_like(ids)
        return ids.to(device, non_blocking=True), mask.to(device, non_blocking=True)

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
        indices = tensor([self.indices[expression] for expression in expressions])
        return self.embedding(indices.to(self.embedding.weight.device, non_blocking=True))


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
        transformer, tokenizer, limit = random_bert(**random, max_tokens=max_tokens, dropout=dropout), learnt, None
        pad_id, pad_token = tokenizer.token_to_id("[PAD]"), "[PAD]"
    else:
        transformer = load_transformer(weights, dropout)
        tokenizer, pad_id, pad_token, limit = load_tokenizer(weights, transformer.config)
    if tokenizer.get_vocab_size() > transformer.config.vocab_size:
        raise ArgumentError(
            "random" if weights is None else "weights",
            f"the tokenizer has {tokenizer.get_vocab_size()} pieces, more than the vocabulary of "
            f"{transformer.config.vocab_size}; "
            + ("raise vocabulary_size" if weights is None else "use the tokenizer that belongs to the weights"),
        )
    positions = num_positions(transformer)
    if max_tokens is not None and positions is not None and max_tokens > positions:
        raise ArgumentError(
            "max_tokens",
            f"{max_tokens} tokens are more than the {positions} positions of the weights {weights!r}; lower it",
        )
    limits = [each for each in (max_tokens, positions, limit if max_tokens is None else None) if each is not None]
    if not limits:
        raise ArgumentError("max_tokens", f"the weights {weights!r} have no limit of their own; set one")
    tokenizer.enable_truncation(min(limits))
    # SigLIP has learnt from expressions of exactly this length.
    length = positions if attends_padding(transformer) else None
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
    encoder = TextEncoder(recreate(config), Tokenizer.from_str(tokenizer), arguments["pooling"])
    encoder.restrict(arguments["trainable"], encoder.blocks(), encoder.last_norm())
    return encoder
