"""Similarities of whole images, averaged over scales and flips."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.inference.predict import grid_size, predict_similarities
from tseg.model.tseg import TSEG

EXPRESSIONS = ["red square", "square on the left", "the rightmost green square"]
MIRRORED = ["red square", "square on the right", "the leftmost green square"]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def predict(
    model: TSEG,
    image: Image.Image,
    expressions: list[str] = EXPRESSIONS,
    *,
    resolution: int = 48,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    flip_words: Literal["swap", "keep"] = "swap",
) -> Tensor:
    views: dict[str, Any] = {"scales": scales, "flip": flip, "flip_words": flip_words}
    return predict_similarities(model, image, expressions, resolution=resolution, **views)


@pytest.mark.parametrize(
    ("size", "resolution", "grid"),
    [
        ((640, 480), 384, (18, 24)),
        ((480, 640), 384, (24, 18)),
        ((500, 375), 512, (24, 32)),
        ((16, 16), 32, (2, 2)),
        ((4000, 10), 320, (1, 20)),
    ],
)
def test_the_longer_side_is_the_resolution_and_the_aspect_is_kept(
    size: tuple[int, int], resolution: int, grid: tuple[int, int]
) -> None:
    assert grid_size(Image.new("RGB", size), resolution, patch_size=16) == grid


def test_similarities_are_the_models_in_reading_order(model: TSEG) -> None:
    image = noise(48, 24)
    normalised = torch.from_numpy((np.asarray(image) / 255 - 0.5) / 0.5).float().permute(2, 0, 1)
    s = model(normalised[None], EXPRESSIONS)[0].detach()
    similarities = predict(model, image)
    assert similarities.shape == (3, 3, 6)
    for j, row, column in np.ndindex(3, 3, 6):
        assert similarities[j, row, column].item() == pytest.approx(s[6 * row + column, j].item(), abs=1e-5)


def test_one_scale_without_flip_is_plain_inference_bit_for_bit(model: TSEG) -> None:
    resized = np.asarray(noise(101, 53).resize((48, 24), Image.Resampling.BILINEAR), np.float32)
    with torch.inference_mode():
        s = model(torch.from_numpy((resized.transpose(2, 0, 1) / 255 - 0.5) / 0.5)[None], EXPRESSIONS)[0]
    assert torch.equal(predict(model, noise(101, 53)), s.reshape(3, 6, 3).permute(2, 0, 1))


def test_images_are_normalised_by_the_encoders_mean_and_std() -> None:
    """A stub whose similarities are the mean red, green and blue of each patch of its input."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    class Colours:
        patch_size, image_encoder, log_tau = 8, SimpleNamespace(mean=mean, std=std), torch.zeros(())

        def __call__(self, images: Tensor, expressions: list[str]) -> Tensor:
            return torch.nn.functional.avg_pool2d(images, 8).flatten(2).transpose(1, 2)

    colours: Any = Colours()
    patches = np.asarray(noise(40, 24), float).reshape(3, 8, 5, 8, 3).mean(axis=(1, 3)) / 255
    expected = ((patches - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(predict(colours, noise(40, 24), resolution=40), expected, rtol=1e-4, atol=1e-5)


def test_an_image_of_another_size_is_resized_bilinearly(model: TSEG) -> None:
    image = noise(101, 53)
    resized = image.resize((48, 24), Image.Resampling.BILINEAR)
    assert torch.equal(predict(model, image), predict(model, resized))


def test_expressions_do_not_depend_on_each_other(model: TSEG) -> None:
    together = predict(model, noise(48, 32), flip=True, scales=(1.0, 1.5))
    alone = [predict(model, noise(48, 32), [expression], flip=True, scales=(1.0, 1.5)) for expression in EXPRESSIONS]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_scales_are_averaged_on_the_grid_of_scale_one(model: TSEG) -> None:
    image = noise(48, 32)
    larger = interpolate(predict(model, image, resolution=96)[None], size=(4, 6), mode="bilinear")[0]
    smaller = interpolate(predict(model, image, resolution=24)[None], size=(4, 6), mode="bilinear")[0]
    expected = (predict(model, image) + larger + smaller) / 3
    torch.testing.assert_close(predict(model, image, scales=(1.0, 2.0, 0.5)), expected)


def test_flip_averages_the_image_with_its_mirror_image(model: TSEG) -> None:
    image = noise(48, 32)
    mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = (predict(model, image) + predict(model, mirror, MIRRORED).flip(-1)) / 2
    torch.testing.assert_close(predict(model, image, flip=True), expected)


def test_with_flip_words_keep_expressions_are_not_mirrored(model: TSEG) -> None:
    image = noise(48, 32)
    mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = (predict(model, image) + predict(model, mirror).flip(-1)) / 2
    torch.testing.assert_close(predict(model, image, flip=True, flip_words="keep"), expected)


def test_prediction_with_flip_commutes_with_mirroring(model: TSEG) -> None:
    image = noise(48, 32)
    mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored = predict(model, mirror, MIRRORED, flip=True).flip(-1)
    torch.testing.assert_close(mirrored, predict(model, image, flip=True), rtol=1e-4, atol=1e-5)


def test_predictions_have_no_gradient_and_are_deterministic(model: TSEG) -> None:
    first = predict(model, noise(48, 32))
    assert not first.requires_grad
    assert torch.equal(first, predict(model, noise(48, 32)))
