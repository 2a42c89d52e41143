"""The text encoder: any transformers BERT with its tokenizer (section 3.1, "Text encoder"), or a vector per class."""

import tseg.model.torchvision_operators  # noqa: F401  (before transformers is imported)

# isort: split
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, float32, nn, tensor
from transformers import AutoTokenizer, BertConfig, BertModel
from transformers.utils import logging

from tseg.model.weights import check_fit, parsing

_SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class TextEncoder(nn.Module):
    """The first token of a BERT stands for the whole expression.

    Owns `tokenizer`, and sets it to cut expressions at `max_tokens` and to pad them to the longest.
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
    """A learnt vector per class stands for its name (Table 1, "class encoding")."""

    def __init__(self, classes: Sequence[str], num_features: int):
        super().__init__()
        self.num_features = num_features
        self.places = {name: place for place, name in enumerate(classes)}
        assert len(self.places) == len(classes), "every class has a vector of its own"
        # ASSUME unit variance, that of a BERT's tokens after their last norm. Vectors of length 1, by contrast, would
        # be no larger than the bias of their projection, and all classes would begin with much in common.
        self.embedding = nn.Embedding(len(classes), num_features)

    def forward(self, expressions: list[str]) -> Tensor:
        """Class vectors (L, D_T); ValueError for an expression that is no class."""
        for expression in expressions:
            if expression not in self.places:
                raise ValueError(
                    f"{expression!r} is none of the classes that this model knows; choose from {list(self.places)}"
                )
        places = tensor([self.places[expression] for expression in expressions], device=self.embedding.weight.device)
        return self.embedding(places)


def build_text_encoder(settings: dict[str, Any], tokenizer: Tokenizer | None) -> TextEncoder | ClassEncoder:
    """The class encoder of {classes, num_features}, or else the BERT of `build_bert`'s arguments with `tokenizer`.

    Raises ValueError where the BERT has fewer vectors than the tokenizer has pieces.
    """
    if "classes" in settings:
        return ClassEncoder(**settings)
    assert tokenizer is not None, "a language model needs a tokenizer"
    if tokenizer.get_vocab_size() > settings["vocabulary_size"]:
        raise ValueError(
            f"language_model.vocabulary_size: {settings['vocabulary_size']} is too small for the "
            f"{tokenizer.get_vocab_size()} pieces of the tokenizer"
        )
    return TextEncoder(build_bert(**settings), tokenizer, settings["max_tokens"])


def rebuild_text_encoder(
    settings: dict[str, Any], bert: dict[str, Any] | None, tokenizer: str | None
) -> TextEncoder | ClassEncoder:
    """The text encoder that `build_text_encoder` made of `settings`, its weights still to be filled in.

    `bert` is the configuration of its BERT and `tokenizer` the tokenizer's JSON; None for a class encoder.
    """
    if bert is None or tokenizer is None:
        return ClassEncoder(**settings)
    # BERT's own configuration: pretrained ones differ in more than the settings say.
    model = BertModel(BertConfig.from_dict(bert), add_pooling_layer=False)
    return TextEncoder(model, Tokenizer.from_str(tokenizer), settings["max_tokens"])


def build_bert(
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    vocabulary_size: int,
    max_tokens: int,
    dropout: float,
    weights: str | None,
) -> BertModel:
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
        return BertModel(config, add_pooling_layer=False)
    config = _pretrained(weights, BertConfig.from_pretrained, **dropouts)
    if max_tokens > config.max_position_embeddings:
        raise ValueError(
            f"language_model.max_tokens: {weights!r} has {config.max_position_embeddings} positions; "
            f"{max_tokens} tokens are too many"
        )
    for key, size in sizes.items():
        if getattr(config, key) != size:
            raise ValueError(
                f"language_model: {weights!r} has {key} {getattr(config, key)}, the settings say {size}; "
                "make them agree"
            )
    return _load_bert(weights, config)


def _load_bert(weights: str, config: BertConfig) -> BertModel:
    """The BERT of this `config` with all of its `weights`, in float32 whatever they are stored in."""
    bert, loaded = _pretrained(
        weights,
        BertModel.from_pretrained,
        config=config,
        add_pooling_layer=False,
        dtype=float32,
        # What does not fit is told below; by itself transformers leaves it at random, or prints a table of it.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    needed = {name: tuple(weight.shape) for name, weight in bert.state_dict().items()}
    found: dict[str, object] = {name: shape for name, shape in needed.items() if name not in loaded["missing_keys"]}
    found |= {name: tuple(shape) for name, shape, _ in loaded["mismatched_keys"]}
    found |= dict.fromkeys(sorted(loaded["unexpected_keys"]), "there")
    check_fit(
        found,
        needed,
        ignored=r"^(bert\.)?pooler\.|^(cls|classifier|qa_outputs)\.",
        origin=f"language_model.weights: {weights!r}",
        architecture="the BERT of its config.json",
    )
    return bert


def _pretrained(weights: str, load: Callable[..., Any], **arguments: Any) -> Any:
    """What `load`, a function of transformers, makes of a hub name or a local folder; ValueError where it cannot."""
    complaint, folder = f"language_model.weights: {weights!r} cannot be loaded", Path(weights)
    if folder.exists() and not (folder / "config.json").is_file():
        raise ValueError(f"{complaint}: it is no folder with a config.json")
    fetch = "; fetch a folder (`tseg fetch bert_small` brings data/raw/bert_small) and give its path"
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with parsing(complaint, hint="" if folder.exists() else fetch):
            return load(weights, **arguments)
    finally:
        logging.set_verbosity(verbosity)


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
    """The tokenizer that belongs to pretrained `weights`, a hub name or a local folder.

    Raises ValueError where there is none, or it cannot be read.
    """
    # Older folders do not say in their config.json that they are a BERT's.
    config = _pretrained(weights, BertConfig.from_pretrained)
    tokenizer: Tokenizer = _pretrained(
        weights,
        lambda *names, **arguments: AutoTokenizer.from_pretrained(*names, **arguments).backend_tokenizer,
        config=config,
        trust_remote_code=False,
    )
    # Without a file of words transformers makes a tokenizer of the special tokens alone.
    if tokenizer.get_vocab_size() <= len(_SPECIAL_TOKENS):
        raise ValueError(
            f"language_model.weights: {weights!r} has no vocabulary; it needs a vocab.txt or a tokenizer.json"
        )
    return tokenizer
