"""Progress bars that suit both a terminal and a log file."""

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], what: str, unit: str, total: int | None = None, **options: Any) -> "tqdm[T]":
    """Iterate over `items` under a bar on stderr that shows `what`, the rate in `unit` per second and the time left.

    The bar is redrawn five times a second on a terminal and four times a minute in a log file.
    """
    seconds = 0.2 if sys.stderr.isatty() else 15
    return tqdm(items, what, total, unit=f" {unit}", mininterval=seconds, maxinterval=seconds, **options)
