"""Tokens from the file equal those of the encoder, and a training from them equals one that runs the encoder."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tseg.encoding.encode import encode_expressions, encode_images, fingerprint, open_tokens
from tseg.encoding.views import fixed_crop, views_of
from tseg.images import normalised, open_image
from tseg.model.image_encoder import build_image_encoder
from tseg.settings.encodings import CropViews, WholeViews
from tseg.training.batches import PixelBatches, WeakBatches
from tseg.transforms import mirror_words

from ..sampling import sampling

CROPS = CropViews(num_views=3, resolution=32, scale=(0.75, 1.25), flip=True)


@pytest.mark.parametrize("make", [WeakBatches, lambda *args: PixelBatches(*args, region="mask")])
def test_similarities_from_tokens_equal_those_of_the_encoders(
    model: Any, records: pd.DataFrame, tmp_path: Path, make: Any
) -> None:
    """The same images, crops and expressions are drawn, and the similarities agree to float16's rounding."""
    encode_images(model.image_encoder, records, CROPS, tmp_path / "patches.parquet")
    encode_expressions(model.text_encoder, records["expression"], True, tmp_path / "texts.parquet")
    tokens = {
        "patches": open_tokens(tmp_path / "patches.parquet", model.image_encoder, CROPS),
        "texts": open_tokens(tmp_path / "texts.parquet", model.text_encoder, None),
    }
    fixed: dict[str, Any] = {"batch_size": 4, "scale": CROPS.scale, "views": CROPS}
    computed, cached = make(records, sampling(**fixed)), make(records, sampling(**fixed, **tokens))
    for iteration in range(6):
        one, other = computed[iteration], cached[iteration]
        assert one.expressions == other.expressions and one.positives == other.positives
        assert one.masks is None or torch.equal(one.masks, other.masks)
        with torch.inference_mode():
            torch.testing.assert_close(
                model(other.images, other.texts), model(one.images, one.expressions), rtol=0, atol=0.02
            )


def test_whole_images_are_encoded_at_every_scale_and_mirrored(
    model: Any, records: pd.DataFrame, tmp_path: Path
) -> None:
    views = WholeViews(resolution=40, scales=[1.0, 0.5], flip=True)
    encode_images(model.image_encoder, records, views, tmp_path / "t.parquet")
    tokens = open_tokens(tmp_path / "t.parquet", model.image_encoder, views)
    row = records.iloc[0]
    image = open_image(row["file_name"])
    for number, view in enumerate(views_of(views, row["image_id"], *image.size, model.patch_size)):
        with torch.inference_mode():
            pixels = normalised(view(image), model.image_encoder.mean, model.image_encoder.std)
            expected = model.image_encoder(torch.from_numpy(pixels)[None])[0]
        found = tokens[row["image_id"], number]
        assert found.shape[:2] == (view.size[1] // 8, view.size[0] // 8)
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=2e-3, atol=1e-4)


def test_a_fixed_crop_depends_on_the_image_and_the_view_alone_and_every_second_is_mirrored() -> None:
    crops = [fixed_crop(CROPS, view, "a", 60, 40) for view in range(3)]
    assert crops == [fixed_crop(CROPS, view, "a", 60, 40) for view in range(3)]
    assert len(set(crops)) == 3 and fixed_crop(CROPS, 0, "b", 60, 40) != crops[0]
    assert [crop.flipped for crop in crops] == [False, True, False]


def test_tokens_of_other_weights_or_views_are_refused(
    model: Any, make_model: Any, records: pd.DataFrame, tmp_path: Path
) -> None:
    encode_images(model.image_encoder, records, CROPS, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="the tokens of another encoder; delete it"):
        open_tokens(tmp_path / "t.parquet", make_model(1).image_encoder, CROPS)
    with pytest.raises(ValueError, match="holds other views"):
        open_tokens(tmp_path / "t.parquet", model.image_encoder, CROPS.model_copy(update={"num_views": 4}))


def test_mirrored_expressions_have_tokens_of_their_own(model: Any, records: pd.DataFrame, tmp_path: Path) -> None:
    encode_expressions(model.text_encoder, records["expression"], True, tmp_path / "t.parquet")
    tokens = open_tokens(tmp_path / "t.parquet", model.text_encoder, None)
    for expression in set(records["expression"]):
        for text in (expression, mirror_words(expression)):
            with torch.inference_mode():
                expected = model.text_encoder([text])[0]
            np.testing.assert_allclose(tokens[text, 0][0, 0], expected, rtol=2e-3, atol=1e-3)


def test_an_image_of_the_same_name_and_size_but_other_pixels_has_new_tokens(
    model: Any, records: pd.DataFrame, tmp_path: Path
) -> None:
    first, path = records.iloc[0], tmp_path / "t.parquet"
    encode_images(model.image_encoder, records, CROPS, path)
    before = np.array(open_tokens(path, model.image_encoder, CROPS)[first["image_id"], 0])
    open_image(first["file_name"]).rotate(180).save(first["file_name"])
    encode_images(model.image_encoder, records, CROPS, path)
    assert not np.array_equal(open_tokens(path, model.image_encoder, CROPS)[first["image_id"], 0], before)


def test_equal_weights_with_other_heads_are_another_encoder(architecture: dict[str, Any]) -> None:
    encoders = []
    for heads in (2, 4):
        architecture["image_encoder"]["options"]["num_heads"] = heads
        encoders.append(build_image_encoder(**architecture["image_encoder"]))
    encoders[1].load_state_dict(encoders[0].state_dict())
    assert fingerprint(encoders[0]) != fingerprint(encoders[1])
