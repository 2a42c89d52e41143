"""The public segmenter against the functions it combines."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from tseg import Segmenter
from tseg.images import open_image
from tseg.inference.masks import MaskRules, segment_masks
from tseg.inference.predict import Seen, predict_views
from tseg.model.pooling import POOLINGS
from tseg.model.tseg import TSEG, save_model
from tseg.records import decode_mask

from ..models import build_tseg
from ..provenances import model_provenance
from ..tables import mask_records, predict_records

PHRASES = ["red square", "square on the left", "blue square"]
Save = Callable[..., Path]


def masks(model: TSEG, rules: MaskRules, **views: Any) -> np.ndarray:
    predicted = predict_views(model, image(), PHRASES, Seen(flip_words="swap", **views))
    return np.stack(list(segment_masks([view.similarities for view in predicted], image(), rules)))


def image(width: int = 70, height: int = 45, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("crf", "threshold"), [(None, "fixed"), ("none", "fixed"), ("psa", "halfway"), ("pamr", "otsu")]
)
@pytest.mark.parametrize("resolution", [None, 24])
def test_by_default_masks_use_the_models_own_pooling_and_resolution(
    save: Save, model: TSEG, crf: str | None, threshold: str, resolution: int | None
) -> None:
    found = Segmenter.from_pretrained(save(), resolution=resolution)(image(), PHRASES, crf=crf, threshold=threshold)
    rules = MaskRules("spa", threshold=threshold, crf=None if crf == "none" else crf)
    expected = masks(model, rules, resolution=resolution or 40, scales=[1.0], flip=False)
    assert found.masks.shape == (3, 45, 70)
    np.testing.assert_array_equal(found.masks, expected)


@pytest.mark.parametrize("overlapping", [False, True])
def test_scales_flips_and_windows_reach_the_prediction(save: Save, model: TSEG, overlapping: bool) -> None:
    how: dict[str, Any] = {"window": 24, "background": 0.3, "overlapping": overlapping}
    segmenter = Segmenter.from_pretrained(save(pooling="gap", pooling_options={}), **how)
    views: dict[str, Any] = {"scales": (1.0, 1.5), "flip": True}
    rules = MaskRules("gap", background=0.3, exclusive_activations=not overlapping)
    found = segmenter(image(), PHRASES, **views)
    np.testing.assert_array_equal(found.masks, masks(model, rules, resolution=40, window=24, **views))


def test_segmenter_and_workflow_give_the_same_masks(save: Save, model: TSEG, records: pd.DataFrame) -> None:
    """They may differ at a few pixels, where the workflow's rounding to float16 crosses the threshold."""
    segmenter = Segmenter.from_pretrained(save(pooling="mpa", resolution=48))
    options: dict[str, Any] = {"resolution": 48, "scales": [1.0], "flip": False, "flip_words": "keep"}
    predictions = predict_records(model, records, words=None, **options).to_pandas()
    table = mask_records(records, predictions, MaskRules("mpa")).to_pandas()
    by_workflow = dict(zip(table["record_id"], table["mask"], strict=True))
    for record in records.itertuples():
        (mask,) = segmenter(record.file_name, record.expression).masks
        workflows_mask = decode_mask(by_workflow[record.record_id], record.height, record.width)
        assert (mask != workflows_mask).mean() < 0.005


@pytest.mark.parametrize("pooling", POOLINGS)
def test_plain_masks_are_where_heatmaps_exceed_one_half(save: Save, pooling: str) -> None:
    options = {} if pooling in ("gap", "gmp") else model_provenance().pooling_options if pooling == "mpa" else {}
    found = Segmenter.from_pretrained(save(pooling=pooling, pooling_options=options))(image(), PHRASES, crf="pamr")
    plain = Segmenter.from_pretrained(save(pooling=pooling, pooling_options=options))(image(), PHRASES)
    assert plain.heatmaps.dtype == np.float32
    np.testing.assert_array_equal(plain.heatmaps > 0.5, plain.masks)
    np.testing.assert_array_equal(found.heatmaps, plain.heatmaps)
    assert (found.masks != plain.masks).any() or not plain.masks.any()


def test_a_score_is_the_sigmoid_of_the_poolings_score(save: Save, model: TSEG) -> None:
    """GAP: the sigmoid of the mean similarity."""
    found = Segmenter.from_pretrained(save(pooling="gap", pooling_options={}))(image(), PHRASES)
    (view,) = predict_views(model, image(), PHRASES, Seen(40, flip_words="swap"))
    expected = 1 / (1 + np.exp(-view.similarities.numpy().astype(float).mean(axis=(1, 2))))
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)


def test_a_model_that_masks_trained_scores_by_the_mean_probability_of_its_mask(save: Save, model: TSEG) -> None:
    file = save(pooling=None, supervision="full", pooling_options={})
    found = Segmenter.from_pretrained(file)(image(), PHRASES)
    (view,) = predict_views(model, image(), PHRASES, Seen(40, flip_words="swap"))
    maps = interpolate(view.similarities[None], size=(45, 70), mode="bilinear")[0].sigmoid().numpy()
    assert found.masks.any()
    expected = [each[mask].mean() if mask.any() else 0 for each, mask in zip(maps, found.masks, strict=True)]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)


def test_a_batch_gives_what_single_images_give(segmenter: Segmenter) -> None:
    images = [image(seed=seed) for seed in range(3)] + [image(40, 64, seed=4)]
    together = segmenter(images, PHRASES, flip=True)
    for of_batch, each in zip(together, images, strict=True):
        single = segmenter(each, PHRASES, flip=True)
        np.testing.assert_allclose(of_batch.heatmaps, single.heatmaps, atol=1e-5)
        np.testing.assert_allclose(of_batch.scores, single.scores, atol=1e-5)
    own = segmenter(images[:2], [PHRASES[:1], PHRASES[1:]])
    assert [found.phrases for found in own] == [PHRASES[:1], PHRASES[1:]]
    assert segmenter([], PHRASES) == []


def test_an_image_is_embedded_once_for_many_phrases(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = segmenter.embed(image(), scales=(1.0, 1.5), flip=True)
    expected = [segmenter(image(), phrase, scales=(1.0, 1.5), flip=True) for phrase in PHRASES]
    monkeypatch.setattr(segmenter.model.image_encoder, "forward", None)  # it is not called again
    for phrase, other in zip(PHRASES, expected, strict=True):
        np.testing.assert_allclose(segmenter(embedded, phrase).heatmaps, other.heatmaps, atol=1e-5)
    several = segmenter([embedded, embedded], PHRASES)
    np.testing.assert_array_equal(several[0].masks, several[1].masks)


def test_an_image_that_another_model_has_seen_is_refused(segmenter: Segmenter, save: Save) -> None:
    other = Segmenter.from_pretrained(save())
    with pytest.raises(ValueError, match="the image was embedded by another model; embed it by this one"):
        other(segmenter.embed(image()), "cat")


def test_many_images_are_embedded_in_parts(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = segmenter([image(seed=seed) for seed in range(5)], PHRASES)
    monkeypatch.setattr("tseg.segmenting.segmenter.IMAGES_AT_ONCE", 2)
    for found, other in zip(segmenter([image(seed=seed) for seed in range(5)], PHRASES), expected, strict=True):
        np.testing.assert_allclose(found.heatmaps, other.heatmaps, atol=1e-5)


def test_a_phrase_is_encoded_once(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = segmenter.model.text_encoder.forward
    monkeypatch.setattr(segmenter.model.text_encoder, "forward", lambda own: encoded.extend(own) or encode(own))
    for seed in range(3):
        segmenter(image(seed=seed), ["cat on the left", "dog"], flip=True)
    assert sorted(encoded) == ["cat on the left", "cat on the right", "dog"]
    monkeypatch.setattr("tseg.segmenting.segmenter.PHRASES_KEPT", 2)
    segmenter(image(), ["cow", "owl"])
    segmenter(image(), "dog")
    assert encoded[3:] == ["cow", "owl", "dog"]


def test_threads_share_a_segmenter(segmenter: Segmenter) -> None:
    images = [image(70, 45), image(45, 70), image(64, 64), image(90, 30)]
    expected = [segmenter(each, PHRASES).masks for each in images]
    barrier = threading.Barrier(8)

    def ask(number: int) -> bool:
        barrier.wait()
        found = [segmenter(images[number % 4], [*PHRASES, f"thing {number} {turn}"]) for turn in range(5)]
        alone = [segmenter(images[number % 4], PHRASES).masks for _ in range(5)]
        return len(found) == 5 and all(np.array_equal(each, expected[number % 4]) for each in alone)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


def test_a_string_is_one_phrase_and_a_repeated_phrase_has_the_same_mask(segmenter: Segmenter) -> None:
    """SPA's masks exclude each other: a phrase must not compete with itself."""
    np.testing.assert_array_equal(segmenter(image(), "red square").masks, segmenter(image(), ["red square"]).masks)
    found = segmenter(image(), ["red square", "blue square", "red  square"])
    assert found.phrases == ["red square", "blue square", "red square"]
    expected = segmenter(image(), ["red square", "blue square"])
    np.testing.assert_array_equal(found.masks, expected.masks[[0, 1, 0]])
    np.testing.assert_array_equal(found.heatmaps, expected.heatmaps[[0, 1, 0]])
    np.testing.assert_array_equal(found.scores, expected.scores[[0, 1, 0]])


def test_images_of_every_form_are_the_same_image(segmenter: Segmenter, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    image().save(path)
    expected = segmenter(image(), PHRASES).masks
    for same in (path, str(path), path.read_bytes(), np.asarray(image()), Image.open(path), image().convert("RGBA")):
        np.testing.assert_array_equal(segmenter(same, PHRASES).masks, expected)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "YCbCr"])
def test_images_of_any_mode_are_seen_as_a_file_of_them_is(segmenter: Segmenter, tmp_path: Path, mode: str) -> None:
    given = image().convert(mode)
    if mode != "YCbCr":
        path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
        given.save(path)
        expected = open_image(path)
    else:
        expected = given.convert("RGB")
    np.testing.assert_array_equal(segmenter(given, PHRASES).masks, segmenter(expected, PHRASES).masks)


def test_transparent_and_turned_images_are_seen_as_viewers_show_them(segmenter: Segmenter) -> None:
    grey = image().convert("L")
    np.testing.assert_array_equal(segmenter.embed(np.asarray(grey)).image, grey.convert("RGB"))
    clear = np.dstack([np.asarray(image()), np.zeros((45, 70), np.uint8)])
    assert (np.asarray(segmenter.embed(clear).image) == 255).all()
    exif, buffer = Image.Exif(), BytesIO()
    exif[0x0112] = 6
    image().save(buffer, "JPEG", exif=exif)
    assert segmenter(buffer.getvalue(), PHRASES).masks.shape == (3, 70, 45)
    assert segmenter(Image.open(buffer), PHRASES).masks.shape == (3, 70, 45)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (b"", "the image cannot be read: the image is of no format that Pillow reads"),
        (b"some text", "the image cannot be read: the image is of no format that Pillow reads"),
        ("absent.jpg", "absent.jpg cannot be read as an image: there is no such file; correct its path"),
        (np.zeros((4, 5, 3)), r"the array is float64 \(4, 5, 3\); give uint8"),
        (np.zeros((4, 5, 2), np.uint8), r"the array is uint8 \(4, 5, 2\); give uint8"),
        (np.zeros((0, 5, 3), np.uint8), r"the array is uint8 \(0, 5, 3\); give uint8"),
        (Image.new("I;16", (5, 5)), "has Pillow's mode I;16; save it with 8 bits per channel"),
        (torch.zeros(3, 5, 5), "Tensor is no image; give a path, the bytes of a file, an image of Pillow or an array"),
        (None, "NoneType is no image; give a path"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(segmenter: Segmenter, given: Any, error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        segmenter(given, PHRASES)


@pytest.mark.parametrize(
    ("phrases", "how", "error"),
    [
        ([], {}, "there is no phrase; name what to look for"),
        ("", {}, "the phrase '' is empty; name what to look for"),
        (["cat", "\u200b"], {}, r"the phrase '\\u200b' is empty; name what to look for"),
        (["cat", 3], {}, "3 is no phrase; give text"),
        ("cat", {"crf": "psa2"}, "there is no preset 'psa2'"),
        ("cat", {"threshold": "otso"}, "there is no rule 'otso'"),
        ("cat", {"threshold": "oracle"}, "there is no rule 'oracle'"),
        (None, {}, "None is no phrase; give text, or a list of it"),
        ("cat", {"scales": []}, "give a list of numbers above 0"),
        ("cat", {"scales": [0.0]}, "give a list of numbers above 0"),
        ("cat", {"scales": 1.0}, "give a list of numbers above 0"),
        ("cat", {"scales": [float("inf")]}, "give a list of numbers above 0"),
        ("cat", {"scales": np.array([-1.0, 1.0])}, "give a list of numbers above 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(
    segmenter: Segmenter, phrases: Any, how: dict[str, Any], error: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=error):
        segmenter(image(), phrases, **how)


def test_lists_of_phrases_must_be_as_many_as_the_images(segmenter: Segmenter) -> None:
    with pytest.raises(ValueError, match="there are 2 images and 1 lists of phrases; give a list for each image"):
        segmenter([image(), image()], [["cat"]])


def test_what_the_text_encoder_loses_is_told(segmenter: Segmenter) -> None:
    told = "1 of 1 expressions have more than 16 tokens; the rest of them is not seen"
    for images, phrase in ((image(), "red square " * 1000), ([image()], "blue square " * 1000)):
        with pytest.warns(UserWarning, match=told) as warned:
            segmenter(images, phrase)
        assert {each.filename for each in warned} == {__file__}


def test_a_phrase_is_cleaned_as_in_training(segmenter: Segmenter) -> None:
    plain, hidden = (segmenter(image(), [phrase]) for phrase in ("red square", "\ufeffred\u00a0square\u200b"))
    np.testing.assert_array_equal(plain.masks, hidden.masks)
    assert hidden.phrases == ["red square"]


def test_segmenting_changes_no_state_of_torch(segmenter: Segmenter) -> None:
    state = torch.get_rng_state()
    first, second = (segmenter(image(), PHRASES).masks for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled() and not torch.are_deterministic_algorithms_enabled()


def test_a_model_with_class_encoding_segments_only_its_classes(architecture: dict[str, Any], tmp_path: Path) -> None:
    architecture["text_encoder"] = {"classes": ["cat", "dog"], "num_features": 8}
    model = build_tseg(**architecture, tokenizer=None).eval()
    save_model(tmp_path / "model.safetensors", model, architecture, model_provenance(resolution=40))
    segmenter = Segmenter.from_pretrained(tmp_path)
    both = segmenter(image(), ["dog", "cat"], flip=True).masks
    np.testing.assert_array_equal(both[1:], segmenter(image(), ["cat"], flip=True).masks)
    assert (both[0] != both[1]).any()
    with pytest.raises(ValueError, match="'horse' is not a class of this model"):
        segmenter(image(), ["horse"])
