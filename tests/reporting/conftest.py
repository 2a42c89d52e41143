"""Fixtures: images with rectangles, and the arguments of functions that draw."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tseg.records import encode_mask

HEIGHT, WIDTH = 24, 40


class Shown(NamedTuple):
    """The arguments of `write_panels`."""

    rows: list[Any]
    columns: list[str]
    settings: dict[str, Any]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Shown]:
    """The contents of the figures that a test draws."""
    figures: list[Shown] = []

    def keep(rows: list[Any], columns: list[str], output: Path, **settings: Any) -> None:
        figures.append(Shown(rows, columns, settings))

    for module in ("masks", "classes", "assignment"):
        monkeypatch.setattr(f"tseg.reporting.figures.{module}.write_panels", keep)
    return figures


@pytest.fixture
def rectangles(tmp_path: Path) -> pd.DataFrame:
    """Four images of two records; each mask is a rectangle. Every other record ignores the pixels outside its mask."""
    rows = []
    for number in range(8):
        path = tmp_path / f"{number // 2}.png"
        noise = np.random.default_rng(number // 2).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[4:16, number : number + 20] = True
        ignore = encode_mask(~mask) if number % 2 else None
        expression = f"{number}: a note of $5 or $10 " * (1 + 8 * (number % 2))
        rows.append((f"r{number}", f"i{number // 2}", str(path), HEIGHT, WIDTH, expression, encode_mask(mask), ignore))
    columns = ["record_id", "image_id", "file_name", "height", "width", "expression", "mask", "ignore"]
    return pd.DataFrame(rows, columns=columns)
