"""The text encoders and the tokenizer."""

import json
import logging
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer

from tseg.model.language_model import learn_wordpiece
from tseg.model.text_encoder import ClassEncoder, TextEncoder, build_language_model, build_text_encoder
from tseg.model.weights import ArgumentError, MissingWeightsError

from transformers import BertConfig, BertForPreTraining, BertModel, BertTokenizerFast  # isort: skip  (after the encoder)

SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "vocabulary_size": 60}
EXPRESSIONS = ["red circle", "the small blue square on the left", "a star", "Red Circle above the star"]


CLASSES = ["circle", "square", "sign"]


def build(weights: str | None = None, **changed: Any) -> TextEncoder:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "pooling": "first",
        "max_tokens": 12,
        "dropout": 0.1,
        "random": SIZES,
        "learnt": learnt(),
    }
    return build_language_model(**arguments | {"weights": weights} | changed).eval()


def learnt() -> Tokenizer:
    return learn_wordpiece(EXPRESSIONS, 60)


def class_encoder() -> ClassEncoder:
    torch.manual_seed(0)
    encoder = build_text_encoder({"classes": CLASSES, "num_features": 64}, None)
    assert isinstance(encoder, ClassEncoder)
    return encoder


def pretrained(folder: Path) -> BertModel:
    """A BERT and its tokenizer, saved in the published format."""
    torch.manual_seed(1)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "circle"]))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    bert = BertModel(BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2))
    bert.save_pretrained(folder)
    return bert.eval()


def test_expression_is_the_first_token_of_the_pretrained_bert(tmp_path: Path) -> None:
    theirs, ours = pretrained(tmp_path), build(str(tmp_path))
    token_ids, mask = ours.tokenize(EXPRESSIONS)
    expected = theirs(input_ids=token_ids, attention_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(ours(EXPRESSIONS), expected)


def test_the_sizes_of_pretrained_weights_are_read_from_their_folder(tmp_path: Path) -> None:
    pretrained(tmp_path)
    encoder = build_language_model(weights=str(tmp_path), pooling="first", max_tokens=None, dropout=0.0)
    assert (encoder.num_features, len(encoder.blocks() or []), encoder.max_tokens) == (32, 2, 512)


def test_more_tokens_than_positions_are_refused(tmp_path: Path) -> None:
    pretrained(tmp_path)
    with pytest.raises(
        ArgumentError, match=r"^513 tokens are more than the 512 positions of the weights '\S+'; lower it"
    ) as no:
        build(str(tmp_path), max_tokens=513)
    assert no.value.argument == "max_tokens"


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_is_active_in_training(tmp_path: Path, dropout: float) -> None:
    pretrained(tmp_path)
    for weights in (None, str(tmp_path)):
        encoder = build(weights, dropout=dropout).train()
        assert torch.equal(encoder(EXPRESSIONS), encoder(EXPRESSIONS)) == (dropout == 0)


def test_a_folder_without_a_bert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the weights '\S+' cannot be loaded"):
        build(str(tmp_path))


def published(folder: Path) -> BertForPreTraining:
    """A BERT with its heads, in the three files of the smaller BERTs, which do not name the model type."""
    torch.manual_seed(1)
    folder.mkdir(parents=True, exist_ok=True)
    bert = BertForPreTraining(BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2))
    sizes = bert.config.to_diff_dict() | {"vocab_size": 60, "hidden_size": 32}
    sizes = {key: value for key, value in sizes.items() if key not in ("model_type", "architectures")}
    (folder / "config.json").write_text(json.dumps(sizes))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "circle"]))
    torch.save(bert.state_dict(), folder / "pytorch_model.bin")
    return bert.eval()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of `lab/bert` in an offline copy of the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    copy = tmp_path / "hub" / "models--lab--bert"
    (copy / "refs").mkdir(parents=True)
    (copy / "refs" / "main").write_text("0" * 40)
    return copy / "snapshots" / ("0" * 40)


@pytest.mark.parametrize("from_hub", [True, False])
def test_a_published_bert_is_the_same_from_the_hub_and_from_a_folder(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, from_hub: bool
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("nothing is downloaded")

    theirs = published(hub if from_hub else tmp_path / "bert").bert
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", from_hub)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    weights = "lab/bert" if from_hub else str(tmp_path / "bert")
    ours = build(weights)
    token_ids, mask = ours.tokenize(["red circle", "Red"])
    assert token_ids.tolist() == [[2, 5, 6, 3], [2, 5, 3, 0]]
    expected = theirs(input_ids=token_ids, attention_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(ours(["red circle", "Red"]), expected, rtol=0, atol=0)


def test_loading_prints_no_warning_about_heads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    published(tmp_path)
    build(str(tmp_path))
    assert "cls.predictions" not in caplog.text


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"bert.encoder.layer.1.output.dense.bias": None},
            r"encoder\.layer\.1\.output\.dense\.bias is missing, expected \(32,\)",
        ),
        (
            {"bert.embeddings.word_embeddings.weight": (61, 32)},
            r"embeddings\.word_embeddings\.weight is \(61, 32\), expected \(60, 32\)",
        ),
        (
            {"bert.encoder.layer.2.output.dense.bias": (32,)},
            r"bert\.encoder\.layer\.2\.output\.dense\.bias is present, expected none",
        ),
        ({"adapter.weight": (32,)}, r"adapter\.weight is present, expected none"),
    ],
)
@pytest.mark.parametrize("source", ["folder", "hub"])
def test_weights_that_do_not_fit_the_bert_are_refused(
    tmp_path: Path, hub: Path, source: str, change: dict[str, tuple[int, ...] | None], complaint: str
) -> None:
    folder = hub if source == "hub" else tmp_path / "bert"
    weights = published(folder).state_dict()
    for name, shape in change.items():
        if shape is None:
            del weights[name]
        else:
            weights[name] = torch.zeros(shape)
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=rf"^the weights '\S+' do not fit the encoder in 1 of its tensors: {complaint}$"
    ):
        build("lab/bert" if source == "hub" else str(folder))


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    published(tmp_path)
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"38 of its tensors: embeddings\.word_embeddings\.weight is missing, expected \(60, 32\)"
    ):
        build(str(tmp_path))


def test_half_precision_weights_are_converted_to_float32(tmp_path: Path) -> None:
    halves = {name: weight.half() for name, weight in published(tmp_path).state_dict().items()}
    torch.save(halves, tmp_path / "pytorch_model.bin")
    bert = build(str(tmp_path)).transformer
    assert {weight.dtype for weight in bert.parameters()} == {torch.float32}
    assert all(torch.equal(weight, halves[f"bert.{name}"].float()) for name, weight in bert.state_dict().items())


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("a pickle ran code",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published(tmp_path)
    torch.save(Harmful(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"^the weights '\S+' cannot be loaded: [^\n]*$"):
        build(str(tmp_path))
    assert "ran code" not in capsys.readouterr().out


def shorten(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "shortened": shorten,
    "empty": lambda file: file.write_bytes(b""),
    "of another kind": lambda file: file.write_bytes(bytes(range(256))),
    "a list": lambda file: file.write_text("[]"),
    "deep": lambda file: file.write_text("[" * 1_000_000),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin", "model.safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    bert = published(tmp_path)
    if name == "model.safetensors":
        BertModel(bert.config).save_pretrained(tmp_path)
    DAMAGES[damage](tmp_path / name)
    with pytest.raises(ValueError, match=r"^the weights '\S+' cannot be loaded: [^\n]*$"):
        build(str(tmp_path))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    pretrained(tmp_path)
    DAMAGES[damage](tmp_path / name)
    with pytest.raises(ValueError, match=r"^the weights '\S+' cannot be loaded: [^\n]*$"):
        build(str(tmp_path))


@pytest.mark.parametrize("content", [None, b"", bytes(range(256))])
def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path, content: bytes | None) -> None:
    published(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    if content is not None:
        (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(ValueError, match=r"^the weights '\S+' (have no vocabulary|cannot be loaded)[^\n]*$"):
        build(str(tmp_path))


def test_a_vocabulary_of_more_words_than_the_bert_has_is_refused(tmp_path: Path) -> None:
    published(tmp_path)
    with (tmp_path / "vocab.txt").open("a") as file:
        file.writelines(f"\nword{number}" for number in range(60))
    with pytest.raises(
        ValueError, match=r"^the tokenizer has 67 pieces, more than the vocabulary of 60; use the tokenizer "
    ):
        build(str(tmp_path))


def test_a_learnt_vocabulary_of_more_words_than_the_bert_has_is_refused() -> None:
    with pytest.raises(
        ArgumentError, match=r"pieces, more than the vocabulary of 20; raise vocabulary_size"
    ) as refused:
        build(random=SIZES | {"vocabulary_size": 20})
    assert refused.value.argument == "random"


def test_features_that_the_heads_cannot_share_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"^hidden_size is 32, which 5 heads cannot share") as refused:
        build(random=SIZES | {"num_heads": 5})
    assert refused.value.argument == "random"


@pytest.mark.parametrize("weights", ["lab/another", "data/raw/paper/bert", "lab"])
def test_without_the_hub_weights_are_missing(hub: Path, weights: str) -> None:
    with pytest.raises(MissingWeightsError, match=rf"^the weights '{weights}' cannot be loaded: [^\n]*$"):
        build(weights)


def test_a_file_of_weights_is_refused_where_a_folder_is_expected(tmp_path: Path) -> None:
    published(tmp_path)
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin' cannot be loaded: they are not a folder with a config\.json"
    ):
        build(str(tmp_path / "pytorch_model.bin"))


def test_a_pretrained_tokenizer_is_used_as_it_is(tmp_path: Path) -> None:
    pretrained(tmp_path)
    token_ids, mask = build(str(tmp_path)).tokenize(["red circle", "Red"])
    assert token_ids.tolist() == [[2, 5, 6, 3], [2, 5, 3, 0]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_padding_does_not_change_an_expression() -> None:
    encoder = build()
    alone = torch.cat([encoder([expression]) for expression in EXPRESSIONS])
    torch.testing.assert_close(encoder(EXPRESSIONS), alone, rtol=1e-4, atol=1e-5)


def test_every_word_matters_to_the_first_token() -> None:
    encoder = build()
    before = encoder(["the red circle"])
    for changed in ("a red circle", "the blue circle", "the red star", "circle red the", "the red"):
        assert not torch.allclose(encoder([changed]), before)


def test_expressions_start_and_end_with_their_special_tokens() -> None:
    tokenizer = learnt()
    token_ids, mask = build(learnt=tokenizer).tokenize(EXPRESSIONS)
    for row, length in zip(token_ids.tolist(), mask.sum(dim=1).tolist(), strict=True):
        assert tokenizer.id_to_token(row[0]) == "[CLS]"
        assert tokenizer.id_to_token(row[length - 1]) == "[SEP]"
        assert set(row[length:]) <= {tokenizer.token_to_id("[PAD]")}


def test_case_does_not_matter() -> None:
    token_ids, _ = build().tokenize(["red circle", "Red CIRCLE"])
    assert token_ids[0].tolist() == token_ids[1].tolist()


def test_learnt_words_are_distinguished() -> None:
    token_ids, _ = build(max_tokens=30).tokenize(EXPRESSIONS)
    unknown = learnt().token_to_id("[UNK]")
    assert unknown not in token_ids
    assert len({tuple(row) for row in token_ids.tolist()}) == len(EXPRESSIONS)


def test_longer_expressions_are_truncated_at_max_tokens() -> None:
    encoder, expressions = build(), ["red circle " * 20, "star"]
    token_ids, mask = encoder.tokenize(expressions)
    assert token_ids.shape == mask.shape == (2, 12)
    assert encoder(expressions).shape == (2, 32)


@pytest.mark.parametrize("vocabulary_size", [40, 200, 5000])
def test_a_tokenizer_learnt_twice_is_the_same_bytes(vocabulary_size: int) -> None:
    """Many pieces are equally frequent here: ties must not be broken at random."""
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefgh", k=generator.randint(2, 6))) for _ in range(200)]
    expressions = [" ".join(generator.sample(words, 3)) for _ in range(300)]
    first, *others = (learn_wordpiece(expressions, vocabulary_size) for _ in range(4))
    assert {other.to_str() for other in others} == {first.to_str()}
    assert first.get_vocab_size() <= vocabulary_size


def test_a_class_has_one_vector_of_its_own() -> None:
    encoder = class_encoder()
    vectors = encoder(["sign", "circle", "sign"])
    assert vectors.shape == (3, encoder.num_features)
    assert torch.equal(vectors[0], vectors[2])
    assert torch.equal(encoder(CLASSES), encoder.embedding.weight)


def test_only_classes_in_the_batch_learn() -> None:
    encoder = class_encoder()
    encoder(["circle", "sign"]).sum().backward()
    assert encoder.embedding.weight.grad is not None
    assert encoder.embedding.weight.grad.any(dim=1).tolist() == [True, False, True]


def test_classes_start_far_apart_in_the_common_space() -> None:
    """Although all classes share the bias of the projection."""
    torch.manual_seed(0)
    encoder = ClassEncoder([str(number) for number in range(20)], 64)
    projected = torch.nn.Linear(64, 64)(encoder(list(encoder.indices)))
    cosines = torch.nn.functional.normalize(projected, dim=-1) @ torch.nn.functional.normalize(projected, dim=-1).T
    others = cosines[~torch.eye(20, dtype=torch.bool)]
    assert others.mean().abs() < 0.1
    assert others.max() < 0.7


def test_an_expression_that_is_not_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'red circle' is not a class of this model.*'square'"):
        class_encoder()(["circle", "red circle"])
