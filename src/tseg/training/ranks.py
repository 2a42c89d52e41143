"""A training on several GPUs of one machine: processes, called ranks, that share every batch.

Each rank runs the encoders on its share of the batch's images and expressions. Embedded expressions, similarities and
gradients are then summed over the ranks, so that each one has the loss of the whole batch and makes the step that a
single process would make, up to rounding. torchrun starts the ranks; without it, one rank has the whole batch.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd import Function
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from tseg.model.tseg import TSEG
from tseg.training.interruption import SIGNALS


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those that share a training."""

    rank: int = 0
    number: int = 1

    @property
    def iterations_per_message(self) -> int:
        """Iterations after which the ranks tell each other of signals, for which all wait."""
        return 1 if self.number == 1 else 10

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the files and logs the rows."""
        return self.rank == 0

    def share(self, length: int) -> slice:
        """The items, of `length`, that are this rank's: consecutive ones, of equal numbers in all ranks within one."""
        return slice(self.rank * length // self.number, (self.rank + 1) * length // self.number)

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.number > 1:
            dist.barrier()

    def any(self, signal: str | None, device: torch.device) -> str | None:
        """A signal that any rank has received, the same for all: they save and end in the same iteration."""
        if self.number == 1:
            return signal
        names = [each.name for each in SIGNALS]
        number = torch.tensor(names.index(signal) if signal else -1, device=device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return names[int(number)] if number >= 0 else None

    def similarities(self, model: TSEG, images: Tensor, expressions: list[str] | Tensor, num_images: int) -> Tensor:
        """S (B, N, L) of the whole batch, from this rank's share of the B images and all L expressions.

        Every rank computes the loss of S, so that each must backpropagate it divided by the number of ranks.
        """
        if self.number == 1:
            return model(images, expressions)
        own = self.share(len(expressions))
        # At least one: gradients of the same parameters in all ranks.
        embedded = model.embed_expressions(expressions[own] if own.start < own.stop else expressions[:1])
        texts = _whole(embedded[: own.stop - own.start], own, len(expressions))
        return _whole(model.compare(model.embed_patches(images), texts), self.share(num_images), num_images)

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up the gradients of all ranks."""
        if self.number > 1:
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            total = parameters_to_vector(gradients)
            dist.all_reduce(total)
            vector_to_parameters(total, gradients)


ALONE = Ranks()
"""A training in one process."""


def _whole(share: Tensor, rows: slice, length: int) -> Tensor:
    """The tensor (length, ...) of which each rank has `rows`."""
    padded = share.new_zeros(length, *share.shape[1:])
    padded[rows] = share
    return _Sum.apply(padded)


class _Sum(Function):
    """The sum over all ranks; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0].contiguous())


@contextmanager
def joined(device: torch.device) -> Generator[Ranks]:
    """Join the processes that torchrun started, to compute on `device`; yield the place of this one."""
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number == 1:
        yield ALONE
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield Ranks(dist.get_rank(), number)
    dist.destroy_process_group()  # after an error it would wait for the others, which torchrun ends
