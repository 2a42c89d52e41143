"""Label maps of section 4.6, each step against the paper's definition. No test needs a model."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_softmax
from torch import Tensor
from torch.nn.functional import interpolate

from tseg.inference.crf import refine_labels
from tseg.inference.masks import MaskRules, each_probability, segment_masks
from tseg.inference.semantic import (
    LabelRules,
    confidences,
    label_probabilities,
    merge_words,
    segment_labels,
)
from tseg.records import LABELS, decode_mask

from ..tables import label_records

HEIGHT, WIDTH = 37, 53
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
SIZE_TERM = {"epsilon": 1.0, "size_lambda": 0.01, "size_power": 5.0}
POOLINGS = ["gmp", "gap", "spa", "mpa"]
EVERY = -1.0  # a confidence that every word exceeds


def random_similarities(words: int = 5, rows: int = 5, columns: int = 7, tau: float = 5.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return tau * (2 * torch.rand(words, rows, columns, generator=generator) - 1)


def to_pixels(maps: Tensor) -> np.ndarray:
    return interpolate(maps[None], size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False)[0].numpy()


def random_views() -> list[Tensor]:
    """The similarities of five words in three views, each on its own grid."""
    return [random_similarities(rows=rows, columns=columns) for rows, columns in ((5, 7), (6, 8), (10, 14))]


def views_of(similarities: Tensor | list[Tensor]) -> list[Tensor]:
    return similarities if isinstance(similarities, list) else [similarities]


def rules(pooling: str, confidence: float = EVERY, alpha: float | None = None, **how: Any) -> LabelRules:
    options = SIZE_TERM if pooling in ("spa", "mpa") else {}
    return LabelRules(MaskRules(pooling, **how), options, confidence, alpha)


def label_map(
    similarities: Tensor | list[Tensor], numbers: list[int] | None = None, *, rules: LabelRules
) -> np.ndarray:
    """The label map; `numbers` is the class of each word. Default: each word is its own class."""
    views = views_of(similarities)
    found = segment_labels(views, IMAGE, numbers or list(range(1, len(views[0]) + 1)), rules)
    assert found.shape == (HEIGHT, WIDTH)
    assert found.dtype == np.int64
    return found


def probabilities(similarities: Tensor | list[Tensor], pooling: str, **how: Any) -> np.ndarray:
    return label_probabilities(views_of(similarities), (HEIGHT, WIDTH), MaskRules(pooling, **how)).numpy()


def foreground(similarities: Tensor | list[Tensor], pooling: str) -> np.ndarray:
    """The probability of each word against the background alone, float64 (L, H, W)."""
    views = [view.double() for view in views_of(similarities)]
    alone = MaskRules(pooling, exclusive_activations=False)
    return torch.stack(list(each_probability(views, (HEIGHT, WIDTH), alone))).numpy()


def reference_confidences(similarities: np.ndarray, pooling: str) -> np.ndarray:
    """sigmoid(z) by equations 2 to 8, float64."""
    s = similarities.astype(float).reshape(len(similarities), -1)
    if pooling in ("gmp", "gap"):
        z = s.max(axis=1) if pooling == "gmp" else s.mean(axis=1)
    else:
        m = np.exp(s) / (1 + (np.exp(s).sum(axis=0) if pooling == "spa" else np.exp(s)))
        size = m.mean(axis=1)
        z = (m * s).sum(axis=1) / (m.sum(axis=1) + 1) + (1 - size) ** 5 * np.log(0.01 + size)
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("pooling", ["gmp", "gap", "mpa"])
def test_odds_against_the_background_are_those_of_each_mask_alone(pooling: str) -> None:
    """Float64: o = f / (1 - f), p_k = o_k / (1 + sum o), the background 1 / (1 + sum o)."""
    s = random_similarities()
    f = foreground(s, pooling)
    odds = np.concatenate([np.ones((1, HEIGHT, WIDTH)), f / (1 - f)])
    np.testing.assert_allclose(probabilities(s, pooling), odds / odds.sum(axis=0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pooling", ["gmp", "gap", "mpa"])
def test_a_single_word_has_its_foreground_probability(pooling: str) -> None:
    s = random_similarities(1)
    f = foreground(s, pooling)
    np.testing.assert_allclose(probabilities(s, pooling), np.concatenate([1 - f, f]), atol=1e-6)


@pytest.mark.parametrize("pooling", ["gmp", "gap", "mpa"])
def test_a_pixel_goes_to_the_largest_mask_above_one_half_else_to_the_background(pooling: str) -> None:
    s = random_similarities()
    f = foreground(s, pooling)
    expected = np.where(f.max(axis=0) > 0.5, f.argmax(axis=0) + 1, 0)
    assert set(expected.ravel()) == set(range(6))
    np.testing.assert_array_equal(label_map(s, rules=rules(pooling)), expected)


@pytest.mark.parametrize("words", [1, 2, 6])
def test_spa_labels_are_interpolated_masks_and_their_background(words: int) -> None:
    s = random_similarities(words).double()
    shares = torch.cat([torch.zeros_like(s[:1]), s]).exp()  # exp(s_bg) = 1 first
    expected = to_pixels(shares / shares.sum(dim=0))
    np.testing.assert_allclose(probabilities(s.float(), "spa"), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("words", [1, 2, 6])
def test_spa_with_all_words_confident_is_the_argmax_of_its_masks(words: int) -> None:
    s = random_similarities(words)
    masks = np.stack(list(segment_masks([s], IMAGE, MaskRules("spa"))))
    expected = np.concatenate([~masks.any(axis=0, keepdims=True), masks]).argmax(axis=0)
    np.testing.assert_array_equal(label_map(s, rules=rules("spa")), expected)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("tau", [5.0, 30.0, 200.0])
def test_label_probabilities_sum_to_one_however_certain(pooling: str, tau: float) -> None:
    for s in (random_similarities(tau=tau), torch.full((3, 5, 7), tau), torch.full((3, 5, 7), -tau)):
        found = probabilities(s, pooling)
        assert found.dtype == np.float64
        assert (found >= 0).all()
        np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-9)


def test_of_two_nearly_certain_words_the_more_similar_one_wins() -> None:
    """In float32 sigmoid(20) and sigmoid(21) are both 1."""
    s = torch.stack([torch.full((5, 7), 20.0), torch.full((5, 7), 21.0)])
    for pooling, order in product(["spa", "mpa"], [[0, 1], [1, 0]]):
        assert (label_map(s[order], rules=rules(pooling)) == 1 + order.index(1)).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_confidence_is_the_sigmoid_of_the_score_among_all_words(pooling: str) -> None:
    s = random_similarities()
    found = confidences([s], pooling, rules(pooling).options)
    np.testing.assert_allclose(found, reference_confidences(s.numpy(), pooling), rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_words_below_the_confidence_are_left_out(pooling: str) -> None:
    """The result is that of the remaining words alone."""
    s = random_similarities()
    confidence = float(np.sort(reference_confidences(s.numpy(), pooling))[1:3].mean())
    kept = np.flatnonzero(reference_confidences(s.numpy(), pooling) > confidence)
    assert len(kept) == 3
    expected = label_map(s[kept], (kept + 1).tolist(), rules=rules(pooling))
    np.testing.assert_array_equal(label_map(s, rules=rules(pooling, confidence)), expected)
    assert set(expected.ravel()) <= {0, *(kept + 1)}


@pytest.mark.parametrize("crf", [None, "psa"])
def test_without_a_confident_word_every_pixel_is_background(crf: str | None) -> None:
    assert not label_map(random_similarities(), rules=rules("mpa", confidence=0.9999, crf=crf)).any()


def test_a_word_exactly_at_the_confidence_is_left_out() -> None:
    s = torch.tensor([[[2.0, -2.0]]])  # its mean, the score of gap, is 0
    assert not label_map(s, rules=rules("gap", confidence=0.5)).any()
    assert label_map(s, rules=rules("gap", confidence=0.499)).any()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("crf", [None, "psa"])
def test_permuting_classes_permutes_the_result(pooling: str, crf: str | None) -> None:
    s, order = random_similarities(), [2, 0, 4, 1, 3]
    permuted = label_map(s[order], rules=rules(pooling, crf=crf))
    numbers = np.array([0, *(np.array(order) + 1)])
    np.testing.assert_array_equal(numbers[permuted], label_map(s, rules=rules(pooling, crf=crf)))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_pixel_of_a_word_belongs_to_the_words_class(pooling: str) -> None:
    """Label engineering: argmax over the words, then the class of the word."""
    s, numbers = random_similarities(), [2, 1, 2, 3, 1]
    expected = np.array([0, *numbers])[label_map(s, rules=rules(pooling))]
    assert set(expected.ravel()) == {0, 1, 2, 3}
    np.testing.assert_array_equal(label_map(s, numbers, rules=rules(pooling)), expected)


def test_merged_probabilities_are_those_of_the_strongest_words_normalised() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(5), (3, 4)).transpose(2, 0, 1)
    classes, merged = merge_words(torch.from_numpy(p), torch.tensor([7, 2, 7, 2]))
    strongest = np.stack([p[0], np.maximum(p[2], p[4]), np.maximum(p[1], p[3])])
    assert classes.tolist() == [0, 2, 7]
    np.testing.assert_allclose(merged, strongest / strongest.sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_crf_refines_the_remaining_classes(pooling: str) -> None:
    s, numbers = random_similarities(), [2, 4, 2, 5, 4]
    classes, merged = merge_words(torch.from_numpy(probabilities(s, pooling)), torch.tensor(numbers))
    refined = refine_labels(np.asarray(IMAGE), merged.numpy().astype(np.float32), "psa")
    expected = classes.numpy()[refined.argmax(axis=0)]
    found = label_map(s, numbers, rules=rules(pooling, crf="psa"))
    np.testing.assert_array_equal(found, expected)
    assert (found != label_map(s, numbers, rules=rules(pooling))).any()


@pytest.mark.parametrize("pooling", ["gap", "gmp"])
def test_without_crf_labels_are_psas_argmax_over_views(pooling: str) -> None:
    """psa's infer_cls.py: relu, upsampling, sum, maximum plus 1e-5, argmax against the background 0.2."""
    total = np.sum([to_pixels(view.clamp(min=0)) for view in random_views()], axis=0)
    cam = total / (total.max(axis=(1, 2), keepdims=True) + 1e-5)
    expected = np.argmax(np.concatenate([np.full((1, HEIGHT, WIDTH), 0.2), cam]), 0)
    np.testing.assert_array_equal(label_map(random_views(), rules=rules(pooling)), expected)


@pytest.mark.parametrize("pooling", ["gap", "gmp"])
@pytest.mark.parametrize("alpha", [4, 32])
def test_the_crfs_background_is_psas(pooling: str, alpha: int) -> None:
    """psa's _crf_with_alpha: (1 - max)^alpha and the activations, through pydensecrf's own helpers."""
    total = np.sum([to_pixels(view.clamp(min=0)) for view in random_views()], axis=0)
    cam = total / (total.max(axis=(1, 2), keepdims=True) + 1e-5)
    scores = np.concatenate([np.power(1 - np.max(cam, axis=0, keepdims=True), alpha), cam])
    field = DenseCRF2D(WIDTH, HEIGHT, len(scores))
    field.setUnaryEnergy(unary_from_softmax(scores))
    field.addPairwiseGaussian(sxy=3, compat=3)
    field.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.asarray(IMAGE).copy(), compat=10)
    expected = np.argmax(np.array(field.inference(10)).reshape(scores.shape), axis=0)
    found = label_map(random_views(), rules=rules(pooling, alpha=alpha, crf="psa"))
    np.testing.assert_array_equal(found, expected)
    assert (found != label_map(random_views(), rules=rules(pooling, crf="psa"))).any()


def test_psas_background_is_for_the_crf_of_poolings_without_masks_only() -> None:
    s = random_similarities()
    for pooling, how in {"gap": {}, "mpa": {"crf": "psa"}, "spa": {"crf": "psa"}}.items():
        expected = label_map(s, rules=rules(pooling, **how))
        np.testing.assert_array_equal(label_map(s, rules=rules(pooling, alpha=4, **how)), expected)


def test_spa_labels_are_averaged_masks_of_views() -> None:
    """1-stage-wseg: softmax of each view, upsampled, averaged."""
    shares = [torch.cat([torch.zeros_like(view[:1]), view]).double().softmax(dim=0) for view in random_views()]
    expected = sum(to_pixels(share) for share in shares) / len(shares)
    np.testing.assert_allclose(probabilities(random_views(), "spa"), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_confidences_are_averaged_over_views(pooling: str) -> None:
    found = confidences(random_views(), pooling, rules(pooling).options)
    expected = np.mean([reference_confidences(view.numpy(), pooling) for view in random_views()], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_with_a_rule_words_compete_by_shifted_similarities(pooling: str) -> None:
    """SPA as eq. 5; the others by their odds against the background, as mpa."""
    middles = [(s.amax(dim=(1, 2), keepdim=True) + s.amin(dim=(1, 2), keepdim=True)) / 2 for s in random_views()]
    shifted = [(s - middle).double() for s, middle in zip(random_views(), middles, strict=True)]
    if pooling == "spa":
        shares = [torch.cat([torch.zeros_like(s[:1]), s]).softmax(dim=0) for s in shifted]
        expected = sum(map(to_pixels, shares)) / len(shares)
    else:
        f = sum(to_pixels(s.sigmoid()) for s in shifted) / len(shifted)
        odds = np.concatenate([np.ones((1, HEIGHT, WIDTH)), f / (1 - f)])
        expected = odds / odds.sum(axis=0)
    found = probabilities(random_views(), pooling, threshold="halfway")
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_pamr_refines_labels() -> None:
    s = random_similarities()
    found = label_map(s, rules=rules("mpa", crf="pamr"))
    assert (found != label_map(s, rules=rules("mpa"))).any()


WORDS = ["cat", "dog", "hound"]


def predictions(records: pd.DataFrame, shift: dict[str, float] | None = None) -> pd.DataFrame:
    """Random similarities of every image to three words, plus a `shift` for some images."""
    rows = []
    for number, image_id in enumerate(records["image_id"].unique()):
        s = random_similarities(len(WORDS), rows=4, columns=6, seed=number) + (shift or {}).get(image_id, 0)
        for word, values in zip(WORDS, s.numpy().astype(np.float16), strict=True):
            grid = {"scale": 1.0, "flipped": False, "grid_height": 4, "grid_width": 6, "similarities": values.ravel()}
            rows.append({"image_id": image_id, "expression": word} | grid)
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_every_image_has_one_mask_per_label(records: pd.DataFrame) -> None:
    table = label_records(records, predictions(records), labels={word: [word] for word in WORDS}, rules=rules("mpa"))
    assert table.schema == LABELS
    frame = table.to_pandas()
    assert not frame.duplicated(["image_id", "label"]).any()
    for number, image in enumerate(records.drop_duplicates("image_id").itertuples()):
        masks = frame[frame["image_id"] == image.image_id].set_index("label")["mask"]
        s = random_similarities(3, rows=4, columns=6, seed=number).half().float()
        opened = Image.open(str(image.file_name)).convert("RGB")
        expected = segment_labels([s], opened, [1, 2, 3], rules("mpa"))
        assert set(masks.index) == {["background", *WORDS][k] for k in {0, *expected.ravel().tolist()}}
        for label, mask in masks.items():
            k = ["background", *WORDS].index(str(label))
            np.testing.assert_array_equal(decode_mask(mask, image.height, image.width), expected == k)


@pytest.mark.parametrize(("shift", "labels"), [(-100.0, ["background"]), (100.0, ["background", "cat"])])
def test_an_image_always_has_a_background_even_an_empty_one(
    records: pd.DataFrame, shift: float, labels: list[str]
) -> None:
    shifted = predictions(records, {"b": shift})
    shifted = shifted[shifted["expression"] == "cat"]
    frame = label_records(records, shifted, labels={"cat": ["cat"]}, rules=rules("mpa", confidence=0.5)).to_pandas()
    assert frame.loc[frame["image_id"] == "b", "label"].tolist() == labels
    height, width = records.loc[records["image_id"] == "b", ["height", "width"]].iloc[0]
    background = decode_mask(frame.loc[frame["image_id"] == "b", "mask"].iloc[0], height, width)
    assert background.all() == (shift < 0)
    assert background.any() == (shift < 0)


def test_the_name_of_a_class_with_one_word_does_not_matter(records: pd.DataFrame) -> None:
    plain = label_records(
        records, predictions(records), labels={word: [word] for word in WORDS}, rules=rules("spa", 0.5)
    )
    named = {word.upper(): [word] for word in WORDS}
    engineered = label_records(records, predictions(records), labels=named, rules=rules("spa", 0.5)).to_pandas()
    engineered["label"] = engineered["label"].str.lower()
    pd.testing.assert_frame_equal(engineered, plain.to_pandas())


def test_words_of_one_class_share_its_label(records: pd.DataFrame) -> None:
    together = {"cat": ["cat"], "dog": ["hound", "dog"]}
    frame = label_records(records, predictions(records), labels=together, rules=rules("mpa")).to_pandas()
    apart = label_records(records, predictions(records), labels={word: [word] for word in WORDS}, rules=rules("mpa"))
    apart = apart.to_pandas().replace({"label": {"hound": "dog"}})
    assert set(frame["label"]) == {"background", "cat", "dog"}
    for row in frame.itertuples():
        size = records.loc[records["image_id"] == row.image_id, ["height", "width"]].iloc[0]
        parts = apart.loc[(apart["image_id"] == row.image_id) & (apart["label"] == row.label), "mask"]
        union = np.any([decode_mask(part, *size) for part in parts], axis=0)
        np.testing.assert_array_equal(decode_mask(row.mask, *size), union)


def test_images_that_lack_the_prediction_of_a_word_are_refused_by_name(records: pd.DataFrame) -> None:
    table = predictions(records)
    absent = (table["image_id"] == "c") & (table["expression"] == "hound")
    with pytest.raises(ValueError, match="1 of 4 images lack the prediction of a word, c for one"):
        label_records(records, table[~absent], labels={"cat": ["cat"], "dog": ["dog", "hound"]}, rules=rules("mpa"))


def test_a_word_of_two_classes_is_refused(records: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"labels\.dog: 'hound' belongs to another class too"):
        labels = {"cat": ["cat", "hound"], "dog": ["dog", "hound"]}
        label_records(records, predictions(records), labels=labels, rules=rules("mpa"))


def test_the_oracle_is_refused_for_label_maps(records: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="the threshold oracle cuts the masks of records"):
        oracle = rules("mpa", threshold="oracle")
        label_records(records, predictions(records), labels={word: [word] for word in WORDS}, rules=oracle)
