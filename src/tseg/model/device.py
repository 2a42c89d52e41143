"""The device to compute on."""

import os

import torch


def select_device(name: str, num_threads: int) -> torch.device:
    """Set torch to deterministic algorithms and `num_threads`; return the device `name` (auto: a GPU if there is one).

    Raises ValueError if the machine has no such device.
    """
    # cuBLAS reads this when CUDA starts. Without it, the order of its sums varies between runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name}: {str(error).splitlines()[0]}; choose auto or cpu") from None
