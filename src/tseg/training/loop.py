"""The training loop."""

import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from tseg.model.tseg import TSEG
from tseg.progress import progress
from tseg.training.batches import Batch, load_batches
from tseg.training.checkpoint import History, Progress, load_checkpoint, save_checkpoint
from tseg.training.interruption import Interrupted, Requested
from tseg.training.objectives import Objective, coverage
from tseg.training.ranks import ALONE, Ranks

NUM_LOGGED = 200
"""Rows logged per training."""
LOGGED_PER_CHECKPOINT = 10
"""Rows logged per checkpoint."""
NUM_EMPTY = 50
"""Rows logged, a quarter of a training, that masks must stay empty for a warning; those of MPA fill again earlier."""
NEARLY_ALL = 0.95
"""Share of empty masks that is nearly all."""
EMPTY_MASKS = (
    "nearly all masks stay empty: hardly any patch has a similarity above 0 with its image's own expressions. With MPA "
    "and SPA, such a training has hardly any gradient left: try a lower learning_rate or a longer warmup; under weak "
    "supervision, also loss: mean or another pooling. GMP may only need more iterations"
)


def optimise(
    model: TSEG,
    batches: Dataset[Batch],
    objective: Objective,
    optimizer: Optimizer,
    schedule: LRScheduler,
    *,
    iterations: int,
    seed: int,
    precision: torch.dtype,
    num_workers: int,
    checkpoint: Path,
    fingerprint: str,
    log: Callable[[dict[str, float]], None],
    checkpoint_seconds: float = 300,
    stop: Requested = lambda: None,
    ranks: Ranks = ALONE,
) -> History:
    """Train `model` in place to minimise `objective`, a function of its similarities S (B, N, L) and the batch.

    The encoders run in `precision`; S is float32. Resumes from `checkpoint` if its `fingerprint` is the same; it is
    written every `checkpoint_seconds`, every `LOGGED_PER_CHECKPOINT` rows, and once `stop` returns the name of a signal
    (of several ranks, up to `iterations_per_message` iterations later): then raises Interrupted. Of several `ranks`,
    the first one writes it. Returns about `NUM_LOGGED` rows and passes each to `log`: iteration (from 1), loss (mean
    since the last row), learning_rate, tau, foreground and empty (`coverage`; all of this iteration). Warns once if
    nearly all masks stay empty. Raises ValueError, before the next row or checkpoint, for the first loss that is not
    finite.
    """
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    start, history, losses = load_checkpoint(checkpoint, fingerprint, parts)
    device = model.log_tau.device
    steps: list[_Step] = []
    """Those since the last row or checkpoint. Reading a loss earlier would wait for the step on a GPU."""
    log_every = max(1, iterations // NUM_LOGGED)
    saved = time.monotonic()
    warned = False
    model.train()
    loader = load_batches(batches, start, iterations, num_workers, pin_memory=device.type == "cuda")
    bar = progress(loader, "train", "iterations", iterations, initial=start, disable=not ranks.is_first)
    for iteration, batch in enumerate(bar, start + 1):
        # Drop path and dropout draw from this generator; a seed per iteration lets a resumed run draw the same numbers.
        torch.manual_seed((seed * 1_000_003 + iteration) * ranks.number + ranks.rank)
        learning_rate, tau = float(schedule.get_last_lr()[0]), model.tau.detach()
        loss, similarities = training_step(model, batch, objective, optimizer, precision, ranks)
        steps.append(_Step(iteration, learning_rate, tau, loss))
        schedule.step()

        due = time.monotonic() - saved >= checkpoint_seconds
        signal = ranks.any(stop(), device) if iteration % ranks.iterations_per_message == 0 else None
        is_row = iteration % log_every == 0 or iteration == iterations
        if is_row or due or signal:
            losses += _finite_losses(steps)
            steps.clear()
        if is_row:
            row = {"iteration": iteration, "loss": fmean(losses), "learning_rate": learning_rate, "tau": float(tau)}
            row |= coverage(similarities, batch)
            losses.clear()
            history.append(row)
            log(row)
            shown = {"loss": f"{row['loss']:.4f}", "rate": f"{learning_rate:.1e}"}
            shown |= {name: f"{row[name]:.0%}" for name in ("foreground", "empty")}
            bar.set_postfix(shown, refresh=False)
            if not warned and _stays_empty(history):
                warned = True
                warnings.warn(f"iteration {iteration}: {EMPTY_MASKS}", stacklevel=2)
            due |= len(history) % LOGGED_PER_CHECKPOINT == 0
        if due or signal:
            if ranks.is_first:
                save_checkpoint(checkpoint, fingerprint, parts, Progress(iteration, history, losses))
            saved = time.monotonic()
        if signal and ranks.is_first:
            saved_as = f"iteration {iteration} is saved in {checkpoint}"
            print(f"{signal}: {saved_as}; the same command goes on from there", file=sys.stderr)
        if signal:
            ranks.wait()  # torchrun gives those that are left 30 seconds
            raise Interrupted
    return history


class _Step(NamedTuple):
    """What is known of an iteration before its loss is read."""

    iteration: int
    learning_rate: float
    tau: Tensor
    loss: Tensor


def _finite_losses(steps: Sequence[_Step]) -> list[float]:
    """The losses of the steps. Raises ValueError for the first one that is not finite."""
    losses: list[float] = torch.stack([step.loss for step in steps]).tolist()
    for step, loss in zip(steps, losses, strict=True):
        if not math.isfinite(loss):
            raise ValueError(
                f"iteration {step.iteration}, learning rate {step.learning_rate:.2g}: the loss is {loss} (tau "
                f"{float(step.tau):.3g}); lower the optimizer's learning_rate or train in float32"
            )
    return losses


def _stays_empty(history: History) -> bool:
    """Whether nearly all masks are empty in the latest rows."""
    latest = history[-NUM_EMPTY:]
    return len(latest) == NUM_EMPTY and all(row["empty"] >= NEARLY_ALL for row in latest)


def training_step(
    model: TSEG,
    batch: Batch,
    objective: Objective,
    optimizer: Optimizer,
    precision: torch.dtype,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor]:
    """Update the weights by one batch, with the encoders in `precision`; return its loss, a scalar, and S (B, N, L).

    Both are on the model's device, for which nothing here waits.
    """
    device = model.log_tau.device
    batch = batch.to(device)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        texts = batch.expressions if batch.texts is None else batch.texts
        similarities = ranks.similarities(model, batch.images, texts, len(batch.positives))
    loss = objective(similarities, batch)
    optimizer.zero_grad()
    (loss / ranks.number).backward()
    ranks.sum_gradients(model)
    optimizer.step()
    return loss.detach(), similarities.detach()
