"""A device is chosen by name, and torch then computes the same bytes every time."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tseg.model import device
from tseg.model.device import claim_gpus, compute_in, select_device

UUIDS = ["GPU-a", "GPU-b", "GPU-c"]
HOLDER = """
import sys
from pathlib import Path
from tseg.locks import hold_free
print(hold_free([Path(path) for path in sys.argv[1:]], 1), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def restore_torch():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_the_processor_computes_with_the_threads_asked_for_and_deterministically():
    assert select_device("cpu", 2) == torch.device("cpu")
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()


def test_auto_takes_a_gpu_if_there_is_one():
    assert select_device("auto", 1).type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_the_machine_lacks_is_named(name: str):
    with pytest.raises(ValueError, match=rf"device {name}: .*; choose auto or cpu"):
        select_device(name, 1)


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A machine with three GPUs; their lock files."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(UUIDS))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=UUIDS[index]))
    for name in ("CUDA_VISIBLE_DEVICES", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return [tmp_path / f"tseg-gpus-{os.getuid()}" / f"{uuid}.lock" for uuid in UUIDS]


def test_each_process_takes_a_gpu_that_no_other_has(gpus: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", HOLDER, *map(str, gpus)]
    others: list[subprocess.Popen[str]] = []
    try:
        for index in range(2):
            others.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            stdout = others[index].stdout
            assert stdout and stdout.readline() == f"[{index}]\n"
        assert device._own_gpu() == "cuda:2"
        assert device._own_gpu() == "cuda:0"  # all are taken: the first
        others[1].kill()
        others[1].wait()
        assert device._own_gpu() == "cuda:1"
        monkeypatch.setenv("LOCAL_RANK", "2")
        assert device._own_gpu() == "cuda:2"  # under torchrun, that of the rank
    finally:
        for process in others:
            process.kill()
            process.communicate()


def test_several_gpus_are_shown_to_the_processes_that_share_them(
    gpus: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    claim_gpus(2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,6"
    with pytest.raises(ValueError, match="--gpus 4: this machine shows 3 GPUs; choose at most as many"):
        claim_gpus(4)


def test_products_are_exact_unless_tf32_is_asked_for_and_every_flag_of_torch_can_be_read() -> None:
    """torch refuses to answer for a mixture of its older and newer flags; its compiler asks for the older ones."""
    for precision, is_coarse, dtype in (
        ("tf32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
        ("float32", False, torch.float32),
    ):
        assert compute_in(precision) == dtype
        assert torch.get_float32_matmul_precision() == ("high" if is_coarse else "highest")
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == is_coarse
        with torch.backends.cudnn.flags(enabled=True):
            pass


def test_new_tensors_are_not_filled() -> None:
    select_device("cpu", 1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        torch.empty(4)
    assert "aten::fill_" not in {event.key for event in profile.key_averages()}
