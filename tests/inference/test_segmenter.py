"""The public segmenter against the functions it combines."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tseg.images import open_image
from tseg.inference.masks import MaskRules, segment_masks
from tseg.inference.predict import Seen, predict_views
from tseg.inference.segmenter import Segmenter
from tseg.model.tseg import TSEG, save_model
from tseg.records import decode_mask

from ..models import build_tseg
from ..provenances import model_provenance
from ..tables import mask_records, predict_records

EXPRESSIONS = ["red square", "square on the left", "blue square"]


def masks(model: TSEG, rules: MaskRules, **views: Any) -> np.ndarray:
    predicted = predict_views(model, image(), EXPRESSIONS, Seen(flip_words="swap", **views))
    return np.stack(list(segment_masks([view.similarities for view in predicted], image(), rules)))


def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8))


@pytest.fixture
def path(model: TSEG, architecture: dict[str, Any], tmp_path: Path) -> Path:
    provenance = model_provenance(pooling="spa", resolution=40, flip_words="swap")
    save_model(tmp_path / "model.safetensors", model, architecture, provenance)
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(("crf", "threshold"), [(None, "fixed"), ("psa", "halfway"), ("pamr", "otsu")])
@pytest.mark.parametrize("resolution", [None, 24])
def test_by_default_masks_use_the_models_own_pooling_and_resolution(
    path: Path, model: TSEG, crf: str | None, threshold: str, resolution: int | None
) -> None:
    found = Segmenter.load(path, crf=crf, threshold=threshold, resolution=resolution)(image(), EXPRESSIONS)
    rules = MaskRules("spa", threshold=threshold, crf=crf)
    expected = masks(model, rules, resolution=resolution or 40, scales=[1.0], flip=False)
    assert found.shape == (3, 45, 70)
    np.testing.assert_array_equal(found, expected)


def test_scales_flips_and_windows_reach_the_prediction(model: TSEG) -> None:
    segmenter = Segmenter(model, pooling="gap", resolution=40, flip_words="swap", window=24, background=0.3)
    views: dict[str, Any] = {"scales": (1.0, 1.5), "flip": True}
    expected = masks(model, MaskRules("gap", background=0.3), resolution=40, window=24, **views)
    np.testing.assert_array_equal(segmenter(image(), EXPRESSIONS, **views), expected)


@pytest.mark.parametrize("how", [{"threshold": "oracle"}, {"threshold": "otso"}, {"crf": "none"}])
def test_unknown_rules_and_the_oracle_are_refused(model: TSEG, how: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"there is no (rule|preset)"):
        Segmenter(model, pooling="mpa", resolution=40, **how)  # type: ignore[arg-type]


def test_segmenter_and_workflow_give_the_same_masks(model: TSEG, records: pd.DataFrame) -> None:
    """They may differ at a few pixels, where the workflow's rounding to float16 crosses the threshold."""
    segmenter = Segmenter(model, pooling="mpa", resolution=48)
    predictions = predict_records(
        model, records, words=None, resolution=48, scales=[1.0], flip=False, flip_words="keep"
    ).to_pandas()
    table = mask_records(records, predictions, MaskRules("mpa")).to_pandas()
    by_workflow = dict(zip(table["record_id"], table["mask"], strict=True))
    for record in records.itertuples():
        (mask,) = segmenter(open_image(record.file_name), [record.expression])
        workflows_mask = decode_mask(by_workflow[record.record_id], record.height, record.width)
        assert (mask != workflows_mask).mean() < 0.005


def test_a_phrase_is_cleaned_as_in_training_and_refused_if_nothing_of_it_can_be_seen(path: Path) -> None:
    segmenter = Segmenter.load(path)
    plain, hidden = (segmenter(image(), [phrase]) for phrase in ("red square", "\ufeffred\u00a0square\u200b"))
    np.testing.assert_array_equal(plain, hidden)
    with pytest.raises(ValueError, match="an expression is empty; name what to look for"):
        segmenter(image(), ["red square", "\u200b"])


def test_segmenting_does_not_change_the_random_state_of_torch(path: Path) -> None:
    segmenter = Segmenter.load(path)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(segmenter(image(), EXPRESSIONS), segmenter(image(), EXPRESSIONS))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_with_class_encoding_segments_only_its_classes(architecture: dict[str, Any], tmp_path: Path) -> None:
    architecture["text_encoder"] = {"classes": ["cat", "dog"], "num_features": 8}
    model = build_tseg(**architecture, tokenizer=None).eval()
    save_model(tmp_path / "model.safetensors", model, architecture, model_provenance(resolution=40))
    segmenter = Segmenter.load(tmp_path / "model.safetensors")
    both = segmenter(image(), ["dog", "cat"], flip=True)
    np.testing.assert_array_equal(both[1:], segmenter(image(), ["cat"], flip=True))
    assert (both[0] != both[1]).any()
    with pytest.raises(ValueError, match="'horse' is not a class of this model"):
        segmenter(image(), ["horse"])
