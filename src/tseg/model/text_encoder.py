"""The text encoder: any transformers BERT, and its tokenizer (section 3.1, "Text encoder")."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn, tensor
from transformers import AutoTokenizer, BertConfig, BertModel

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class TextEncoder(nn.Module):
    """The first token of a BERT stands for the whole expression."""

    def __init__(self, bert: BertModel):
        super().__init__()
        self.bert = bert

    @property
    def num_features(self) -> int:
        """Size D_T of an expression's token."""
        return self.bert.config.hidden_size

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Expression tokens (L, D_T) of token ids and mask, both int64 (L, T)."""
        return self.bert(input_ids=token_ids, attention_mask=attention_mask).last_hidden_state[:, 0]


def build_text_encoder(
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    vocabulary_size: int,
    max_tokens: int,
    dropout: float,
    weights: str | None,
) -> TextEncoder:
    """A BERT of the given sizes; `dropout` is that of its hidden states and of its attention.

    `weights`: None for random ones, else a hub name or a local folder that transformers loads. Raises ValueError where
    they cannot be had or are of other sizes.
    """
    sizes: dict[str, Any] = {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "vocab_size": vocabulary_size,
    }
    dropouts: dict[str, Any] = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    if weights is None:
        config = BertConfig(
            **sizes,
            **dropouts,
            intermediate_size=4 * hidden_size,
            max_position_embeddings=max_tokens,
            # BERT's 0.02 is that of 2,500 features; narrower encoders would map all expressions to nearly one token.
            initializer_range=hidden_size**-0.5,
        )
        return TextEncoder(BertModel(config, add_pooling_layer=False))
    try:
        bert = BertModel.from_pretrained(weights, add_pooling_layer=False, **dropouts)
    except (OSError, ValueError) as error:
        raise ValueError(f"model.text_encoder.weights: {weights!r} cannot be loaded: {error}") from error
    if max_tokens > bert.config.max_position_embeddings:
        raise ValueError(
            f"model.text_encoder.max_tokens: {weights!r} has {bert.config.max_position_embeddings} positions; "
            f"{max_tokens} tokens are too many"
        )
    for key, size in sizes.items():
        if getattr(bert.config, key) != size:
            raise ValueError(
                f"model.text_encoder: {weights!r} has {key} {getattr(bert.config, key)}, the settings say {size}; "
                "make them agree"
            )
    return TextEncoder(bert)


def learn_wordpiece(expressions: Sequence[str], vocabulary_size: int) -> Tokenizer:
    """A lower-case WordPiece tokenizer of at most `vocabulary_size` pieces, a function of `expressions` alone."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(" ".join(expressions)))
    # Left to itself the trainer numbers the letters inside words in a hash table's order, another one each time.
    inner_letters = sorted({f"##{letter}" for word, _ in words for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size, special_tokens=[*_SPECIAL_TOKENS, *inner_letters], show_progress=False
    )
    tokenizer.train_from_iterator(expressions, trainer)
    first, last = ((token, _SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(last, first)
    return tokenizer


def load_tokenizer(weights: str) -> Tokenizer:
    """The tokenizer that belongs to pretrained `weights`, a hub name or a local folder."""
    return AutoTokenizer.from_pretrained(weights, use_fast=True).backend_tokenizer


def tokenize(tokenizer: Tokenizer, expressions: list[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, int64 (L, T), padded to the longest of the L expressions, at most `max_tokens`."""
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    encodings = tokenizer.encode_batch(expressions)
    return tensor([encoding.ids for encoding in encodings]), tensor([encoding.attention_mask for encoding in encodings])
