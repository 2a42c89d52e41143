"""`last.ckpt`: the state from which an interrupted training resumes."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tseg.files import atomic_write

_DAMAGED = (UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)

History = list[dict[str, float]]
"""The logged rows of a training."""
Part = nn.Module | Optimizer | LRScheduler
"""A part of a training that has a state."""


def save_checkpoint(path: Path, fingerprint: str, parts: Mapping[str, Part], iteration: int, history: History) -> None:
    """Write the state of the `parts` (model, optimizer, schedule) after `iteration` iterations.

    Parameters that do not learn are left out: a resumed training has built them anew.
    """
    state = {name: _state(part) for name, part in parts.items()}
    with atomic_write(path) as partial:
        torch.save({"fingerprint": fingerprint, "iteration": iteration, "history": history, **state}, partial)


def load_checkpoint(path: Path, fingerprint: str, parts: Mapping[str, Part]) -> tuple[int, History]:
    """Restore `parts` from `path`; return the number of iterations done and their history.

    Loads nothing and returns (0, []) if there is no checkpoint or its `fingerprint`, which identifies the settings and
    the initial weights, differs. Raises ValueError if it is damaged.
    """
    if not path.exists():
        return 0, []
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["fingerprint"] != fingerprint:
            return 0, []
        for name, part in parts.items():
            if state[name].keys() != _state(part).keys():
                raise LookupError(f"{name} has other keys")
            part.load_state_dict(part.state_dict() | state[name])
        return state["iteration"], state["history"]
    except torch.OutOfMemoryError:
        raise
    # The type of the error depends on which bytes are damaged.
    except _DAMAGED as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); delete it to train from the start") from error


def _state(part: Part) -> dict[str, Any]:
    """The state of a part; of a module, without the parameters that do not learn."""
    state = dict(part.state_dict())
    if isinstance(part, nn.Module):
        for name, parameter in part.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                del state[name]
    return state
