"""`last.ckpt`: where an interrupted training goes on."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from tseg.files import atomic_write

_DAMAGED = (UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)


def save_checkpoint(path: Path, fingerprint: str, parts: dict[str, Any], iteration: int, history: list) -> None:
    """Write the state of the `parts` (model, optimizer, scheduler) after `iteration` iterations."""
    state = {name: part.state_dict() for name, part in parts.items()}
    with atomic_write(path) as partial:
        torch.save({"fingerprint": fingerprint, "iteration": iteration, "history": history, **state}, partial)


def load_checkpoint(path: Path, fingerprint: str, parts: dict[str, Any]) -> tuple[int, list]:
    """Bring `parts` to the state in `path`; the iterations done and their history.

    Nothing is loaded, and (0, []) returned, where there is no checkpoint or, as `fingerprint` tells, it is of other
    settings. Raises ValueError where it is damaged.
    """
    if not path.exists():
        return 0, []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["fingerprint"] != fingerprint:
            return 0, []
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return state["iteration"], state["history"]
    except torch.OutOfMemoryError:
        raise
    # What is raised depends on which bytes are broken.
    except _DAMAGED as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}); delete it to train from the start") from error
