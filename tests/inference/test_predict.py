"""Similarities of whole images, at several scales, mirrored and in windows."""

from collections.abc import Sequence
from itertools import product
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from tseg.inference.predict import Seen, View, predict_views
from tseg.model.tseg import TSEG
from tseg.transforms import whole_view

EXPRESSIONS = ["red square", "square on the left", "the rightmost green square"]
MIRRORED = ["red square", "square on the right", "the leftmost green square"]


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def predict_all(
    model: TSEG,
    image: Image.Image,
    expressions: list[str] = EXPRESSIONS,
    *,
    resolution: int = 24,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    flip_words: Literal["swap", "keep"] = "swap",
    window: int | None = None,
) -> list[View]:
    views: dict[str, Any] = {"scales": scales, "flip": flip, "flip_words": flip_words, "window": window}
    return predict_views(model, image, expressions, Seen(resolution, **views))


def predict(model: TSEG, image: Image.Image, expressions: list[str] = EXPRESSIONS, **how: Any) -> Tensor:
    """The similarities of a single view."""
    (view,) = predict_all(model, image, expressions, **how)
    return view.similarities


def grid_size(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """Rows and columns of patches of 16 pixels."""
    width, height = whole_view(*size, resolution=resolution, patch_size=16, flipped=False).size
    return height // 16, width // 16


@pytest.mark.parametrize(
    ("size", "resolution", "grid"),
    [
        ((640, 480), 384, (24, 32)),
        ((480, 640), 384, (32, 24)),
        ((500, 375), 512, (32, 43)),
        ((16, 16), 32, (2, 2)),
    ],
)
def test_the_shorter_side_is_the_resolution_and_the_aspect_is_kept(
    size: tuple[int, int], resolution: int, grid: tuple[int, int]
) -> None:
    assert grid_size(size, resolution) == grid


@pytest.mark.parametrize(("size", "grid"), [((1, 5000), (96, 24)), ((5000, 10), (24, 96)), ((400, 100), (24, 96))])
def test_no_image_is_longer_than_four_times_its_width(size: tuple[int, int], grid: tuple[int, int]) -> None:
    """The cost of an image is at most four times that of a square one."""
    assert grid_size(size, 384) == grid


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


def test_images_are_normalised_by_the_encoders_mean_and_std(model: TSEG) -> None:
    """A stub in place of the image encoder keeps what it is given."""

    class Stub(torch.nn.Module):
        patch_size, mean, std = 8, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

        def forward(self, images: Tensor) -> Tensor:
            self.given = images
            return torch.zeros(1, 15, num_features)

    num_features, stub = model.image_encoder.num_features, Stub()
    model.image_encoder = cast(Any, stub)
    predict(model, noise(40, 24), resolution=24)
    expected = (np.asarray(noise(40, 24), float) / 255 - stub.mean) / stub.std
    np.testing.assert_allclose(stub.given[0].permute(1, 2, 0), expected, rtol=1e-4, atol=1e-5)


def test_an_image_of_another_size_is_resized_bilinearly(model: TSEG) -> None:
    image = noise(101, 53)
    resized = image.resize((48, 24), Image.Resampling.BILINEAR)
    assert torch.equal(predict(model, image), predict(model, resized))


def test_expressions_do_not_depend_on_each_other(model: TSEG) -> None:
    how: dict[str, Any] = {"flip": True, "scales": (1.0, 1.5), "window": 16}
    together = predict_all(model, noise(48, 32), **how)
    for j, expression in enumerate(EXPRESSIONS):
        for view, alone in zip(together, predict_all(model, noise(48, 32), [expression], **how), strict=True):
            torch.testing.assert_close(view.similarities[j : j + 1], alone.similarities, rtol=1e-4, atol=1e-5)


def test_every_scale_is_a_view_on_its_own_grid(model: TSEG) -> None:
    views = predict_all(model, noise(48, 32), resolution=32, scales=(1.0, 2.0, 0.5))
    assert [(view.scale, view.flipped, view.similarities.shape) for view in views] == [
        (1.0, False, (3, 4, 6)),
        (2.0, False, (3, 8, 12)),
        (0.5, False, (3, 2, 3)),
    ]
    for view, resolution in zip(views, (32, 64, 16), strict=True):
        assert torch.equal(view.similarities, predict(model, noise(48, 32), resolution=resolution))


@pytest.mark.parametrize(("flip_words", "texts"), [("swap", MIRRORED), ("keep", EXPRESSIONS)])
def test_a_flipped_view_is_that_of_the_mirror_image_in_the_images_orientation(
    model: TSEG, flip_words: Literal["swap", "keep"], texts: list[str]
) -> None:
    image = noise(48, 32)
    plain, flipped = predict_all(model, image, flip=True, flip_words=flip_words)
    assert (plain.flipped, flipped.flipped) == (False, True)
    mirror = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Up to rounding: expressions and their mirror images are encoded together.
    assert_close(plain.similarities, predict(model, image), rtol=1e-5, atol=1e-5)
    assert_close(flipped.similarities, predict(model, mirror, texts).flip(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "height", "window", "tops", "lefts"),
    [(72, 24, 24, [0], [0, 3, 6]), (56, 40, 24, [0, 2], [0, 3, 4]), (40, 24, 100, [0], [0])],
)
def test_windows_are_predicted_alone_and_averaged_where_they_overlap(
    model: TSEG, width: int, height: int, window: int, tops: list[int], lefts: list[int]
) -> None:
    """Corners of windows in patches of 8 pixels, by hand; the last window ends at the border."""
    image, patches = noise(width, height), min(window // 8, max(width, height) // 8)
    total, count = np.zeros((3, height // 8, width // 8)), np.zeros((height // 8, width // 8))
    for top, left in product(tops, lefts):
        bottom, right = min(top + patches, height // 8), min(left + patches, width // 8)
        part = image.crop((8 * left, 8 * top, 8 * right, 8 * bottom))
        total[:, top:bottom, left:right] += predict(model, part, resolution=min(part.size)).numpy()
        count[top:bottom, left:right] += 1
    found = predict(model, image, resolution=height, window=window)
    np.testing.assert_allclose(found, total / count, rtol=1e-4, atol=1e-5)
    assert torch.equal(found, predict(model, image, resolution=height)) == (window == 100)


def test_predictions_have_no_gradient_and_are_deterministic(model: TSEG) -> None:
    first = predict(model, noise(48, 32))
    assert not first.requires_grad
    assert torch.equal(first, predict(model, noise(48, 32)))


@pytest.mark.parametrize("flip", [False, True])
def test_predictions_from_tokens_equal_those_of_the_encoder(model: TSEG, flip: bool) -> None:
    views = [
        whole_view(50, 30, resolution=24 * scale, patch_size=8, flipped=flipped)
        for scale, flipped in product((1.0, 0.5), [False, True][: 1 + flip])
    ]
    tokens: list[np.ndarray] = []
    for view in views:
        pixels = (np.asarray(view(noise(50, 30)), np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5
        with torch.inference_mode():
            found = model.image_encoder(torch.from_numpy(pixels)[None])[0]
        tokens.append(found.unflatten(0, (view.size[1] // 8, view.size[0] // 8)).numpy())
    how: dict[str, Any] = {"resolution": 24, "scales": (1.0, 0.5), "flip": flip, "flip_words": "swap"}
    from_tokens = predict_views(model, tokens, EXPRESSIONS, Seen(**how))
    from_image = predict_views(model, noise(50, 30), EXPRESSIONS, Seen(**how))
    assert len(from_tokens) == len(from_image) == len(views)
    for ours, theirs in zip(from_tokens, from_image, strict=True):
        assert ours[:2] == theirs[:2]
        torch.testing.assert_close(ours.similarities, theirs.similarities)
