"""Families of transformers' text encoders, small and with random weights, against transformers' own computation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn.functional import softplus

from tseg.model.text_encoder import TextEncoder, TextPooling, build_language_model, rebuild_text_encoder
from tseg.model.tseg import load_model, save_model
from tseg.model.weights import ArgumentError

from ..models import build_tseg
from ..provenances import model_provenance

import transformers as hf  # isort: skip  (after tseg.model.text_encoder, which sees to torchvision)

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "red", "circle", "blue", "square", "on", "left", "the"]
EXPRESSIONS = ["red circle", "the blue square on the left", "circle"]
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
SIZES = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
TEXT = SIZES | IDS | {"intermediate_size": 32}
IMAGE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 16}
T5 = {"vocab_size": len(WORDS), "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2} | IDS
DISTIL = {"vocab_size": len(WORDS), "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "pad_token_id": 0}


class Family(NamedTuple):
    """A model as it is published, the part of it that encodes text, and its tokens, special ones included."""

    make: Callable[[], Any]
    text: Callable[[Any], Any]
    pooling: TextPooling
    max_tokens: int
    num_blocks: int | None = 3


FAMILIES = {
    "BERT": Family(
        lambda: hf.BertForPreTraining(hf.BertConfig(**TEXT, max_position_embeddings=12)), lambda m: m.bert, "first", 12
    ),
    "MiniLM": Family(lambda: hf.BertModel(hf.BertConfig(**TEXT, max_position_embeddings=12)), lambda m: m, "mean", 12),
    "RoBERTa": Family(
        lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**TEXT, max_position_embeddings=12)),
        lambda m: m.roberta,
        "first",
        11,  # positions count from the padding's id on
    ),
    "MPNet": Family(
        lambda: hf.MPNetForMaskedLM(hf.MPNetConfig(**TEXT, max_position_embeddings=12)), lambda m: m.mpnet, "mean", 10
    ),
    "DistilBERT": Family(
        lambda: hf.DistilBertForMaskedLM(hf.DistilBertConfig(**DISTIL, max_position_embeddings=12)),
        lambda m: m.distilbert,
        "first",
        12,
    ),
    "ALBERT": Family(
        lambda: hf.AlbertModel(hf.AlbertConfig(**TEXT, embedding_size=16, max_position_embeddings=12)),
        lambda m: m,
        "mean",
        12,
        None,
    ),
    "T5": Family(
        lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5, decoder_start_token_id=0)),
        lambda m: m.encoder,
        "mean",
        20,  # the tokenizer's: positions are relative
    ),
    "CLIP": Family(
        lambda: hf.CLIPModel(
            hf.CLIPConfig(text_config=TEXT | {"max_position_embeddings": 12}, vision_config=IMAGE | {"patch_size": 8})
        ),
        lambda m: m.text_model,
        "last",
        12,
    ),
    "SigLIP": Family(
        lambda: hf.SiglipModel(
            hf.SiglipConfig(text_config=TEXT | {"max_position_embeddings": 12}, vision_config=IMAGE | {"patch_size": 8})
        ),
        lambda m: m.text_model,
        "last",
        12,
    ),
}


def publish(family: str, folder: Path, **changed: Any) -> Any:
    """The model with its tokenizer, saved as on the hub."""
    torch.manual_seed(1)
    model = FAMILIES[family].make().eval()
    model.save_pretrained(folder)
    tokenizer(**changed).save_pretrained(folder)
    return FAMILIES[family].text(model)


def tokenizer(pad_token: str | None = "<pad>", model_max_length: int = 20) -> Any:
    """A tokenizer of whole words, between <s> and </s>."""
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("<s>", 2), ("</s>", 3)]
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special)
    tokens = {"pad_token": pad_token, "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=model_max_length, **tokens)


def encoder(folder: Path, pooling: TextPooling, **changed: Any) -> TextEncoder:
    arguments: dict[str, Any] = {"max_tokens": None, "dropout": 0.0}
    return build_language_model(weights=str(folder), pooling=pooling, **arguments | changed).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_expression_is_the_pooled_token_of_the_published_model(family: str, tmp_path: Path) -> None:
    """One expression at a time, without padding (SigLIP: padded as in its training)."""
    theirs, ours = publish(family, tmp_path), encoder(tmp_path, FAMILIES[family].pooling)
    pad: dict[str, Any] = {"padding": "max_length", "max_length": 12} if family == "SigLIP" else {}
    expected: list[Tensor] = []
    for expression in EXPRESSIONS:
        ids = tokenizer()(expression, return_tensors="pt", **pad)["input_ids"]
        tokens = theirs(input_ids=ids).last_hidden_state[0]
        expected.append({"first": tokens[0], "mean": tokens.mean(dim=0), "last": tokens[-1]}[ours.pooling])
    torch.testing.assert_close(ours(EXPRESSIONS), torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert (ours.max_tokens, ours.num_features) == (FAMILIES[family].max_tokens, 16)


@pytest.mark.parametrize("family", ["CLIP", "SigLIP"])
def test_the_last_token_is_what_the_published_model_pools(family: str, tmp_path: Path) -> None:
    """CLIP takes the token at the end of the text; SigLIP projects the last one."""
    theirs, ours = publish(family, tmp_path), encoder(tmp_path, "last")
    pad: dict[str, Any] = {"padding": "max_length", "max_length": 12} if family == "SigLIP" else {"padding": True}
    batch = tokenizer()(EXPRESSIONS, return_tensors="pt", **pad)
    mask = {} if family == "SigLIP" else {"attention_mask": batch["attention_mask"]}
    pooled = theirs(input_ids=batch["input_ids"], **mask).pooler_output
    tokens = ours(EXPRESSIONS)
    torch.testing.assert_close(theirs.head(tokens) if family == "SigLIP" else tokens, pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_training_step_reaches_every_weight_before_the_pooled_token(family: str, tmp_path: Path) -> None:
    publish(family, tmp_path)
    ours = encoder(tmp_path, FAMILIES[family].pooling).train()
    softplus(ours(EXPRESSIONS)).mean().backward()
    without = {name for name, weight in ours.named_parameters() if weight.grad is None}
    assert without == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_rebuilt_without_its_folder(family: str, tmp_path: Path) -> None:
    publish(family, tmp_path)
    ours = encoder(tmp_path, FAMILIES[family].pooling)
    arguments = {"weights": None, "pooling": ours.pooling, "trainable": "all"}
    again = rebuild_text_encoder(arguments, ours.transformer.config.to_dict(), ours.tokenizer.to_str())
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again.eval()(EXPRESSIONS), ours(EXPRESSIONS))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_blocks_and_their_norm_are_found(family: str, tmp_path: Path) -> None:
    publish(family, tmp_path)
    blocks = encoder(tmp_path, FAMILIES[family].pooling).blocks()
    assert (blocks and len(blocks)) == FAMILIES[family].num_blocks
    if blocks is None:
        with pytest.raises(ArgumentError, match=r"^this encoder has no blocks to count; choose all or heads"):
            encoder(tmp_path, FAMILIES[family].pooling, trainable=1)
        return
    ours = encoder(tmp_path, FAMILIES[family].pooling, trainable=1).train()
    softplus(ours(EXPRESSIONS)).mean().backward()
    learning = {name for name, weight in ours.named_parameters() if weight.grad is not None}
    assert learning
    assert all(".2." in name or "final_layer_norm" in name for name in learning)
    assert any("final_layer_norm" in name for name in learning) == (family in ("CLIP", "SigLIP", "T5"))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: hf.ViTModel(hf.ViTConfig(**IMAGE, patch_size=8)), "cannot be used: vit is not a text encoder"),
        (
            lambda: hf.BartModel(hf.BartConfig(vocab_size=11, d_model=16, encoder_layers=1, decoder_layers=1, **IDS)),
            "cannot be used: bart is not a text encoder",
        ),
    ],
)
def test_a_model_that_does_not_encode_text_is_refused(make: Callable[[], Any], complaint: str, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ArgumentError, match=rf"^the weights '\S+' {complaint}$") as refused:
        encoder(tmp_path, "first")
    assert refused.value.argument == "weights"


def test_a_type_that_transformers_lacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "of_nobody", "auto_map": {"AutoModel": "own.Model"}}')
    with pytest.raises(ArgumentError, match=r"are of the type 'of_nobody', which transformers lacks"):
        encoder(tmp_path, "first")


def test_a_tokenizer_without_padding_is_refused(tmp_path: Path) -> None:
    publish("BERT", tmp_path, pad_token=None)
    with pytest.raises(ArgumentError, match=r"has no tokenizer\.json or no padding token; add them"):
        encoder(tmp_path, "first")


def test_without_any_limit_one_must_be_set(tmp_path: Path) -> None:
    publish("T5", tmp_path, model_max_length=10**30)
    with pytest.raises(ArgumentError, match=r"have no limit of their own; set one") as refused:
        encoder(tmp_path, "mean")
    assert refused.value.argument == "max_tokens"
    assert encoder(tmp_path, "mean", max_tokens=7).max_tokens == 7


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_expressions_and_unknown_words_are_counted(family: str, tmp_path: Path) -> None:
    publish(family, tmp_path)
    ours = encoder(tmp_path, FAMILIES[family].pooling, max_tokens=5)
    assert ours.losses(["red circle", "the red circle"]) == []  # three words and two special tokens
    assert ours.losses(["the red circle on", "red zebra", "zebra zebra", "red"]) == [
        "1 of 4 expressions have more than 5 tokens; the rest of them is not seen",
        "2 of 4 expressions have words that the vocabulary lacks; all such words are alike",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_every_family_is_read_back_as_written(
    family: str, architecture: dict[str, Any], tmp_path: Path
) -> None:
    """T5's embeddings are two names of one tensor, which safetensors refuses to write."""
    publish(family, tmp_path / "hub")
    described = {"weights": str(tmp_path / "hub"), "pooling": FAMILIES[family].pooling, "max_tokens": 9, "dropout": 0.0}
    architecture["text_encoder"] = described | {"trainable": "heads"}
    model = build_tseg(**architecture, tokenizer=None).eval()
    save_model(tmp_path / "model.safetensors", model, architecture, model_provenance())
    loaded, _ = load_model(tmp_path / "model.safetensors")
    images, words = torch.zeros(1, 3, 32, 32), ["red circle", "the"]
    with torch.inference_mode():
        assert torch.equal(loaded(images, words), model(images, words))
