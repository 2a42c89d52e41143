from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tseg.training.checkpoint import load_checkpoint, save_checkpoint
from tseg.training.schedule import poly_schedule


def parts(seed: int) -> dict[str, nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler]:
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return {"model": model, "optimizer": optimizer, "schedule": poly_schedule(optimizer, 50, 0.9, warmup=3)}


def step(of: dict, times: int) -> list[Tensor]:
    """Perform training steps; return the resulting weights."""
    for number in range(times):
        of["optimizer"].zero_grad()
        of["model"](torch.full((4, 3), 1.0 + number)).square().sum().backward()
        of["optimizer"].step()
        of["schedule"].step()
    return [weight.detach().clone() for weight in of["model"].parameters()]


def test_training_continues_from_loaded_parts_as_from_the_saved_ones(tmp_path: Path) -> None:
    saved, history = parts(0), [{"iteration": 5, "loss": 0.25}]
    step(saved, 5)
    save_checkpoint(tmp_path / "last.ckpt", "same", saved, 5, history)
    loaded = parts(1)
    assert load_checkpoint(tmp_path / "last.ckpt", "same", loaded) == (5, history)
    assert loaded["schedule"].get_last_lr() == saved["schedule"].get_last_lr()
    for ours, theirs in zip(step(loaded, 7), step(saved, 7), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("fingerprint", ["other", None])
def test_a_checkpoint_of_other_settings_or_a_missing_one_is_not_loaded(tmp_path: Path, fingerprint: str | None) -> None:
    if fingerprint:
        save_checkpoint(tmp_path / "last.ckpt", fingerprint, parts(0), 5, [{"iteration": 5}])
    fresh = parts(1)
    before = step(parts(1), 3)
    assert load_checkpoint(tmp_path / "last.ckpt", "same", fresh) == (0, [])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(step(fresh, 3), before, strict=True))


def test_a_failed_checkpoint_keeps_the_previous_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.ckpt", "same", parts(0), 5, [])
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        save_checkpoint(tmp_path / "last.ckpt", "same", parts(0), 6, [lambda: "cannot be pickled"])
    assert load_checkpoint(tmp_path / "last.ckpt", "same", parts(1)) == (5, [])
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("damage", ["cut", "empty", "overwritten", "another's"])
def test_a_damaged_checkpoint_is_named_and_may_be_deleted(tmp_path: Path, damage: str) -> None:
    path, history = tmp_path / "last.ckpt", [{"iteration": 5, "loss": 0.25}]
    save_checkpoint(path, "same", parts(0), 5, history)
    content = path.read_bytes()
    match damage:
        case "cut":
            damaged = [content[:length] for length in (1, 3, 100, len(content) // 2, len(content) - 1)]
        case "empty":
            damaged = [b""]
        case "overwritten":
            zeros = bytes(40)
            damaged = [content[:start] + zeros + content[start + 40 :] for start in range(0, len(content) - 40, 40)]
        case _:
            torch.save([1, 2], path)
            damaged = [b"no checkpoint at all", path.read_bytes()]
    num_refused = 0
    for broken in damaged:
        path.write_bytes(broken)
        try:
            # Not every byte of the file matters.
            load_checkpoint(path, "same", parts(0))
        except ValueError as error:
            assert "last.ckpt is damaged" in str(error)
            assert "delete it" in str(error)
            num_refused += 1
    assert num_refused == len(damaged) if damage != "overwritten" else num_refused > len(damaged) / 2
