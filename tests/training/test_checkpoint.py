import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tseg.training.checkpoint import Progress, load_checkpoint, remove_checkpoints, save_checkpoint
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
    saved, progress = parts(0), Progress(5, [{"iteration": 4, "loss": 0.25}], [0.5])
    step(saved, 5)
    save_checkpoint(tmp_path / "last.ckpt", "same", saved, progress)
    loaded = parts(1)
    assert load_checkpoint(tmp_path / "last.ckpt", "same", loaded) == progress
    assert loaded["schedule"].get_last_lr() == saved["schedule"].get_last_lr()
    for ours, theirs in zip(step(loaded, 7), step(saved, 7), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("fingerprint", ["other", None])
def test_a_checkpoint_of_other_settings_or_a_missing_one_is_not_loaded(tmp_path: Path, fingerprint: str | None) -> None:
    if fingerprint:
        save_checkpoint(tmp_path / "last.ckpt", fingerprint, parts(0), Progress(5, [{"iteration": 5}], []))
    assert_starts_anew(tmp_path / "last.ckpt")


def assert_starts_anew(path: Path) -> None:
    """Loading changes no part and reports no progress."""
    fresh = parts(1)
    before = step(parts(1), 3)
    assert load_checkpoint(path, "same", fresh) == Progress(0, [], [])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(step(fresh, 3), before, strict=True))


def test_a_failed_checkpoint_keeps_the_previous_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.ckpt", "same", parts(0), Progress(5, [], []))
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        save_checkpoint(tmp_path / "last.ckpt", "same", parts(0), Progress(6, [lambda: "cannot be pickled"], []))  # type: ignore[list-item]
    assert load_checkpoint(tmp_path / "last.ckpt", "same", parts(1)).iteration == 5
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def damaged_versions(content: bytes, damage: str, folder: Path) -> list[bytes]:
    match damage:
        case "cut":
            return [content[:length] for length in (1, 3, 100, len(content) // 2, len(content) - 1)]
        case "empty":
            return [b""]
        case "overwritten":
            inverted = bytes(255 - byte for byte in content)
            return [
                content[:start] + inverted[start : start + 40] + content[start + 40 :]
                for start in range(0, len(content) - 40, 40)
            ]
        case _:
            torch.save([1, 2], folder / "list.ckpt")
            return [b"no checkpoint at all", (folder / "list.ckpt").read_bytes()]


@pytest.mark.parametrize("damage", ["cut", "empty", "overwritten", "another's"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path: Path, damage: str) -> None:
    path, progress = tmp_path / "last.ckpt", [Progress(n, [{"iteration": n, "loss": 0.25}], [0.5]) for n in (5, 6)]
    for each in progress:
        save_checkpoint(path, "same", parts(each.iteration), each)
    content = path.read_bytes()
    num_refused, versions = 0, damaged_versions(content, damage, tmp_path)
    for broken in versions:
        path.write_bytes(broken)
        loaded = parts(1)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            resumed = load_checkpoint(path, "same", loaded)
        # Some bytes are padding. No damage goes unseen: what is loaded is one of the two states.
        num_refused += resumed == progress[0]
        assert resumed in progress
        expected = step(parts(resumed.iteration), 1)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(step(loaded, 1), expected, strict=True))
        if resumed == progress[0]:
            assert "last.ckpt is damaged" in str(found[0].message)
            assert "the one before is taken" in str(found[0].message)
    assert num_refused == len(versions) if damage != "overwritten" else num_refused > len(versions) / 2


def test_with_both_checkpoints_damaged_training_starts_anew_with_a_warning(tmp_path: Path) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"previous\.ckpt is damaged \(BadZipFile\); training starts anew"):
        assert_starts_anew(tmp_path / "last.ckpt")


def test_a_checkpoint_killed_between_its_two_renames_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.ckpt", "same", parts(0), Progress(5, [], []))
    (tmp_path / "last.ckpt").rename(tmp_path / "previous.ckpt")
    assert load_checkpoint(tmp_path / "last.ckpt", "same", parts(1)).iteration == 5


def test_no_checkpoint_is_left_after_removal(tmp_path: Path) -> None:
    for iteration in range(3):
        save_checkpoint(tmp_path / "last.ckpt", "same", parts(0), Progress(iteration, [], []))
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}
    remove_checkpoints(tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())
