"""Batches are functions of seed and iteration, with correct positives and regions."""

import dataclasses
import pickle
import pickletools
from collections import Counter
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tseg.images import open_image
from tseg.records import decode_mask, encode_mask
from tseg.training.batches import Batch, PixelBatches, WeakBatches, load_batches, share_of
from tseg.training.targets import identity_targets
from tseg.transforms import PADDING, mirror_words

from ..sampling import sampling

REGIONS = ("mask", "box")


def make(records: pd.DataFrame, classes: list[str] | None = None, **changed: Any) -> WeakBatches:
    return WeakBatches(records, sampling(**changed), classes=classes)


def make_pixels(records: pd.DataFrame, region: Literal["mask", "box"] = "mask", **changed: Any) -> PixelBatches:
    return PixelBatches(records, sampling(**changed), region=region)


PLAIN: dict[str, Any] = {"batch_size": 4, "scale": (1.0, 1.0), "flip": False}
"""Batches without randomness in the images: all four, the shorter side at the resolution of the crops."""


def plain(records: pd.DataFrame, **changed: Any) -> WeakBatches:
    return make(records, **PLAIN, **changed)


def expressions_by_image(records: pd.DataFrame) -> set[frozenset[str]]:
    return {frozenset(expressions) for _, expressions in records.groupby("file_name")["expression"]}


def assert_same(ours: Batch, theirs: Batch) -> None:
    for field in dataclasses.fields(Batch):
        one, other = (getattr(batch, field.name) for batch in (ours, theirs))
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("make", [make, make_pixels])
def test_a_batch_is_a_function_of_seed_and_iteration(records: pd.DataFrame, make: Any) -> None:
    """It does not depend on the batches requested before it."""
    in_order, at_random = make(records), make(records)
    visited = {iteration: at_random[iteration] for iteration in (7, 2, 9, 0, 5, 1, 8, 3, 6, 4)}
    for iteration in range(10):
        assert_same(in_order[iteration], visited[iteration])
    assert_same(visited[9], make(records)[9])


@pytest.mark.parametrize("make", [make, make_pixels])
def test_batches_of_another_seed_or_iteration_differ(records: pd.DataFrame, make: Any) -> None:
    first = make(records)[0]
    assert not torch.equal(first.images, make(records, seed=1)[0].images)
    assert not torch.equal(first.images, make(records)[1].images)


def test_images_come_in_the_same_order_and_crops_whatever_the_supervision(records: pd.DataFrame) -> None:
    for iteration in range(8):
        weak, *others = (
            batches[iteration] for batches in (make(records), make_pixels(records, "mask"), make_pixels(records, "box"))
        )
        for other in others:
            assert torch.equal(weak.images, other.images)
            assert weak.positives == other.positives


def test_a_loader_can_start_at_any_iteration_without_processes(records: pd.DataFrame) -> None:
    batches = make(records)
    loaded = list(load_batches(batches, 3, 6, num_workers=0))
    assert len(loaded) == 3
    for iteration, batch in enumerate(loaded, 3):
        assert_same(batch, make(records)[iteration])


@pytest.mark.parametrize("make", [make, make_pixels])
def test_processes_prepare_the_same_batches(records: pd.DataFrame, make: Any) -> None:
    for iteration, batch in enumerate(load_batches(make(records), 0, 3, num_workers=1)):
        assert_same(batch, make(records)[iteration])


def test_every_epoch_has_each_image_once_in_a_new_order(records: pd.DataFrame) -> None:
    """Epochs of four images and batches of three end at different iterations."""
    batches = make(records, flip=False)
    shown = [positives for iteration in range(24) for positives in batches[iteration].positives]
    epochs = [shown[start : start + 4] for start in range(0, 72, 4)]
    assert all(set(epoch) == expressions_by_image(records) for epoch in epochs)
    assert sum(before != after for before, after in pairwise(epochs)) > 10


def test_images_are_crops_of_the_right_image(records: pd.DataFrame) -> None:
    """Image d, 40 x 40, at resolution 40 without randomness is unchanged."""
    batch = plain(records, resolution=40)[0]
    of_d = records[records["image_id"] == "d"]
    pixels = np.asarray(Image.open(of_d["file_name"].iloc[0]).convert("RGB"))
    index = batch.positives.index(frozenset(of_d["expression"]))
    assert batch.images.dtype == torch.uint8
    np.testing.assert_array_equal(batch.images[index], pixels)


def test_a_large_photograph_is_decoded_at_a_reduced_size_and_seen_alike(records: pd.DataFrame) -> None:
    """The crop shows the whole image, four times as large as it is seen."""
    side = 160
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    path = records["file_name"].iloc[0]
    Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC).save(path, "JPEG", quality=95)
    of_image = records.head(1).assign(height=side, width=side)
    batch = make(of_image, **(PLAIN | {"batch_size": 1, "resolution": side // 4}))[0]
    seen = open_image(path).resize((side // 4, side // 4), Image.Resampling.BILINEAR)
    difference = np.abs(batch.images[0].numpy().astype(int) - np.asarray(seen).astype(int))
    assert 0 < difference.max() <= 16 and difference.mean() < 2


def test_a_worker_is_sent_no_object_for_each_record(records: pd.DataFrame) -> None:
    """The pickled batches of many records have as many parts as those of few."""
    many = pd.concat([records.assign(file_name=records["file_name"] + str(copy)) for copy in range(50)])
    for make_batches in (make, make_pixels):
        few_parts, many_parts = (
            sum(1 for _ in pickletools.genops(pickle.dumps(make_batches(each)))) for each in (records, many)
        )
        assert many_parts < 1.2 * few_parts + 300


def test_records_of_an_image_that_the_others_lack_are_refused_before_the_training(records: pd.DataFrame) -> None:
    known = records[records["image_id"] != "b"]
    with pytest.raises(ValueError, match=r"lack the image .*b\.png; make the pseudo labels again"):
        PixelBatches(records, sampling(), region="mask", known=known)


def test_a_worker_maps_the_records_and_is_sent_none(records: pd.DataFrame) -> None:
    long = records.assign(expression=records["expression"] + " far away" * 10_000)
    for make_batches in (make, make_pixels):
        short_batches, long_batches = make_batches(records), make_batches(long)
        sizes = [len(pickle.dumps(batches)) for batches in (short_batches, long_batches)]
        assert abs(sizes[1] - sizes[0]) < 100
        assert_same(pickle.loads(pickle.dumps(long_batches))[0], long_batches[0])


def test_expressions_are_distinct_and_limited_per_image(records: pd.DataFrame) -> None:
    for iteration in range(20):
        batch = make(records)[iteration]
        assert len(set(batch.expressions)) == len(batch.expressions) <= 3 * 2
        for positives in batch.positives:
            assert positives & set(batch.expressions)


@pytest.mark.parametrize("number", [1, 2, 3, 9])
def test_expressions_per_image_are_drawn_from_its_own(records: pd.DataFrame, number: int) -> None:
    batch = make(records, batch_size=1, flip=False, expressions_per_image=number)[0]
    assert len(batch.expressions) == min(number, len(batch.positives[0]))
    assert set(batch.expressions) <= batch.positives[0]


def test_every_expression_is_drawn_equally_often(records: pd.DataFrame) -> None:
    of_a = records[records["image_id"] == "a"]
    batches = make(of_a, batch_size=1, flip=False, expressions_per_image=1)
    counts = Counter(batches[iteration].expressions[0] for iteration in range(400))
    assert set(counts) == set(of_a["expression"])
    assert min(counts.values()) > 70


def test_an_image_is_positive_for_an_expression_drawn_for_another(records: pd.DataFrame) -> None:
    batches = plain(records, expressions_per_image=1)
    num_shared = 0
    for iteration in range(20):
        batch = batches[iteration]
        targets = identity_targets(batch.positives, batch.expressions)
        expected = [[expression in positives for expression in batch.expressions] for positives in batch.positives]
        assert targets.tolist() == expected
        assert set(batch.positives) == expressions_by_image(records)
        num_shared += int((targets.sum(dim=0) > 1).any() and targets.sum() > len(batch.positives))
    assert num_shared > 5


@pytest.mark.parametrize("flip_words", ["swap", "keep"])
def test_a_flip_swaps_left_and_right_only_if_flip_words_is_swap(records: pd.DataFrame, flip_words: str) -> None:
    """In image a, red is left of blue: if it appears on the right, the image was flipped."""
    of_a = records[records["image_id"] == "a"]
    batches = make(of_a, batch_size=1, scale=(1.0, 1.0), flip_words=flip_words)
    original = frozenset(of_a["expression"])
    mirrored = frozenset(map(mirror_words, original))
    num_flipped = 0
    for iteration in range(40):
        batch = batches[iteration]
        red, _, blue = (channel.clamp(min=128).sum(dim=0) for channel in batch.images[0].unbind(dim=2))
        flipped = bool(red.argmax() > blue.argmax())
        num_flipped += flipped
        assert batch.positives == [mirrored if flipped and flip_words == "swap" else original]
        assert set(batch.expressions) <= batch.positives[0]
    assert 10 < num_flipped < 30


def test_a_repeated_expression_of_an_image_counts_once(records: pd.DataFrame) -> None:
    twice = pd.concat([records, records], ignore_index=True)
    for iteration in range(4):
        assert_same(make(twice)[iteration], make(records)[iteration])


def test_no_mask_is_read_in_weak_supervision(records: pd.DataFrame) -> None:
    for iteration in range(4):
        without = records[["file_name", "image_id", "width", "height", "expression"]]
        assert_same(make(without)[iteration], make(records)[iteration])


CLASSES = ["square on the right", "blue square", "square on the left", "green square", "red square", "zebra"]


def test_semantic_batches_have_all_classes_in_order(records: pd.DataFrame) -> None:
    """Crops and flips are those of batches of expressions, and a flip does not change the name of a class."""
    of_c = records[records["image_id"] == "c"]
    num_flipped = 0
    for iteration in range(20):
        batch, other = make(of_c, CLASSES, batch_size=1)[iteration], make(of_c, batch_size=1)[iteration]
        assert batch.expressions == CLASSES
        assert batch.positives == [{"red square", "square on the right"}]
        assert torch.equal(batch.images, other.images)
        num_flipped += batch.positives != other.positives
    assert 3 < num_flipped < 17


def test_a_pair_is_an_image_and_an_expression_that_it_has(records: pd.DataFrame) -> None:
    for iteration in range(20):
        batch = make_pixels(records)[iteration]
        assert batch.pairs is not None
        assert batch.pairs.dtype == torch.int64
        assert set(batch.pairs[:, 1].tolist()) == set(range(len(batch.expressions)))
        assert len(set(batch.expressions)) == len(batch.expressions)
        for image, expression in batch.pairs.tolist():
            assert batch.expressions[expression] in batch.positives[image]


@pytest.mark.parametrize("region", REGIONS)
def test_records_without_masks_only_allow_weak_supervision(
    records: pd.DataFrame, region: Literal["mask", "box"]
) -> None:
    some = records.assign(**{region: [None, *records[region][1:-1], None]})
    with pytest.raises(ValueError, match=f"2 of the {len(records)} records to train on have no {region}; give every"):
        make_pixels(some, region)
    assert_same(make(some)[0], make(records)[0])


@pytest.mark.parametrize("number", [1, 3, 9])
def test_records_per_image_are_drawn_from_its_own(records: pd.DataFrame, number: int) -> None:
    """Repeated records count separately: their regions may differ."""
    twice = pd.concat([records, records], ignore_index=True)
    batch = make_pixels(twice, **PLAIN, expressions_per_image=number)[0]
    assert batch.pairs is not None
    numbers = batch.pairs[:, 0].bincount().tolist()
    assert sum(numbers) == min(4 * number, len(twice))
    assert all(1 <= drawn <= 2 * len(own) for drawn, own in zip(numbers, batch.positives, strict=True))


@pytest.mark.parametrize(
    ("available", "average", "drawn"),
    [
        ([3, 3, 3], 3, [[3, 3, 3]]),
        ([1, 9, 9], 3, [[1, 4, 4]]),
        ([1, 1, 9], 3, [[1, 1, 7]]),
        ([2, 3, 9], 3, [[2, 3, 4]]),
        ([2, 9, 9], 3, [[2, 3, 4], [2, 4, 3]]),  # the images take turns in a random order
        ([1, 2, 1], 3, [[1, 2, 1]]),
        ([9, 1, 9], 1, [[1, 1, 1]]),
        ([9], 4, [[4]]),
    ],
)
def test_a_batch_draws_the_average_times_its_images_where_it_can(
    available: list[int], average: int, drawn: list[list[int]]
) -> None:
    """Images with many expressions make up for images with few, as evenly as possible."""
    items = [[f"{image}-{index}" for index in range(number)] for image, number in enumerate(available)]
    chosen = sampling(expressions_per_image=average)
    seen = set()
    for iteration in range(20):
        own = chosen.draw(chosen.generator(iteration), items)
        assert own == chosen.draw(chosen.generator(iteration), items)
        assert all(len(set(some)) == len(some) and set(some) <= set(of) for some, of in zip(own, items, strict=True))
        seen.add(tuple(map(len, own)))
    assert seen == set(map(tuple, drawn))


def test_images_average_three_expressions_exactly_if_the_batch_has_enough(records: pd.DataFrame) -> None:
    """The images have 4, 4, 2 and 4 records: 12 are drawn of 14, by every kind of supervision."""
    distinct = records.assign(expression=[f"{row} red square" for row in range(len(records))])
    for iteration in range(8):
        weak = plain(distinct, expressions_per_image=3)[iteration]
        assert len(weak.expressions) == 12
        pairs = make_pixels(distinct, **PLAIN, expressions_per_image=3)[iteration].pairs
        assert pairs is not None
        assert sorted(pairs[:, 0].bincount().tolist()) == [2, 3, 3, 4]


def test_expressions_of_different_regions_are_apart_in_every_image(records: pd.DataFrame) -> None:
    """Also if an expression was drawn for another image; two expressions of one region are never apart."""
    groups = {
        name: of_image.groupby("expression")["group_id"].agg(set) for name, of_image in records.groupby("image_id")
    }
    num_triples = 0
    for iteration in range(20):
        batch = WeakBatches(records, sampling(**PLAIN, flip_words="keep"), apart=True)[iteration]
        assert batch.apart is not None and batch.apart.dtype == torch.int64
        names = [next(name for name in groups if set(groups[name].index) == own) for own in batch.positives]
        expected = {
            (image, frozenset((one, other)))
            for image, name in enumerate(names)
            for one in batch.positives[image] & set(batch.expressions)
            for other in batch.positives[image] & set(batch.expressions)
            if not groups[name][one] & groups[name][other]
        }
        found = [
            (image, frozenset((batch.expressions[one], batch.expressions[other])))
            for image, one, other in batch.apart.tolist()
        ]
        assert len(set(found)) == len(found)
        assert set(found) == expected
        num_triples += len(found)
    assert num_triples > 40


def test_an_expression_of_two_regions_is_not_apart_from_either(records: pd.DataFrame) -> None:
    """In image d, "thing" describes both squares. A flip mirrors the other expressions, not what they describe."""
    of_d = records[records["image_id"] == "d"]
    both = pd.concat([of_d, of_d.assign(expression="thing")], ignore_index=True)
    batches = WeakBatches(both, sampling(batch_size=1, expressions_per_image=9), apart=True)
    upright = {
        frozenset({"green square", "red square"}),
        frozenset({"green square", "square on the right"}),
        frozenset({"square on the left", "red square"}),
        frozenset({"square on the left", "square on the right"}),
    }
    seen = set()
    for iteration in range(12):
        batch = batches[iteration]
        assert batch.apart is not None and len(batch.expressions) == 5
        seen.add(frozenset(frozenset(batch.expressions[index] for index in pair) for _, *pair in batch.apart.tolist()))
    assert seen == {frozenset(upright), frozenset(frozenset(map(mirror_words, pair)) for pair in upright)}


def test_each_region_is_that_of_the_records_expression(records: pd.DataFrame) -> None:
    """Without rescaling, each mask and each box is exactly the record's."""
    of_d = records[records["image_id"] == "d"]
    truth = {row.expression: decode_mask(row.mask, 40, 40) for row in of_d.itertuples()}
    for region in REGIONS:
        batch = make_pixels(of_d, region, **PLAIN | {"batch_size": 1}, resolution=40, expressions_per_image=9)[0]
        assert batch.pairs is not None and batch.masks is not None and batch.counted is not None
        assert (batch.masks.dtype, batch.counted.dtype, len(batch.masks)) == (torch.bool, torch.bool, 4)
        assert batch.counted.all()
        for (_, expression), mask in zip(batch.pairs.tolist(), batch.masks, strict=True):
            np.testing.assert_array_equal(mask, truth[batch.expressions[expression]])


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.6, 1.6)])
def test_masks_and_boxes_are_cropped_and_flipped_as_the_image_is(
    records: pd.DataFrame, region: Literal["mask", "box"], scale: tuple[float, float]
) -> None:
    """Each square equals its box and is found in the image by its colour, as far as the crop includes it."""
    colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}
    coloured = records[records["expression"].str.split().str[0].isin(list(colours))]
    batches = make_pixels(coloured, region, scale=scale, resolution=40, flip_words="keep")
    sizes = []
    for iteration in range(40):
        batch = batches[iteration]
        assert batch.pairs is not None and batch.masks is not None
        for (image, expression), mask in zip(batch.pairs.tolist(), batch.masks.numpy(), strict=True):
            own = np.array(colours[batch.expressions[expression].split()[0]], bool)
            pixels = batch.images[image].numpy().astype(int)
            found = pixels[..., own].min(axis=2) - pixels[..., ~own].max(axis=2) > 63
            # Bilinear and nearest filters may disagree only along the square's rim.
            inner = mask[1:-1, 1:-1] & mask[2:, 1:-1] & mask[:-2, 1:-1] & mask[1:-1, 2:] & mask[1:-1, :-2]
            outer = np.pad(mask, 1)
            outer = mask | outer[2:, 1:-1] | outer[:-2, 1:-1] | outer[1:-1, 2:] | outer[1:-1, :-2]
            assert found[1:-1, 1:-1][inner].all()
            assert not found[~outer].any()
            if scale == (1.0, 1.0):
                np.testing.assert_array_equal(found, mask)
            sizes.append(mask.sum())
    assert min(sizes) < 14 * 14 < max(sizes) or scale == (1.0, 1.0)


def grid(text: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in line] for line in text.split()])


@pytest.mark.parametrize(
    ("box", "expected", "mirrored"),
    [
        ([1, 0, 2, 3], ".##. .##. .##. ....", ".##. .##. .##. ...."),
        ([0, 1, 1, 2], ".... #... #... ....", ".... ...# ...# ...."),
        ([-3.0, 2.4, 5.0, 9.0], ".... .... ##.. ##..", ".... .... ..## ..##"),
        ([1.6, -1.0, 1.3, 2.6], "..#. ..#. .... ....", ".#.. .#.. .... ...."),
        ([0.6, 0.6, 0.8, 0.8], ".... .... .... ....", ".... .... .... ...."),
        ([5.0, 1.0, 2.0, 2.0], ".... .... .... ....", ".... .... .... ...."),
    ],
)
def test_a_box_drawn_by_hand(records: pd.DataFrame, box: list[float], expected: str, mirrored: str) -> None:
    """Its pixels are those whose centres lie inside; nothing lies outside the image."""
    # The expression reveals a flip: it becomes "right".
    of_d = records[records["image_id"] == "d"].head(1).assign(box=[box], height=4, width=4, expression="left")
    Image.new("RGB", (4, 4)).save(of_d["file_name"].iloc[0])
    batches = make_pixels(of_d, "box", batch_size=1, scale=(1.0, 1.0), resolution=4)
    seen = {batch.expressions[0]: batch.masks for batch in (batches[iteration] for iteration in range(12))}
    assert set(seen) == {"left", "right"}
    for expression, drawn in (("left", expected), ("right", mirrored)):
        mask = seen[expression]
        assert mask is not None
        np.testing.assert_array_equal(mask[0], grid(drawn))


def test_ignored_pixels_do_not_count_and_padding_does(records: pd.DataFrame) -> None:
    """The left half of image d is ignored; shrunk to half its size, it lies within padding."""
    half = np.zeros((40, 40), bool)
    half[:, :20] = True
    of_d = records[records["image_id"] == "d"].assign(ignore=encode_mask(half))
    batch = make_pixels(of_d, batch_size=1, scale=(0.5, 0.5), flip=False, resolution=40)[0]
    assert batch.counted is not None and batch.masks is not None
    uncounted = ~batch.counted[0].numpy()
    rows, columns = np.flatnonzero(uncounted.any(axis=1)), np.flatnonzero(uncounted.any(axis=0))
    assert (len(rows), len(columns), uncounted.sum()) == (20, 10, 200)
    inside = np.zeros((40, 40), bool)
    inside[rows[0] : rows[0] + 20, columns[0] : columns[0] + 20] = True
    padding = (batch.images[0] == PADDING).all(dim=2).numpy()
    assert padding[~inside].all()
    assert not batch.masks[:, ~torch.from_numpy(inside)].any()


def test_a_larger_share_contains_every_image_of_a_smaller_one(records: pd.DataFrame) -> None:
    many = pd.concat([records.assign(file_name=records["file_name"] + str(copy)) for copy in range(10)])
    images = [set(share_of(many, share)["file_name"]) for share in (0.001, 0.1, 0.25, 0.5, 0.9, 1)]
    assert [len(files) for files in images] == [1, 4, 10, 20, 36, 40]
    assert all(smaller < larger for smaller, larger in pairwise(images))
    assert set(share_of(many, 0.5, seed=1)["file_name"]) != images[3]


def test_a_share_has_whole_images_in_the_records_order(records: pd.DataFrame) -> None:
    half = share_of(records, 0.5)
    expected = records[records["file_name"].isin(half["file_name"].tolist())].reset_index(drop=True)
    pd.testing.assert_frame_equal(half, expected)
    assert half["file_name"].nunique() == 2


def test_a_share_of_one_keeps_all_records(records: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(share_of(records, 1), records)


def test_an_image_has_expressions_whose_records_have_no_region(records: pd.DataFrame) -> None:
    """A student must not learn that an image lacks what its teacher did not find there."""
    found = records[records["expression"] != "red square"]
    for known, expected in ((None, found), (records, records)):
        batch = PixelBatches(found, sampling(**PLAIN), region="mask", known=known)[0]
        assert set(batch.positives) == expressions_by_image(expected[expected["image_id"].isin(found["image_id"])])
        assert "red square" not in batch.expressions
