"""Training: the same bytes every time, interrupted or not."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from tseg.data.batches import WeakBatches
from tseg.model.image_encoder import MEAN, STD
from tseg.model.pooling import POOLINGS
from tseg.model.tseg import TSEG, save_model
from tseg.training.loop import train
from tseg.training.schedule import poly_schedule

ITERATIONS = 24
KILLED_AT = 17  # the checkpoint before is that of iteration 10
MPA = functools.partial(POOLINGS["mpa"], epsilon=1.0, size_lambda=0.01, size_power=5.0)


class Training:
    """A training of a tiny model whose parts can be looked at afterwards."""

    def __init__(self, make_model: Callable[[int], TSEG], records: pd.DataFrame, checkpoint: Path):
        self.make_model, self.records, self.checkpoint = make_model, records, checkpoint
        self.logged: list[dict[str, float]] = []

    def __call__(self, *, seed: int = 0, optimizer: str = "SGD", rate: float = 1e-2, **changed: Any) -> "Training":
        self.model = self.make_model(seed)
        momentum = {"momentum": 0.9} if optimizer == "SGD" else {}
        self.optimizer = getattr(torch.optim, optimizer)(
            self.model.parameters(), lr=rate, weight_decay=1e-4, **momentum
        )
        iterations = changed.get("iterations", ITERATIONS)
        self.schedule = poly_schedule(self.optimizer, iterations, 0.9, warmup=0)
        self.batches = WeakBatches(
            self.records,
            batch_size=4,
            expressions_per_picture=3,
            resolution=32,
            scale=(0.9, 1.2),
            flip=True,
            flip_words="swap",
            mean=MEAN,
            std=STD,
            seed=seed,
        )
        settings: dict[str, Any] = {
            "pooling": MPA,
            "iterations": iterations,
            "seed": seed,
            "precision": torch.float32,
            "num_workers": 0,
            "checkpoint": self.checkpoint,
            "fingerprint": "same",
            "log": self.logged.append,
        }
        settings |= changed
        pooling = settings.pop("pooling")
        self.history = train(self.model, self.batches, pooling, self.optimizer, self.schedule, **settings)
        return self

    def state(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        return {name: part.state_dict() for name, part in parts.items()} | {"history": self.history}

    def killed_at(self, iteration: int, **settings: Any) -> None:
        def log(row: dict[str, float]) -> None:
            if row["iteration"] == iteration:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self(log=log, **settings)


@pytest.fixture
def training(make_model: Callable[[int], TSEG], records: pd.DataFrame, tmp_path: Path) -> Callable[[str], Training]:
    """A function from a name to a training with a checkpoint of that name."""
    return lambda name: Training(make_model, records, tmp_path / name / "last.ckpt")


def assert_same_bits(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_training_twice_gives_the_same_bytes(
    training: Callable[[str], Training], architecture: dict[str, Any], tmp_path: Path
) -> None:
    files = []
    for number, seed in enumerate((0, 0, 1)):
        model = training(str(number))(seed=seed).model
        files.append(tmp_path / f"{number}.safetensors")
        save_model(files[-1], model, architecture, {"pooling": "mpa"})
    first, again, other = (file.read_bytes() for file in files)
    assert first == again
    assert first != other


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_killed_and_resumed_training_is_an_unbroken_one(training: Callable[[str], Training], optimizer: str) -> None:
    unbroken, resumed = training("unbroken")(optimizer=optimizer), training("resumed")
    resumed.killed_at(KILLED_AT, optimizer=optimizer)
    resumed(optimizer=optimizer)
    assert resumed.logged[0]["iteration"] == 11
    assert_same_bits(resumed.state(), unbroken.state())


def test_a_finished_training_started_again_does_nothing(training: Callable[[str], Training]) -> None:
    twice = training("twice")
    done = twice(iterations=20).state()
    twice.logged.clear()
    assert_same_bits(twice(iterations=20).state(), done)
    assert twice.logged == []


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(training: Callable[[str], Training]) -> None:
    unbroken, resumed = training("unbroken")(), training("resumed")
    resumed.killed_at(KILLED_AT, fingerprint="other")
    assert_same_bits(resumed().state(), unbroken.state())
    assert resumed.logged[0]["iteration"] == 1


def test_masks_are_never_read(training: Callable[[str], Training]) -> None:
    """Weak supervision: without mask and box the training is the same."""
    with_masks, without = training("with"), training("without")
    without.records = without.records[["file_name", "expression"]]
    assert_same_bits(without().state(), with_masks().state())


def without_chance(model: TSEG) -> TSEG:
    """The model with every dropout and drop path switched off."""
    for module in model.modules():
        for name in ("p", "drop_prob"):
            if hasattr(module, name):
                setattr(module, name, 0.0)
    return model


def test_the_first_loss_is_that_of_the_papers_equations_on_the_first_batch(training: Callable[[str], Training]) -> None:
    """Sections 3.2 and 3.3 for MPA, written out in float64."""
    run = training("run")
    make_model = run.make_model
    run.make_model = lambda seed: without_chance(make_model(seed))
    run(iterations=1)
    batch = run.batches[0]
    s = run.make_model(0)(batch.pictures, batch.expressions).detach().double().numpy()
    m = np.exp(s) / (1 + np.exp(s))
    size = m.mean(axis=1)
    z = (m * s).sum(axis=1) / (m.sum(axis=1) + 1.0) + (1 - size) ** 5 * np.log(0.01 + size)
    zbar = np.array([[expression in positives for expression in batch.expressions] for positives in batch.positives])
    loss = np.where(zbar, np.log(1 + np.exp(-z)), np.log(1 + np.exp(z))).mean()
    assert run.history[0]["loss"] == pytest.approx(loss, rel=1e-5)
    with_chance = training("with chance")(iterations=1)
    assert with_chance.history[0]["loss"] != pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("pooling", [POOLINGS["gap"], POOLINGS["gmp"], MPA], ids=["gap", "gmp", "mpa"])
def test_a_few_iterations_lower_the_loss_on_four_pictures(
    training: Callable[[str], Training], pooling: Callable[[Tensor], Tensor]
) -> None:
    losses = [
        row["loss"] for row in training("run")(optimizer="AdamW", rate=3e-3, pooling=pooling, iterations=48).history
    ]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def test_history_says_each_iteration_once_with_its_learning_rate(training: Callable[[str], Training]) -> None:
    run = training("run")()
    assert run.history == run.logged
    assert [row["iteration"] for row in run.history] == list(range(1, ITERATIONS + 1))
    expected = [1e-2 * (1 - n / ITERATIONS) ** 0.9 for n in range(ITERATIONS)]
    assert [row["learning_rate"] for row in run.history] == pytest.approx(expected)
    assert run.history[0]["tau"] == pytest.approx(10.0)
    assert len({row["tau"] for row in run.history} | {run.model.tau.item()}) == ITERATIONS + 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_says_where(training: Callable[[str], Training], loss: float) -> None:
    run, calls = training("run"), []

    def pooling(similarities: Tensor) -> Tensor:
        calls.append(similarities)
        return MPA(similarities) * (loss if len(calls) == 3 else 1.0)

    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at iteration 3 "):
        run(pooling=pooling)
    assert all(weight.isfinite().all() for weight in run.model.parameters())
    assert [row["iteration"] for row in run.logged] == [1, 2]


def test_bfloat16_trains_float32_weights(training: Callable[[str], Training]) -> None:
    reduced, full = training("bfloat16")(precision=torch.bfloat16), training("float32")()
    assert {weight.dtype for weight in reduced.model.parameters()} == {torch.float32}
    assert reduced.history[0]["loss"] == pytest.approx(full.history[0]["loss"], rel=0.05)
    assert reduced.history[0]["loss"] != full.history[0]["loss"]
    assert all(math.isfinite(row["loss"]) for row in reduced.history)
