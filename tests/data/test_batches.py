"""Batches of weak supervision: a function of seed and iteration, and honest about what is positive."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tseg.data.batches import Batch, WeakBatches, load_batches
from tseg.data.transforms import mirror_words
from tseg.training.targets import identity_targets


def make(records: pd.DataFrame, **changed: Any) -> WeakBatches:
    settings: dict[str, Any] = {
        "batch_size": 3,
        "expressions_per_picture": 2,
        "resolution": 32,
        "scale": (0.8, 1.25),
        "flip": True,
        "flip_words": "swap",
        "mean": 0.5,
        "std": 0.5,
        "seed": 0,
    }
    return WeakBatches(records, **(settings | changed))


def plain(records: pd.DataFrame, **changed: Any) -> WeakBatches:
    """Batches without chance in the pictures: all four, the shorter side at the crops' own resolution."""
    return make(records, batch_size=4, scale=(1.0, 1.0), flip=False, **changed)


def expressions_by_picture(records: pd.DataFrame) -> set[frozenset[str]]:
    return {frozenset(expressions) for _, expressions in records.groupby("file_name")["expression"]}


def assert_same(ours: Batch, theirs: Batch) -> None:
    assert torch.equal(ours.pictures, theirs.pictures)
    assert ours.expressions == theirs.expressions
    assert ours.positives == theirs.positives


def test_a_batch_is_a_function_of_seed_and_iteration(records: pd.DataFrame) -> None:
    """Whichever batches were asked for before it."""
    in_order, at_random = make(records), make(records)
    visited = {iteration: at_random[iteration] for iteration in (7, 2, 9, 0, 5, 1, 8, 3, 6, 4)}
    for iteration in range(10):
        assert_same(in_order[iteration], visited[iteration])
    assert_same(visited[9], make(records)[9])


def test_batches_of_another_seed_or_iteration_differ(records: pd.DataFrame) -> None:
    first = make(records)[0]
    assert not torch.equal(first.pictures, make(records, seed=1)[0].pictures)
    assert not torch.equal(first.pictures, make(records)[1].pictures)


def test_a_loader_starts_anywhere_and_needs_no_processes_for_it(records: pd.DataFrame) -> None:
    batches = make(records)
    loaded = list(load_batches(batches, 3, 6, num_workers=0))
    assert len(loaded) == 3
    for iteration, batch in enumerate(loaded, 3):
        assert_same(batch, make(records)[iteration])


def test_processes_prepare_the_same_batches(records: pd.DataFrame) -> None:
    for iteration, batch in enumerate(load_batches(make(records), 0, 3, num_workers=1)):
        assert_same(batch, make(records)[iteration])


def test_every_epoch_shows_each_picture_once_in_another_order(records: pd.DataFrame) -> None:
    """Epochs of four pictures do not end where batches of three do."""
    batches = make(records, flip=False)
    shown = [positives for iteration in range(24) for positives in batches[iteration].positives]
    epochs = [shown[start : start + 4] for start in range(0, 72, 4)]
    assert all(set(epoch) == expressions_by_picture(records) for epoch in epochs)
    assert sum(before != after for before, after in pairwise(epochs)) > 10


def test_pictures_are_normalised_crops_of_the_right_picture(records: pd.DataFrame) -> None:
    """Picture d, 40 x 40, brought to 40 without any chance is itself."""
    batch = plain(records, resolution=40)[0]
    of_d = records[records["image_id"] == "d"]
    pixels = np.asarray(Image.open(of_d["file_name"].iloc[0]).convert("RGB"))
    place = batch.positives.index(frozenset(of_d["expression"]))
    assert batch.pictures.dtype == torch.float32
    np.testing.assert_allclose(batch.pictures[place], (pixels.transpose(2, 0, 1) / 255 - 0.5) / 0.5, atol=1e-6)


def test_expressions_are_distinct_and_as_many_as_asked_for_at_most(records: pd.DataFrame) -> None:
    for iteration in range(20):
        batch = make(records)[iteration]
        assert len(set(batch.expressions)) == len(batch.expressions) <= 3 * 2
        for positives in batch.positives:
            assert positives & set(batch.expressions)


@pytest.mark.parametrize("number", [1, 2, 3, 9])
def test_each_picture_is_asked_for_so_many_of_its_expressions(records: pd.DataFrame, number: int) -> None:
    batch = make(records, batch_size=1, flip=False, expressions_per_picture=number)[0]
    assert len(batch.expressions) == min(number, len(batch.positives[0]))
    assert set(batch.expressions) <= batch.positives[0]


def test_every_expression_is_drawn_equally_often(records: pd.DataFrame) -> None:
    of_a = records[records["image_id"] == "a"]
    batches = make(of_a, batch_size=1, flip=False, expressions_per_picture=1)
    counts = Counter(batches[iteration].expressions[0] for iteration in range(400))
    assert set(counts) == set(of_a["expression"])
    assert min(counts.values()) > 70


def test_a_picture_is_positive_for_an_expression_drawn_for_another(records: pd.DataFrame) -> None:
    batches = plain(records, expressions_per_picture=1)
    num_shared = 0
    for iteration in range(20):
        batch = batches[iteration]
        targets = identity_targets(batch.positives, batch.expressions)
        expected = [[expression in positives for expression in batch.expressions] for positives in batch.positives]
        assert targets.tolist() == expected
        assert set(batch.positives) == expressions_by_picture(records)
        num_shared += int((targets.sum(dim=0) > 1).any() and targets.sum() > len(batch.positives))
    assert num_shared > 5


@pytest.mark.parametrize("flip_words", ["swap", "keep"])
def test_a_flipped_picture_has_its_expressions_as_told(records: pd.DataFrame, flip_words: str) -> None:
    """Red is marked left of blue in picture a: where it appears right of it, the picture was flipped."""
    of_a = records[records["image_id"] == "a"]
    batches = make(of_a, batch_size=1, scale=(1.0, 1.0), flip_words=flip_words)
    said = frozenset(of_a["expression"])
    mirrored = frozenset(map(mirror_words, said))
    num_flipped = 0
    for iteration in range(40):
        batch = batches[iteration]
        red, _, blue = (channel.clamp(min=0).sum(dim=0) for channel in batch.pictures[0])
        flipped = bool(red.argmax() > blue.argmax())
        num_flipped += flipped
        assert batch.positives == [mirrored if flipped and flip_words == "swap" else said]
        assert set(batch.expressions) <= batch.positives[0]
    assert 10 < num_flipped < 30


def test_an_expression_said_twice_of_a_picture_counts_once(records: pd.DataFrame) -> None:
    twice = pd.concat([records, records], ignore_index=True)
    for iteration in range(4):
        assert_same(make(twice)[iteration], make(records)[iteration])
