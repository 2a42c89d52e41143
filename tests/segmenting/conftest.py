"""A trained model as a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tseg import Segmenter
from tseg.model.tseg import TSEG, save_model

from ..provenances import model_provenance


@pytest.fixture
def save(model: TSEG, architecture: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """A function that saves the model as one of a training with some changes."""

    def save(**changes: Any) -> Path:
        usual = {"pooling": "spa", "resolution": 40, "flip_words": "swap"}
        save_model(tmp_path / "model.safetensors", model, architecture, model_provenance(**usual | changes))
        return tmp_path / "model.safetensors"

    return save


@pytest.fixture
def segmenter(save: Callable[..., Path]) -> Segmenter:
    return Segmenter.from_pretrained(save(), device="cpu")
