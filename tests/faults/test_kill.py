"""`kill -9` of random processes at random times changes no byte of the results.

TSEG_KILLS sets how many processes die, TSEG_SEED which: `TSEG_KILLS=60 pytest -s tests/faults/test_kill.py`.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from ..workflow.small import ENVIRONMENT, ROOT, results_of, write_project

NUM_KILLS = int(os.environ.get("TSEG_KILLS", "6"))
SEED = int(os.environ.get("TSEG_SEED", "0"))
LONGEST = 25
"""Seconds before a kill, at most."""


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the workflow in `folder`, always by the same command."""
    command = ["snakemake", "--cores", "2", "--configfile", "config.yaml", "--workflow-profile", "profile"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--", "results/table3.csv", "results/supervision.csv"]
    with (folder / "snakemake.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log)


def prepared(folder: Path) -> Path:
    folder.mkdir()
    write_project(folder, 150)
    (folder / "profile").symlink_to(ROOT / "profiles/default")
    return folder


def kill_one(workflow: subprocess.Popen[bytes], chance: random.Random) -> str | None:
    """Kill -9 the workflow or one of its processes; return what it was, or None if the workflow has ended."""
    try:
        processes = [psutil.Process(workflow.pid), *psutil.Process(workflow.pid).children(recursive=True)]
        chosen = chance.choice(processes)
        words = chosen.cmdline()
        chosen.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return None
    names = [Path(word).name for word in words]
    return " ".join(names[names.index("tseg") : names.index("tseg") + 2]) if "tseg" in names else "snakemake"


@pytest.mark.workflow
def test_killed_workflows_end_with_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed = prepared(tmp_path / "undisturbed")
    assert start(undisturbed).wait() == 0, (undisturbed / "snakemake.log").read_text()
    expected = results_of(undisturbed)
    assert {"results/table3.csv", "results/supervision.csv"} <= set(expected)

    chance, killed, number = random.Random(SEED), Counter[str](), 0
    while killed.total() < NUM_KILLS:
        number += 1
        folder = prepared(tmp_path / f"killed{number}")
        while (workflow := start(folder)).poll() is None:
            if killed.total() < NUM_KILLS:
                time.sleep(chance.uniform(2, LONGEST))
                killed.update(filter(None, [kill_one(workflow, chance)]))
            if workflow.wait() == 0:
                break
        found = results_of(folder)
        assert found.keys() == expected.keys(), (folder / "snakemake.log").read_text()
        assert [name for name in expected if found[name] != expected[name]] == []
    print(f"{killed.total()} kills in {number} runs, {len(expected)} files each: {dict(killed)}")
