"""Two ways to do the same work, timed alternately in one process: their ratio says more than either time."""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Stage(NamedTuple):
    """Some work of the workflow, and how others do it."""

    name: str
    unit: str
    work: int
    """Units that each function does."""
    plain: Callable[[], Any]
    ours: Callable[[], Any]
    at_least: float
    """The ratio that is aimed at."""
    limit: Callable[[], Any] | None = None
    """What cannot be left out, alone; it does `work` units too."""
    agreement: str = ""
    """How far the results of both agree."""


class Timing(NamedTuple):
    """A stage, measured."""

    stage: str
    unit: str
    per_second: float
    plain_per_second: float
    ratio: float
    """The median over the rounds of how often we do the work while the plain way does it once."""
    lowest_ratio: float
    highest_ratio: float
    at_least: float
    of_limit: float | None
    """Our speed in units of the limit's."""
    agreement: str


def measure(stage: Stage, rounds: int) -> Timing:
    """Time all ways once in each round, after one that does not count."""
    ways = [stage.plain, stage.ours, *([stage.limit] if stage.limit else [])]
    seconds: list[list[float]] = [[] for _ in ways]
    for round_number in range(rounds + 1):
        for way, of_way in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            way()
            if round_number:
                of_way.append(time.perf_counter() - start)
    plain, ours, *limit = seconds
    ratios = [one / other for one, other in zip(plain, ours, strict=True)]
    return Timing(
        stage.name,
        stage.unit,
        stage.work / statistics.median(ours),
        stage.work / statistics.median(plain),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        stage.at_least,
        statistics.median(limit[0]) / statistics.median(ours) if limit else None,
        stage.agreement,
    )


def machine() -> dict[str, str]:
    """What the timings depend on."""
    processor = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "").partition(": ")[2]
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "").split()
    units = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": f"{processor or platform.processor()}, {torch.get_num_threads()} threads, {' '.join(units)}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "pillow", "numpy", "pycocotools")),
        "revision": revision.stdout.strip(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # not Linux
        return []
