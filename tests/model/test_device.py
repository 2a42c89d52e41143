"""A device is chosen by name, and torch then computes the same bytes every time."""

import pytest
import torch

from tseg.model.device import select_device


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
