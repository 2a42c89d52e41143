"""Training gives the same bytes every time, interrupted or not."""

import functools
import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tseg.model.pooling import POOLINGS
from tseg.model.tseg import TSEG, save_model
from tseg.training import loop, objectives
from tseg.training.batches import Batch, PixelBatches, Sampling, WeakBatches
from tseg.training.interruption import Interrupted
from tseg.training.loop import NUM_EMPTY, optimise, training_step
from tseg.training.objectives import Objective
from tseg.training.ranks import Ranks
from tseg.training.schedule import poly_schedule
from tseg.training.targets import TfidfTargets, identity_targets

from ..provenances import model_provenance

ITERATIONS = 24
KILLED_AT = 17  # the previous checkpoint is from iteration 10
SUPERVISIONS = ["weak", "full", "boxes"]


def weak(pooling: str, targets: Any = identity_targets) -> Objective:
    chosen = POOLINGS[pooling]
    options = {"epsilon": 1.0, "size_lambda": 0.01, "size_power": 5.0} if pooling in ("spa", "mpa") else {}
    return functools.partial(objectives.weak, score=functools.partial(chosen.score, **options), targets=targets)


OBJECTIVES: dict[str, Objective] = {"weak": weak("mpa"), "full": objectives.full, "boxes": objectives.boxes}


class Training:
    """A training of a tiny model whose parts can be inspected afterwards."""

    def __init__(self, make_model: Callable[[int], TSEG], records: pd.DataFrame, checkpoint: Path):
        self.make_model, self.records, self.checkpoint = make_model, records, checkpoint
        self.logged: list[dict[str, float]] = []

    def __call__(
        self,
        *,
        seed: int = 0,
        optimizer: str = "SGD",
        rate: float = 1e-2,
        supervision: str = "weak",
        **changed: Any,
    ) -> "Training":
        self.model = self.make_model(seed)
        momentum = {"momentum": 0.9} if optimizer == "SGD" else {}
        self.optimizer = getattr(torch.optim, optimizer)(
            self.model.parameters(), lr=rate, weight_decay=1e-4, **momentum
        )
        iterations = changed.get("iterations", ITERATIONS)
        self.schedule = poly_schedule(self.optimizer, iterations, 0.9, warmup=0)
        sampling = Sampling(
            batch_size=4,
            expressions_per_image=3,
            resolution=32,
            scale=(0.9, 1.2),
            flip=True,
            flip_words="swap",
            seed=seed,
        )
        self.batches = {
            "weak": lambda: WeakBatches(self.records, sampling),
            "full": lambda: PixelBatches(self.records, sampling, region="mask"),
            "boxes": lambda: PixelBatches(self.records, sampling, region="box"),
        }[supervision]()
        settings: dict[str, Any] = {
            "objective": OBJECTIVES[supervision],
            "iterations": iterations,
            "seed": seed,
            "precision": torch.float32,
            "num_workers": 0,
            "checkpoint": self.checkpoint,
            "fingerprint": "same",
            "log": self.logged.append,
        }
        settings |= changed
        self.history = optimise(self.model, self.batches, optimizer=self.optimizer, schedule=self.schedule, **settings)
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
        save_model(files[-1], model, architecture, model_provenance())
    first, again, other = (file.read_bytes() for file in files)
    assert first == again
    assert first != other


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("supervision", SUPERVISIONS)
def test_a_killed_and_resumed_training_equals_an_unbroken_one(
    training: Callable[[str], Training], supervision: str, optimizer: str
) -> None:
    settings = {"optimizer": optimizer, "supervision": supervision}
    unbroken, resumed = training("unbroken")(**settings), training("resumed")
    resumed.killed_at(KILLED_AT, **settings)
    resumed(**settings)
    assert resumed.logged[0]["iteration"] == 11
    assert_same_bits(resumed.state(), unbroken.state())


@pytest.mark.parametrize(("seconds", "resumed_from"), [(0, KILLED_AT - 1), (300, 10)])
def test_a_checkpoint_is_due_by_time_too(
    training: Callable[[str], Training], seconds: float, resumed_from: int
) -> None:
    resumed = training("resumed")
    resumed.killed_at(KILLED_AT, checkpoint_seconds=seconds)
    resumed()
    assert resumed.logged[0]["iteration"] == resumed_from + 1


@pytest.mark.parametrize("stopped_at", [1, 217, 219])
def test_a_request_to_stop_saves_the_iteration_and_resumes_to_the_same_bits(
    training: Callable[[str], Training], stopped_at: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 440 iterations every second is logged, so that losses may wait for their row."""
    unbroken, resumed = training("unbroken")(iterations=440), training("resumed")
    steps = []

    def objective(similarities: Tensor, batch: Batch) -> Tensor:
        steps.append(similarities)
        return OBJECTIVES["weak"](similarities, batch)

    with pytest.raises(Interrupted) as stopped:
        resumed(iterations=440, objective=objective, stop=lambda: "SIGTERM" if len(steps) >= stopped_at else None)
    assert stopped.value.code == 75
    assert len(steps) == stopped_at
    assert f"SIGTERM: iteration {stopped_at} is saved in {resumed.checkpoint}" in capsys.readouterr().err
    resumed(iterations=440)
    assert_same_bits(resumed.state(), unbroken.state())
    assert [row["iteration"] for row in resumed.logged] == [row["iteration"] for row in unbroken.history]


def test_a_checkpoint_leaves_out_what_does_not_learn_and_resumes_all_the_same(
    training: Callable[[str], Training],
) -> None:
    def frozen(model: TSEG) -> TSEG:
        model.image_encoder.requires_grad_(False)
        return model

    unbroken, resumed = training("unbroken"), training("resumed")
    for each in (unbroken, resumed):
        each.make_model = lambda seed, make=each.make_model: frozen(make(seed))
    resumed.killed_at(KILLED_AT)
    saved = torch.load(resumed.checkpoint, weights_only=True)["model"].keys()
    assert saved == {name for name, parameter in unbroken().model.named_parameters() if parameter.requires_grad}
    assert_same_bits(resumed().state(), unbroken.state())
    assert resumed.logged[0]["iteration"] == 11


def test_restarting_a_finished_training_does_nothing(training: Callable[[str], Training]) -> None:
    twice = training("twice")
    done = twice(iterations=20).state()
    twice.logged.clear()
    assert_same_bits(twice(iterations=20).state(), done)
    assert twice.logged == []


def test_a_checkpoint_of_other_settings_is_not_resumed(training: Callable[[str], Training]) -> None:
    unbroken, resumed = training("unbroken")(), training("resumed")
    resumed.killed_at(KILLED_AT, fingerprint="other")
    assert_same_bits(resumed().state(), unbroken.state())
    assert resumed.logged[0]["iteration"] == 1


def test_masks_are_never_read(training: Callable[[str], Training]) -> None:
    """Weak supervision gives the same model without masks and boxes."""
    with_masks, without = training("with"), training("without")
    without.records = without.records[["file_name", "image_id", "width", "height", "expression"]]
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
    s = run.make_model(0)(batch.images, batch.expressions).detach().double().numpy()
    m = np.exp(s) / (1 + np.exp(s))
    size = m.mean(axis=1)
    z = (m * s).sum(axis=1) / (m.sum(axis=1) + 1.0) + (1 - size) ** 5 * np.log(0.01 + size)
    zbar = np.array([[expression in positives for expression in batch.expressions] for positives in batch.positives])
    loss = np.where(zbar, np.log(1 + np.exp(-z)), np.log(1 + np.exp(z))).mean()
    assert run.history[0]["loss"] == pytest.approx(loss, rel=1e-5)
    with_chance = training("with chance")(iterations=1)
    assert with_chance.history[0]["loss"] != pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("pooling", list(POOLINGS))
def test_a_few_iterations_lower_the_weak_loss_on_four_images(training: Callable[[str], Training], pooling: str) -> None:
    run = training("run")(optimizer="AdamW", rate=3e-3, objective=weak(pooling), iterations=48, seed=1)
    losses = [row["loss"] for row in run.history]
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])


@pytest.mark.parametrize("supervision", SUPERVISIONS[1:])
def test_a_few_iterations_lower_the_loss_of_pixels_on_four_images(
    training: Callable[[str], Training], supervision: str
) -> None:
    run = training("run")(optimizer="AdamW", rate=3e-3, supervision=supervision, iterations=48)
    losses = [row["loss"] for row in run.history]
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def test_soft_targets_change_the_model(training: Callable[[str], Training], records: pd.DataFrame) -> None:
    hard, soft = training("hard")(), training("soft")
    soft(objective=weak("mpa", TfidfTargets(list(records["expression"]))))
    assert soft.history[0]["loss"] != hard.history[0]["loss"]
    assert all(math.isfinite(row["loss"]) for row in soft.history)


def test_history_has_each_iteration_once_with_its_learning_rate(training: Callable[[str], Training]) -> None:
    run = training("run")()
    assert run.history == run.logged
    assert [row["iteration"] for row in run.history] == list(range(1, ITERATIONS + 1))
    expected = [1e-2 * (1 - n / ITERATIONS) ** 0.9 for n in range(ITERATIONS)]
    assert [row["learning_rate"] for row in run.history] == pytest.approx(expected)
    assert run.history[0]["tau"] == pytest.approx(10.0)
    assert len({row["tau"] for row in run.history} | {run.model.tau.item()}) == ITERATIONS + 1


@pytest.mark.parametrize("supervision", SUPERVISIONS)
def test_history_has_the_coverage_of_the_iterations_own_similarities(
    training: Callable[[str], Training], supervision: str
) -> None:
    seen = []

    def objective(similarities: Tensor, batch: Batch) -> Tensor:
        seen.append(objectives.coverage(similarities.detach(), batch))
        return OBJECTIVES[supervision](similarities, batch)

    run = training("run")(supervision=supervision, objective=objective)
    assert [{name: row[name] for name in ("foreground", "empty")} for row in run.history] == seen
    assert len({row["foreground"] for row in seen}) > 10


def empty_masks(similarities: Tensor, batch: Batch) -> Tensor:
    """Drives every similarity below 0."""
    return similarities.mean()


def test_masks_that_stay_empty_are_warned_of_once(training: Callable[[str], Training]) -> None:
    with pytest.warns(UserWarning) as found:
        history = training("run")(
            objective=empty_masks, optimizer="AdamW", rate=1e-2, iterations=NUM_EMPTY + 20
        ).history
    assert history[-1]["empty"] == 1
    (warning,) = found
    first = next(row["iteration"] for row in history if row["empty"] >= 0.95)
    complaint = f"iteration {first + NUM_EMPTY - 1}: nearly all masks stay empty"
    assert str(warning.message).startswith(complaint)
    assert "lower learning_rate" in str(warning.message)


def test_masks_that_are_empty_for_a_while_are_not_warned_of(training: Callable[[str], Training]) -> None:
    """On shapes, those of MPA are for up to 33 rows."""
    calls = []

    def objective(similarities: Tensor, batch: Batch) -> Tensor:
        calls.append(similarities)
        return similarities.mean() * (1 if len(calls) < NUM_EMPTY // 2 else -1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = training("run")(objective=objective, optimizer="AdamW", rate=1e-2, iterations=NUM_EMPTY + 20).history
    assert sum(row["empty"] >= 0.95 for row in history) >= NUM_EMPTY // 2
    assert history[-1]["empty"] == 0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_names_the_iteration(
    training: Callable[[str], Training], loss: float
) -> None:
    run, calls = training("run"), []

    def objective(similarities: Tensor, batch: Batch) -> Tensor:
        calls.append(similarities)
        return OBJECTIVES["weak"](similarities, batch) * (loss if len(calls) == 31 else 1.0)

    with pytest.raises(ValueError, match=r"iteration 31, .*: the loss is (nan|inf) "):
        run(objective=objective, iterations=440)
    assert [row["iteration"] for row in run.logged] == list(range(2, 31, 2))
    saved = torch.load(run.checkpoint, weights_only=True)["model"]
    assert all(weight.isfinite().all() for weight in saved.values())


class Reads(TorchDispatchMode):
    """Counts how often the value of a tensor is read, for which a GPU would have to finish its work."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("supervision", SUPERVISIONS)
def test_a_training_step_reads_no_value_but_the_padding_of_its_expressions(
    training: Callable[[str], Training], supervision: str
) -> None:
    """transformers reads whether its attention mask is all ones."""
    run = training("run")(supervision=supervision, iterations=1)
    batch = run.batches[1]
    with Reads() as reads:
        training_step(run.model, batch, OBJECTIVES[supervision], run.optimizer, torch.float32)
    with Reads() as of_padding:
        run.model.embed_expressions(batch.expressions)
    assert reads.number == of_padding.number <= 1


def test_compiled_encoders_compute_the_same_and_leave_the_weights_names(training: Callable[[str], Training]) -> None:
    run = training("run")(iterations=1)
    batch, names = run.batches[0], list(run.model.state_dict())
    expected = run.model.eval()(batch.images, batch.expressions)
    run.model.compile_encoders()
    found = run.model(batch.images, batch.expressions)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert list(run.model.state_dict()) == names


@pytest.mark.parametrize("supervision", SUPERVISIONS)
def test_bfloat16_trains_float32_weights_by_a_float32_loss(
    training: Callable[[str], Training], supervision: str
) -> None:
    dtypes = set()

    def objective(similarities: Tensor, batch: Batch) -> Tensor:
        loss = OBJECTIVES[supervision](similarities, batch)
        dtypes.update({similarities.dtype, loss.dtype})
        return loss

    reduced = training("bfloat16")(precision=torch.bfloat16, supervision=supervision, objective=objective)
    full = training("float32")(supervision=supervision)
    assert dtypes == {weight.dtype for weight in reduced.model.parameters()} == {torch.float32}
    assert reduced.history[0]["loss"] == pytest.approx(full.history[0]["loss"], rel=0.05)
    assert reduced.history[0]["loss"] != full.history[0]["loss"]
    assert all(math.isfinite(row["loss"]) for row in reduced.history)


class Alike(Ranks):
    """One of two ranks that see the same batch, and need not tell each other anything."""

    def any(self, signal: str | None, device: torch.device) -> str | None:
        return signal

    def similarities(self, model: TSEG, images: Any, expressions: Any, num_images: int) -> torch.Tensor:
        return model(images, expressions)

    def sum_gradients(self, model: Any) -> None: ...


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_saves_nothing_reads_its_losses_as_seldom_as_the_first(
    training: Callable[[str], Training], monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """A clock that ticks at every look: a checkpoint is due every fifth iteration."""
    numbers: list[int] = []
    read, clock = loop._finite_losses, itertools.count()
    monkeypatch.setattr(loop, "_finite_losses", lambda steps: numbers.append(len(steps)) or read(steps))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    training("ranks")(ranks=Alike(rank, 2), checkpoint_seconds=5, iterations=400)
    assert numbers.count(2) > 100 and max(numbers) == 2 and len(numbers) < 300
