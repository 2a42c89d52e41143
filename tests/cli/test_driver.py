"""A sub-command ends with the snakemake that started it, and a training that is asked to stop saves its state."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tseg.cli import driver

SLEEPER = """
import os, signal, sys, time
from tseg.cli.driver import end_with_driver
signal.signal(signal.SIGTERM, lambda *_: (print("ended", flush=True), os._exit(0)))
end_with_driver()
print("started", flush=True)
time.sleep(20)
"""
DRIVER = f"""
import os, subprocess, sys, time
if sys.argv[1] == "declared":
    os.environ["{driver.DRIVER}"] = str(os.getpid())
subprocess.Popen([sys.executable, "-c", sys.argv[2]])
time.sleep(20)
"""


@pytest.mark.parametrize("declared", [True, False])
def test_a_command_ends_with_the_driver_that_declares_itself_even_if_that_is_killed(declared: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != driver.DRIVER}
    command = [sys.executable, "-c", DRIVER, "declared" if declared else "", SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        (child,) = psutil.Process(process.pid).children()
        process.kill()
        gone, _ = psutil.wait_procs([child], timeout=3)
        assert bool(gone) == declared
        if declared:
            assert process.stdout.readline() == "ended\n"
        else:
            child.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_training_that_is_asked_to_stop_resumes_to_the_same_bytes(
    records_path: Path, tmp_path: Path, architecture: dict[str, Any], number: signal.Signals
) -> None:
    optimizer = {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0, "warmup": 0, "poly_power": 0.9}
    training = {"iterations": 300, "batch_size": 2, "expressions_per_image": 2, "optimizer": optimizer}
    training |= {"resolution": 32, "scale": [1.0, 1.0], "flip": False, "flip_words": "keep", "precision": "float32"}
    run = {"run": "voc-mpa", "dataset": "voc", "supervision": "weak", "records": str(records_path)}
    run |= {"model": architecture, "training": training | {"targets": "identity"}, "excluded_records": []}
    run |= {"pooling": {"name": "mpa", "options": {}}, "pretraining": None}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(run))

    def train(folder: str) -> subprocess.Popen[str]:
        command = ["tseg", "train", "--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / folder)]
        command = [str(Path(sys.executable).parent / command[0]), *command[1:], "--checkpoint-minutes", "0"]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    with train("unbroken") as unbroken:
        assert unbroken.wait() == 0
    with train("stopped") as stopped:
        while not (tmp_path / "stopped/last.ckpt").exists():
            assert stopped.poll() is None
            time.sleep(0.01)
        stopped.send_signal(number)
        _, printed = stopped.communicate()
        assert stopped.returncode == 75
    assert f"{number.name}: iteration" in printed
    assert {path.name for path in (tmp_path / "stopped").iterdir()} == {"last.ckpt", "previous.ckpt"}
    with train("stopped") as resumed:
        assert resumed.wait() == 0
    for name in ("model.safetensors", "history.csv", "images.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    assert not list((tmp_path / "stopped").glob("*.ckpt"))
