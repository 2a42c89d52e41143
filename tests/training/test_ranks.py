"""Several ranks train as one process does, up to rounding, and end together."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tseg.training.ranks import Ranks

Train = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def train(records_path: Path, tmp_path: Path, architecture: dict[str, Any]) -> Train:
    """A function that starts `tseg train` on the CPU, in some ranks, with some settings."""

    # Ranks draw other units to drop than one process.
    architecture["image_encoder"]["drop_path"] = architecture["text_encoder"]["dropout"] = 0.0

    def start(folder: str, ranks: int, supervision: str, **settings: Any) -> subprocess.Popen[str]:
        optimizer = {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0, "warmup": 0, "poly_power": 0.9}
        training = {"iterations": 12, "batch_size": 5, "expressions_per_image": 1, "optimizer": optimizer}
        training |= {"resolution": 32, "scale": [0.5, 2.0], "flip": True, "flip_words": "swap", "precision": "float32"}
        training |= {"targets": "identity" if supervision == "weak" else None} | settings
        run = {"run": f"voc-{supervision}", "dataset": "voc", "supervision": supervision, "records": str(records_path)}
        run |= {"model": architecture, "training": training, "excluded_records": [], "pretraining": None}
        run |= {"pooling": {"name": "mpa", "options": {}} if supervision == "weak" else None}
        config = tmp_path / f"{folder}.yaml"
        config.write_text(yaml.safe_dump(run))
        command = [sys.executable, "-m", "tseg", "train", "--config", str(config), "--output", str(tmp_path / folder)]
        command += ["--device", "cpu", "--gpus", str(ranks), "--checkpoint-minutes", "0"]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    return start


def assert_close(folder: Path, other: Path) -> None:
    histories = [pd.read_csv(each / "history.csv") for each in (folder, other)]
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-4)
    weights = [load_file(each / "model.safetensors") for each in (folder, other)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-3, atol=1e-5)
    assert (folder / "images.csv").read_bytes() == (other / "images.csv").read_bytes()


@pytest.mark.parametrize(("supervision", "ranks"), [("weak", 5), ("full", 2), ("boxes", 3)])
def test_ranks_with_unequal_shares_train_as_one_process(
    train: Train, tmp_path: Path, supervision: str, ranks: int
) -> None:
    """Of 5 images and about as many expressions; some of five ranks have no expression of their own."""
    for folder, number in (("one", 1), ("shared", ranks)):
        with train(folder, number, supervision) as process:
            _, printed = process.communicate()
            assert process.returncode == 0, printed
    assert_close(tmp_path / "shared", tmp_path / "one")


def test_ranks_that_are_asked_to_stop_save_once_and_go_on(train: Train, tmp_path: Path) -> None:
    long = {"iterations": 150}
    with train("stopped", 2, "weak", **long) as process:
        wait_for_checkpoint(process, tmp_path / "stopped")
        process.send_signal(signal.SIGTERM)
        _, printed = process.communicate()
        assert process.returncode == 75, printed
    assert printed.count("is saved in") == 1
    for folder, ranks in (("stopped", 1), ("unbroken", 1)):  # with another number of ranks, too
        with train(folder, ranks, "weak", **long) as process:
            assert process.wait() == 0
    history = pd.read_csv(tmp_path / "stopped/history.csv")
    np.testing.assert_allclose(history["loss"], pd.read_csv(tmp_path / "unbroken/history.csv")["loss"], rtol=0.02)
    assert len(history) == 150


def test_ranks_end_with_the_process_that_started_them(train: Train, tmp_path: Path) -> None:
    with train("killed", 2, "weak", iterations=100_000) as process:
        wait_for_checkpoint(process, tmp_path / "killed")
        ranks = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, alive = psutil.wait_procs(ranks, timeout=30)
        assert not alive


def test_more_ranks_than_images_are_refused(train: Train) -> None:
    with train("few", 2, "weak", batch_size=1) as process:
        _, printed = process.communicate()
    assert process.returncode == 1
    assert "training.weak.batch_size: 1 images are too few for 2 GPUs" in printed
    assert "Traceback" not in printed


def test_ranks_do_not_learn_batch_norms(train: Train, architecture: dict[str, Any]) -> None:
    architecture["image_encoder"] |= {"name": "wide_resnet38", "options": {"width": 2}}
    with train("norms", 2, "weak") as process:
        _, printed = process.communicate()
    assert process.returncode == 1
    assert "voc-weak learns batch norms, which need the whole batch on one GPU; train it on one" in printed


def test_a_device_that_is_one_gpu_is_not_shared(tmp_path: Path) -> None:
    command = ["train", "--config", "none", "--output", str(tmp_path), "--gpus", "2", "--device", "cuda:1"]
    done = subprocess.run([sys.executable, "-m", "tseg", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "tseg: --device cuda:1: --gpus 2 needs auto, or cpu\n"


def wait_for_checkpoint(process: "subprocess.Popen[str]", folder: Path) -> None:
    while not (folder / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_shares_have_every_item_once(number: int) -> None:
    for length in range(20):
        shares = [range(length)[Ranks(rank, number).share(length)] for rank in range(number)]
        assert [item for share in shares for item in share] == list(range(length))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
