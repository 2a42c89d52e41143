"""Fixtures: a tiny model and a tiny table of records. Torch is imported only if a test needs the model."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tseg.records import encode_mask, read_records

from .provenances import write_records

os.environ.setdefault("OMP_NUM_THREADS", "1")  # with such small tensors, a second thread only costs time

SIZES = {"a": (48, 40), "b": (40, 48), "c": (56, 40), "d": (40, 40)}  # width, height
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 230)}
SQUARES = {
    "a": {"red": (4, 4), "blue": (28, 20)},
    "b": {"green": (20, 8), "blue": (4, 30)},
    "c": {"red": (36, 20)},
    "d": {"green": (4, 22), "red": (22, 4)},
}


@pytest.fixture
def records_path(tmp_path: Path) -> Path:
    """Records of squares of 14 pixels, described by colour and by side, in four grey PNG images."""
    rows: list[dict[str, Any]] = []
    for name, squares in SQUARES.items():
        width, height = SIZES[name]
        pixels = np.full((height, width, 3), 128, np.uint8)
        for colour, (left, top) in squares.items():
            pixels[top : top + 14, left : left + 14] = COLOURS[colour]
            mask = np.zeros((height, width), bool)
            mask[top : top + 14, left : left + 14] = True
            side = "left" if left + 7 < width / 2 else "right"
            for expression in (f"{colour} square", f"square on the {side}"):
                row = {"file_name": str(tmp_path / f"{name}.png"), "expression": expression, "mask": encode_mask(mask)}
                box = {"box": [left, top, 14, 14], "height": height, "width": width, "tags": []}
                ids = {"record_id": f"{name}{len(rows)}", "image_id": name, "group_id": f"{name}-{colour}"}
                rows.append(ids | row | box | {"ignore": None})
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    write_records(tmp_path / "records.parquet", rows)
    return tmp_path / "records.parquet"


@pytest.fixture
def records(records_path: Path) -> pd.DataFrame:
    return read_records(records_path)[0]


@pytest.fixture
def architecture() -> dict[str, Any]:
    """The arguments of `build_tseg` for a model of some 40,000 weights."""
    return {
        "image_encoder": {
            "name": "vit_tiny_patch16_224",
            "options": {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
            "weights": None,
            "drop_path": 0.1,
        },
        "text_encoder": {
            "weights": None,
            "pooling": "first",
            "max_tokens": 16,
            "dropout": 0.1,
            "trainable": "all",
            "random": {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "vocabulary_size": 128},
        },
        "embed_dim": 24,
        "patch_hidden": None,
        "tau": 10.0,
    }


@pytest.fixture
def make_model(architecture: dict[str, Any]) -> Callable[[int], Any]:
    """A function from a seed to a TSEG in training mode, whose position embeddings are large enough to matter."""
    import torch

    from tseg.model.language_model import learn_wordpiece
    from tseg.model.tseg import TSEG

    from .models import build_tseg

    words = [f"{colour} square on the {side}" for colour in COLOURS for side in ("left", "right", "leftmost")]

    def make(seed: int) -> TSEG:
        torch.manual_seed(seed)
        model = build_tseg(**architecture, tokenizer=learn_wordpiece(words, 128))
        torch.nn.init.normal_(model.image_encoder.vit.pos_embed)  # type: ignore[arg-type]
        return model

    return make


@pytest.fixture
def model(make_model: Callable[[int], Any]) -> Any:
    """A TSEG with random weights in evaluation mode."""
    return make_model(0).eval()
