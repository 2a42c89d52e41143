"""`last.ckpt`: the state from which an interrupted training resumes, and `previous.ckpt`, the one before it."""

import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tseg.files import atomic_write

_DAMAGED = (UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile)

History = list[dict[str, float]]
"""The logged rows of a training."""
Part = nn.Module | Optimizer | LRScheduler
"""A part of a training that has a state."""


class Progress(NamedTuple):
    """How far a training has come."""

    iteration: int
    """Iterations done."""
    history: History
    losses: list[float]
    """Losses since the last row of the history."""


def save_checkpoint(path: Path, fingerprint: str, parts: Mapping[str, Part], progress: Progress) -> None:
    """Write the state of the `parts` (model, optimizer, schedule), and keep the previous checkpoint beside it.

    Parameters that do not learn are left out: a resumed training has built them anew.
    """
    state = {name: _state(part) for name, part in parts.items()}
    with atomic_write(path) as partial:
        torch.save({"fingerprint": fingerprint, **progress._asdict(), **state}, partial)
        if path.exists():
            _keep(path)


def load_checkpoint(path: Path, fingerprint: str, parts: Mapping[str, Part]) -> Progress:
    """Restore `parts` from `path`, or from the previous checkpoint if it is missing or damaged, with a warning.

    Loads nothing and returns no progress if neither is left, or if the `fingerprint`, which identifies the settings,
    the data and the initial weights, differs.
    """
    for each in (path, _previous(path)):
        if not each.exists():
            continue
        try:
            state = _read(each)
            if state["fingerprint"] != fingerprint:
                break
            for name, part in parts.items():
                if state[name].keys() != _state(part).keys():
                    raise LookupError(f"{name} has other keys")
        except torch.OutOfMemoryError:
            raise
        # The type of the error depends on which bytes are damaged.
        except _DAMAGED as error:
            is_last = each == path and _previous(path).exists()
            otherwise = "the one before is taken" if is_last else "training starts anew"
            warnings.warn(f"{each} is damaged ({type(error).__name__}); {otherwise}", stacklevel=2)
            continue
        for name, part in parts.items():
            part.load_state_dict(part.state_dict() | state[name])
        return Progress(*(state[name] for name in Progress._fields))
    return Progress(0, [], [])


def remove_checkpoints(path: Path) -> None:
    """Remove `path` and the checkpoint before it."""
    for each in (path, _previous(path)):
        each.unlink(missing_ok=True)


def _keep(path: Path) -> None:
    """Make `path` the previous checkpoint too. It stays in place until the new one replaces it."""
    link = path.with_name(f".{path.name}.link")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        path.replace(_previous(path))
    else:
        link.replace(_previous(path))


def _previous(path: Path) -> Path:
    return path.with_stem("previous")


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Any damaged byte raises one of the errors `_DAMAGED`."""
    with zipfile.ZipFile(path) as archive:  # torch does not compare the checksums of its own archive
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} is damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def _state(part: Part) -> dict[str, Any]:
    """The state of a part; of a module, without the parameters that do not learn."""
    state = dict(part.state_dict())
    if isinstance(part, nn.Module):
        for name, parameter in part.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                del state[name]
    return state
