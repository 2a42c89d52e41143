"""`last.ckpt`: where an interrupted training goes on."""

from pathlib import Path
from typing import Any

import torch

from tseg.files import whole_file


def save_checkpoint(path: Path, fingerprint: str, parts: dict[str, Any], iteration: int, history: list) -> None:
    """Write the state of the `parts` (model, optimizer, scheduler) after `iteration` iterations."""
    state = {name: part.state_dict() for name, part in parts.items()}
    with whole_file(path) as partial:
        torch.save({"fingerprint": fingerprint, "iteration": iteration, "history": history, **state}, partial)


def load_checkpoint(path: Path, fingerprint: str, parts: dict[str, Any]) -> tuple[int, list]:
    """Bring `parts` to the state in `path`; the iterations done and their history.

    Nothing is loaded, and (0, []) returned, where there is no checkpoint or, as `fingerprint` tells, it is of other
    settings.
    """
    if not path.exists():
        return 0, []
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["fingerprint"] != fingerprint:
        return 0, []
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["iteration"], state["history"]
