"""Through a real SLURM, disturbed in every way that a cluster has, the workflow ends with the bytes of one machine.

The controller forgets a finished job after two seconds, and there is no accounting.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from ..workflow.small import ENVIRONMENT, ROOT, results_of, write_project
from .cluster import cluster, missing, run, wait_for

pytestmark = [pytest.mark.workflow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]
TARGET = "results/table3.csv"
ITERATIONS = 1000
"""Of each training, half a minute: enough to be met while it runs."""


def snakemake(folder: Path, environment: dict[str, str], target: str, *options: str) -> subprocess.Popen[bytes]:
    """Start the workflow in `folder`."""
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml", *options]
    with (folder / "snakemake.log").open("ab") as log:
        return subprocess.Popen([*command, "--", target], cwd=folder, env=environment, stdout=log, stderr=log)


class Cluster:
    """A running cluster, and the workflow in a folder on it."""

    def __init__(self, environment: dict[str, str], folder: Path, iterations: int = ITERATIONS):
        self.environment = environment | {"PATH": f"{ENVIRONMENT['PATH']}:/usr/sbin"}
        self.folder = folder
        folder.mkdir()
        write_project(folder, iterations)
        (folder / "profile").mkdir()
        profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
        quick = {"latency-wait": 5, "slurm-init-seconds-before-status-checks": 2}
        (folder / "profile/config.yaml").write_text(yaml.safe_dump(profile | quick))

    def start(self, target: str = TARGET) -> subprocess.Popen[bytes]:
        return snakemake(self.folder, self.environment, target, "--workflow-profile", "profile")

    def run(self, *command: str) -> str:
        return run(self.environment, *command)

    def trainings(self) -> list[str]:
        """The jobs of trainings that iterate now."""
        logs = (self.folder / "results/logs/train").glob("*.log")
        iterating = [log.stem.replace("-seed", "_") for log in logs if "iterations/s" in log.read_text()]
        listed = self.run("squeue", "--noheader", "--states=RUNNING", "--format=%i %k").splitlines()
        return [
            line.split()[0]
            for line in listed
            if any(line.endswith(f" rule_train_wildcards_{name}") for name in iterating)
        ]

    def training(self) -> str:
        """Wait until a training iterates; return its job."""
        wait_for(self.trainings, f"training: {self.log()}", 240)
        return self.trainings()[0]

    def log(self) -> str:
        return (self.folder / "snakemake.log").read_text()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Cluster]]:
    """A function that puts a new project onto a running cluster."""
    folder = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as started:
        try:
            environment = started.enter_context(cluster(folder / "slurm", min_job_age=2))
        except TimeoutError as error:
            pytest.skip(f"SLURM is installed and does not start here: {error}")
        yield lambda *given: Cluster(environment, folder / f"project{len(list(folder.iterdir()))}", *given)
    # What a node that really failed would not leave behind.
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            process.kill()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results on one machine without SLURM."""
    folder = tmp_path_factory.mktemp("local") / "project"
    folder.mkdir()
    write_project(folder, ITERATIONS)
    shutil.copytree(ROOT / "profiles/default", folder / "profile")
    done = snakemake(folder, ENVIRONMENT, TARGET, "--workflow-profile", "profile", "--cores", "2")
    assert done.wait() == 0, (folder / "snakemake.log").read_text()
    return results_of(folder)


def assert_same(project: Cluster, expected: dict[str, bytes]) -> None:
    found = results_of(project.folder)
    assert found.keys() == expected.keys(), project.log()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_only_what_needs_a_node_goes_to_one(slurm: Callable[..., Cluster], expected: dict[str, bytes]) -> None:
    project = slurm()
    assert project.start().wait() == 0, project.log()
    assert_same(project, expected)
    submitted = set(re.findall(r"rule (\w+):[^r]*?\n(?:.*\n){0,20}?Job \d+ has been submitted", project.log()))
    local = set(re.findall(r"^localrule (\w+):", project.log(), re.MULTILINE))
    assert {"fetch", "check", "configure", "track", "tabulate"} <= local
    assert not submitted & local


def test_a_cancelled_training_a_failed_node_and_a_killed_driver(
    slurm: Callable[..., Cluster], expected: dict[str, bytes]
) -> None:
    project = slurm()
    driver = project.start()
    project.run("scancel", project.training())

    wait_for(
        lambda: "is saved in" in project.run("grep", "-rh", "SIGTERM", str(project.folder / "results/logs")), "save"
    )
    project.training()
    node = project.run("sinfo", "--noheader", "--format=%N").strip()
    project.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    time.sleep(5)
    project.run("scontrol", "update", f"NodeName={node}", "State=RESUME")

    orphan = project.training()
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert project.start().wait() == 0, project.log()
    assert re.search(rf"Jobs .*\b{orphan}\b.* of a snakemake that was killed are cancelled", project.log())
    assert_same(project, expected)


def test_a_training_that_hits_its_time_limit_goes_on_with_more_time(slurm: Callable[..., Cluster]) -> None:
    project = slurm(9000)
    config = yaml.safe_load((project.folder / "config.yaml").read_text())
    config["resources"]["train"]["runtime"] = 1
    (project.folder / "config.yaml").write_text(yaml.safe_dump(config))
    run_dir = "results/runs/refcoco+-gap"
    assert project.start(f"{run_dir}/seed0/model.safetensors").wait() == 0, project.log()
    assert "runtime=2" in project.log()  # its second attempt
    command = ["tseg", "train", "--config", f"{run_dir}/config.yaml", "--output", "unbroken"]
    subprocess.run(command, cwd=project.folder, env=ENVIRONMENT, check=True)
    trained, unbroken = project.folder / run_dir / "seed0", project.folder / "unbroken"
    for name in ("model.safetensors", "history.csv", "images.csv"):
        assert (trained / name).read_bytes() == (unbroken / name).read_bytes()
