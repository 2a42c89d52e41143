"""The text encoder: a transformers BERT with its tokenizer (section 3.1, "Text encoder"), or a vector per class."""

import tseg.model.torchvision_operators  # noqa: F401  (before transformers is imported)

# isort: split
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, float32, nn, tensor
from transformers import AutoTokenizer, BertConfig, BertModel
from transformers.utils import logging

from tseg.model.weights import MissingWeightsError, check_fit, parsing

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class TextEncoder(nn.Module):
    """A BERT whose first token represents the whole expression.

    Owns `tokenizer`, which it configures to truncate expressions at `max_tokens` and to pad them to the longest.
    """

    def __init__(self, bert: BertModel, tokenizer: Tokenizer, max_tokens: int):
        super().__init__()
        self.bert = bert
        self.tokenizer = tokenizer
        tokenizer.enable_truncation(max_tokens)
        tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")

    @property
    def num_features(self) -> int:
        """Size D_T of an expression's token."""
        return self.bert.config.hidden_size

    def tokenize(self, expressions: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, int64 (L, T), padded to the longest of the L expressions."""
        encodings = self.tokenizer.encode_batch(expressions)
        ids, mask = [encoding.ids for encoding in encodings], [encoding.attention_mask for encoding in encodings]
        return tensor(ids, device=self.bert.device), tensor(mask, device=self.bert.device)

    def forward(self, expressions: list[str]) -> Tensor:
        """Expression tokens (L, D_T)."""
        token_ids, attention_mask = self.tokenize(expressions)
        return self.bert(input_ids=token_ids, attention_mask=attention_mask).last_hidden_state[:, 0]


class ClassEncoder(nn.Module):
    """A learnt vector per class in place of a language model (Table 1, "class encoding")."""

    def __init__(self, classes: Sequence[str], num_features: int):
        super().__init__()
        self.num_features = num_features
        self.indices = {name: index for index, name in enumerate(classes)}
        assert len(self.indices) == len(classes), "class names are distinct"
        # ASSUME: unit variance, as a BERT's tokens have after their last norm. Vectors of length 1 would be no larger
        # than the bias of their projection, so all classes would start out similar.
        self.embedding = nn.Embedding(len(classes), num_features)

    def forward(self, expressions: list[str]) -> Tensor:
        """Class vectors (L, D_T). Raises ValueError for an expression that is not a class."""
        for expression in expressions:
            if expression not in self.indices:
                raise ValueError(f"{expression!r} is not a class of this model; choose from {list(self.indices)}")
        indices = tensor([self.indices[expression] for expression in expressions], device=self.embedding.weight.device)
        return self.embedding(indices)


def build_text_encoder(arguments: dict[str, Any], tokenizer: Tokenizer | None) -> TextEncoder | ClassEncoder:
    """Build a class encoder, or a BERT with its `tokenizer`, from the `arguments` of `ClassEncoder` or `build_bert`.

    Raises MissingWeightsError if the weights cannot be found, and ValueError if the tokenizer has more pieces than
    `vocabulary_size` or another argument is unusable.
    """
    if "classes" in arguments:
        return ClassEncoder(**arguments)
    assert tokenizer is not None, "a language model needs a tokenizer"
    if tokenizer.get_vocab_size() > arguments["vocabulary_size"]:
        raise ValueError(
            f"the tokenizer has {tokenizer.get_vocab_size()} pieces, more than the vocabulary_size of "
            f"{arguments['vocabulary_size']}; raise vocabulary_size"
        )
    return TextEncoder(build_bert(**arguments), tokenizer, arguments["max_tokens"])


def rebuild_text_encoder(
    arguments: dict[str, Any], bert: dict[str, Any] | None, tokenizer: str | None
) -> TextEncoder | ClassEncoder:
    """Rebuild what `build_text_encoder` built from `arguments`, with random weights.

    `bert`: the configuration of its BERT; `tokenizer`: the tokenizer's JSON; both None for a class encoder.
    """
    if "classes" in arguments:
        return ClassEncoder(**arguments)
    if bert is None or tokenizer is None:
        raise ValueError("its language model has no configuration or no tokenizer")
    # Pretrained BERTs differ in more than `arguments`, so the saved configuration is used.
    model = BertModel(BertConfig.from_dict(bert), add_pooling_layer=False)
    return TextEncoder(model, Tokenizer.from_str(tokenizer), arguments["max_tokens"])


def build_bert(
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    vocabulary_size: int,
    max_tokens: int,
    dropout: float,
    weights: str | None,
) -> BertModel:
    """Build a BERT of the given sizes; `dropout` applies to its hidden states and its attention.

    `weights`: None for random weights, else a local folder or a name on the hub that transformers can load. Raises
    MissingWeightsError if they are neither, and ValueError if they are damaged or have other sizes.
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
            # BERT's 0.02 suits 2,500 features; a narrower encoder would map all expressions to nearly the same token.
            initializer_range=hidden_size**-0.5,
        )
        return BertModel(config, add_pooling_layer=False)
    config = _pretrained(weights, BertConfig.from_pretrained, **dropouts)
    if max_tokens > config.max_position_embeddings:
        raise ValueError(
            f"the weights {weights!r} have {config.max_position_embeddings} positions, fewer than the max_tokens of "
            f"{max_tokens}; lower max_tokens"
        )
    for key, size in sizes.items():
        if getattr(config, key) != size:
            raise ValueError(
                f"the weights {weights!r} have a {key} of {getattr(config, key)}, not {size}; make the two agree"
            )
    return _load_bert(weights, config)


def _load_bert(weights: str, config: BertConfig) -> BertModel:
    """The BERT of this `config` with all of its `weights`, converted to float32."""
    bert, loaded = _pretrained(
        weights,
        BertModel.from_pretrained,
        config=config,
        add_pooling_layer=False,
        dtype=float32,
        # transformers keeps random values for tensors that do not fit; `check_fit` below refuses them.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    needed = {name: tuple(weight.shape) for name, weight in bert.state_dict().items()}
    found: dict[str, object] = {name: shape for name, shape in needed.items() if name not in loaded["missing_keys"]}
    found |= {name: tuple(shape) for name, shape, _ in loaded["mismatched_keys"]}
    found |= dict.fromkeys(sorted(loaded["unexpected_keys"]), "present")
    check_fit(
        found,
        needed,
        ignored=r"^(bert\.)?pooler\.|^(cls|classifier|qa_outputs)\.",
        weights=weights,
    )
    return bert


def _pretrained(weights: str, load: Callable[..., Any], **arguments: Any) -> Any:
    """Call `load` of transformers with `weights`, a local folder or a name on the hub, and convert its errors."""
    complaint, folder = f"the weights {weights!r} cannot be loaded", Path(weights)
    if folder.exists() and not (folder / "config.json").is_file():
        raise ValueError(f"{complaint}: they are not a folder with a config.json")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with parsing(complaint, ValueError if folder.exists() else MissingWeightsError):
            return load(weights, **arguments)
    finally:
        logging.set_verbosity(verbosity)


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


def load_tokenizer(weights: str) -> Tokenizer:
    """Load the tokenizer of pretrained `weights`, a local folder or a name on the hub.

    Raises MissingWeightsError if they are neither, and ValueError if they have no tokenizer or it cannot be read.
    """
    # The config.json of older folders does not name the model's type, so it is read as a BERT's.
    config = _pretrained(weights, BertConfig.from_pretrained)
    tokenizer: Tokenizer = _pretrained(
        weights,
        lambda *names, **arguments: AutoTokenizer.from_pretrained(*names, **arguments).backend_tokenizer,
        config=config,
        trust_remote_code=False,
    )
    # Without a vocabulary file transformers makes a tokenizer of the special tokens alone.
    if tokenizer.get_vocab_size() <= len(_SPECIAL_TOKENS):
        raise ValueError(f"the weights {weights!r} have no vocabulary; add a vocab.txt or a tokenizer.json")
    return tokenizer
