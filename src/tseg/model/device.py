"""The device to compute on."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from tseg.locks import hold_free


def select_device(name: str, num_threads: int) -> torch.device:
    """Set torch to deterministic algorithms, exact float32 products and `num_threads`; return the device `name`.

    `auto` is a GPU if there is one: the rank's own under torchrun, else one that no other process of this user has
    chosen so, or the first if they all are taken. Raises ValueError if the machine has no such device.
    """
    # cuBLAS reads this when CUDA starts. Without it, the order of its sums varies between runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    details: Any = torch.utils.deterministic  # the types lack what it holds
    details.fill_uninitialized_memory = False  # it would cost a kernel for each new tensor
    compute_in("float32")
    if name == "auto":
        name = _own_gpu() if torch.cuda.is_available() else "cpu"
    device = open_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def open_device(name: str) -> torch.device:
    """The device `name`; `auto` is a GPU if there is one. Raises ValueError if the machine has no such device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(": ")[0][:80]
        raise ValueError(f"device {name}: {reason}; choose auto or cpu") from None


def compute_in(precision: str) -> torch.dtype:
    """Let all float32 products be exact, or with "tf32" those of a GPU's tensor cores; return what encoders compute in.

    That is bfloat16 for "bfloat16", else float32.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def claim_gpus(number: int) -> None:
    """Show this process, and those that it starts, `number` GPUs that no other process of this user has chosen.

    Raises ValueError if the machine has fewer.
    """
    available = torch.cuda.device_count()
    if available < number:
        raise ValueError(f"--gpus {number}: this machine shows {available} GPUs; choose at most as many")
    chosen = _free_gpus(number)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[index] if visible != [""] else str(index) for index in chosen)


def _own_gpu() -> str:
    if "LOCAL_RANK" in os.environ:
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return f"cuda:{_free_gpus(1)[0]}"


def _free_gpus(number: int) -> list[int]:
    """The indices of `number` GPUs, free ones first; they are held until this process ends."""
    folder = Path(tempfile.gettempdir()) / f"tseg-gpus-{os.getuid()}"
    devices = range(torch.cuda.device_count())
    # A scheduler may show each process other GPUs, under the same indices.
    held = hold_free([folder / f"{torch.cuda.get_device_properties(index).uuid}.lock" for index in devices], number)
    return [*held, *(index for index in devices if index not in held)][:number]
