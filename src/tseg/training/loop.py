"""The training loop."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from tseg.model.tseg import TSEG
from tseg.progress import progress
from tseg.training.batches import Batch, load_batches
from tseg.training.checkpoint import load_checkpoint, save_checkpoint
from tseg.training.objectives import Objective

NUM_LOGGED = 200
"""How often a training reports."""
LOGGED_PER_CHECKPOINT = 10
"""How many reports apart it saves its state."""


def train(
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
) -> list[dict[str, float]]:
    """Train `model` in place to minimise the `objective` of its similarities S (B, N, L) and the batch.

    S is float32 whatever the `precision` of the encoders. Goes on from `checkpoint` where that has the same
    `fingerprint`. Returns about `NUM_LOGGED` rows, each also given to `log`: iteration (1 is the first), loss (mean
    since the row before), learning_rate and tau (of that iteration). Raises ValueError at the first loss that is not
    finite.
    """
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    start, history = load_checkpoint(checkpoint, fingerprint, parts)
    device = model.log_tau.device
    log_every = max(1, iterations // NUM_LOGGED)
    losses: list[float] = []
    model.train()
    loader = load_batches(batches, start, iterations, num_workers)
    bar = progress(loader, "train", "iterations", iterations, initial=start)
    for iteration, batch in enumerate(bar, start + 1):
        # Drop path and dropout draw from this generator: seeded per iteration, a resumed run draws the same.
        torch.manual_seed(seed * 1_000_003 + iteration)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            similarities = model(batch.images.to(device), batch.expressions)
        loss = objective(similarities, batch)
        learning_rate, tau = schedule.get_last_lr()[0], model.tau.item()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise ValueError(
                f"the loss is {losses[-1]} at iteration {iteration} (tau {tau:.3g}, similarities between "
                f"{similarities.min():.3g} and {similarities.max():.3g}, learning rate {learning_rate:.2g}); "
                "lower the learning_rate of its optimizer in the configuration or train in float32"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

        bar.set_postfix(loss=f"{losses[-1]:.4f}", rate=f"{learning_rate:.1e}", refresh=False)
        if iteration % log_every == 0 or iteration == iterations:
            row = {"iteration": iteration, "loss": fmean(losses), "learning_rate": learning_rate, "tau": tau}
            losses.clear()
            history.append(row)
            log(row)
            if len(history) % LOGGED_PER_CHECKPOINT == 0:
                save_checkpoint(checkpoint, fingerprint, parts, iteration, history)
    return history
