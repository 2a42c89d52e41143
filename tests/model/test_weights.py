"""Weights are loaded completely or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tseg.model.weights import MissingWeightsError, check_fit, load_strictly, parsing, read_weights

OPTIONS = {"ignored": r"^head\.", "weights": "net.pth"}


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.ModuleDict({"first": nn.Linear(2, 3), "last": nn.Linear(3, 4)})


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


def test_every_weight_is_loaded() -> None:
    ours, theirs = small_net(), small_net(1)
    load_strictly(ours, theirs.state_dict() | {"head.weight": torch.zeros(1)}, **OPTIONS)
    assert equal(ours, theirs)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"last.bias": torch.zeros(5)}, r"last\.bias is \(5,\), expected \(4,\)"),
        ({"more": torch.zeros(2, 2)}, r"more is \(2, 2\), expected none"),
        ({"last.bias": 3}, r"last\.bias is of type int, expected \(4,\)"),
        ({"last.bias": torch.zeros(4, dtype=torch.int8)}, r"last\.bias is of torch\.int8.*, expected \(4,\)"),
        ({"last.bias": torch.zeros(4, device="meta")}, r"last\.bias is of .*meta, expected \(4,\)"),
        ({"last.bias": torch.zeros(4).to_sparse()}, r"last\.bias is of .*sparse.*, expected \(4,\)"),
    ],
)
def test_weights_that_do_not_fit_leave_the_net_unchanged(changed: dict[str, Any], complaint: str) -> None:
    ours = small_net()
    with pytest.raises(
        ValueError, match=rf"^the weights 'net\.pth' do not fit the encoder in 1 of its tensors: {complaint}$"
    ):
        load_strictly(ours, small_net(1).state_dict() | changed, **OPTIONS)
    assert equal(ours, small_net())


def test_the_first_three_that_differ_are_named_in_the_order_of_the_net() -> None:
    needed = dict.fromkeys("dcba", (1,)) | {"head.d": (2,)}
    found = {"x": (1,), "b": (1,), "c": (2,), "head.e": (3,)}
    with pytest.raises(
        ValueError, match=r"4 of its tensors: d is missing, expected \(1,\); c is \(2,\), expected \(1,\); a is"
    ):
        check_fit(found, needed, **OPTIONS)


@pytest.mark.parametrize("name", ["net.pth", "net.bin"])
@pytest.mark.parametrize("entry", ["state_dict", "model"])
def test_weights_are_read_from_a_checkpoint(tmp_path: Path, name: str, entry: str) -> None:
    weights = small_net(1).state_dict()
    prefixed = {f"module.{name}": weight for name, weight in weights.items()}
    torch.save({entry: prefixed, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / name)
    found = read_weights(str(tmp_path / name))
    ours = small_net()
    load_strictly(ours, found, **OPTIONS)
    assert equal(ours, small_net(1))


@pytest.mark.parametrize(
    "error", [EOFError(), RuntimeError("One. Two.\nThree"), KeyError("one"), Exception("One\ntwo")]
)
def test_any_error_of_a_library_becomes_one_sentence(error: Exception) -> None:
    sentence = r"^It is damaged: ('one'|One|EOFError)$"
    with pytest.raises(MissingWeightsError, match=sentence) as caught, parsing("It is damaged", MissingWeightsError):
        raise error
    assert caught.value.__cause__ is error


def test_a_long_sentence_is_truncated() -> None:
    with pytest.raises(ValueError, match=r"^It is damaged: x{200}$"), parsing("It is damaged"):
        raise RuntimeError("x" * 10_000)


def test_half_precision_weights_are_loaded_as_float32() -> None:
    ours, theirs = small_net(), small_net(1)
    halves: dict[str, Tensor] = {name: weight.half() for name, weight in theirs.state_dict().items()}
    load_strictly(ours, halves, **OPTIONS)
    assert all(torch.equal(weight, halves[name].float()) for name, weight in ours.state_dict().items())
