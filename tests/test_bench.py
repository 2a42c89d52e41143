"""The quickest benchmark runs. What it measures is for people to look at."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_stage_is_timed_against_the_plain_way_to_do_it() -> None:
    command = [sys.executable, "bench/run.py", "loading", "--rounds", "1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    header, _, row = run.stdout.splitlines()
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert float(cells["ratio (lowest to highest)"].split()[0]) > 0
    unknown = subprocess.run([*command[:2], "lodaing"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert unknown.returncode == 2 and "loading" in unknown.stderr
