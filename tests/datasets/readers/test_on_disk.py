import random

import pytest

from tseg.datasets.readers.on_disk import DistinctStrings, Lookup, id_text


def test_a_lookup_keeps_the_later_of_two_items_with_one_id():
    items = [{"id": 9, "a": 1}, {"id": "x", "b": [None, 1.5]}, {"id": "9", "a": 2}, {"name": "without an id"}]
    lookup = Lookup(items, "id")
    assert [lookup.get(id) for id in ("9", "x", "8", "without an id")] == [items[2], items[1], None, None]


def test_a_lookup_keeps_only_the_requested_items():
    lookup = Lookup(({"id": number} for number in range(100)), "id", {"7", "93", "200"})
    assert [number for number in range(300) if lookup.get(str(number))] == [7, 93]


def test_distinct_strings_behave_like_a_set():
    names = [str(number) for number in random.Random(0).choices(range(500), k=2000)] + ["", "\0", "ä", "\ud800"]
    distinct, seen = DistinctStrings(), set()
    for name in names:
        assert distinct.add(name) == (name not in seen)
        seen.add(name)
    assert len(distinct) == len(seen)


@pytest.mark.parametrize(
    ("id", "text"),
    [(9, "9"), ("9", "9"), (-3, "-3"), (1.5, "1.5"), (None, "None"), (True, "True"), ([9], "<list>"), ({}, "<dict>")],
)
def test_an_id_becomes_text_and_any_other_value_its_type(id, text):
    assert id_text(id) == text


def test_huge_numbers_and_nested_lists_are_not_ids():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert (id_text(10**10_000), id_text(nested)) == ("<int>", "<list>")
