import numpy as np
import pytest

from tseg.datasets.readers.annotations import RecordError, make_record, mask_box, polygon_points, region_points
from tseg.records import RECORDS, encode_mask

USUAL = {
    "record_id": "r",
    "image_id": "i",
    "file_name": "i.jpg",
    "size": (3, 4),
    "expression": " big\tdog ",
    "group_id": "g",
    "mask": encode_mask(np.eye(3, 4, dtype=bool)),
    "tags": [],
}


def test_a_record_has_the_columns_of_the_schema_and_the_box_of_its_mask():
    record = make_record(**USUAL)
    assert list(record) == RECORDS.names
    assert (record["height"], record["width"], record["expression"]) == (3, 4, "big dog")
    assert record["box"] == [0, 0, 3, 3]
    assert make_record(**USUAL, box=[0.5, 0, 2, 2])["box"] == [0.5, 0, 2, 2]


def test_a_record_without_a_mask_has_no_box_and_may_have_no_size():
    record = make_record(**USUAL | {"mask": None})
    assert (record["mask"], record["box"], record["height"], record["width"]) == (None, None, 3, 4)
    record = make_record(**USUAL | {"mask": None, "size": None})
    assert (record["box"], record["height"], record["width"]) == (None, None, None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expression": " \t\n"}, "its expression is empty; write one"),
        ({"expression": "\ufeff\u200b"}, "its expression has no letter, digit or symbol that can be seen; write one"),
        ({"expression": "..."}, "its expression has no letter, digit or symbol that can be seen; write one"),
        ({"mask": encode_mask(np.zeros((3, 4), bool))}, "its mask is empty; draw the region inside the image"),
        ({"expression": "dog \ud83d"}, "has an unpaired surrogate; remove it"),
        ({"record_id": "\udc00"}, "has an unpaired surrogate; remove it"),
        ({"file_name": "\udc00.jpg"}, "has an unpaired surrogate; remove it"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused(changes, reason):
    with pytest.raises(RecordError, match=reason):
        make_record(**USUAL | changes)


def test_the_box_of_a_mask_encloses_its_pixels():
    random = np.random.default_rng(0)
    for _ in range(100):
        mask = random.random((9, 7)) < 0.05
        y, x = np.nonzero(mask)
        if len(x):
            expected = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert mask_box(encode_mask(mask), mask.shape) == expected


def test_points_are_read_from_pairs_or_a_flat_list():
    expected = np.array([[1, 2], [3, 4.5], [5, 6]])
    np.testing.assert_array_equal(polygon_points([[1, 2], [3, 4.5], [5, 6]]), expected)
    np.testing.assert_array_equal(polygon_points([1, 2, 3, 4.5, 5, 6]), expected)
    assert polygon_points([]).shape == (0, 2)


NESTED = [1, 2]
for _ in range(500):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "polygon",
    [
        *(None, 7, "7", "a b", {}, {"x": 1}, True, [None], [[1, 2], [3]], [[1, 2, 3]], [1, 2, 3], [[[1, 2]]], NESTED),
        *([1, float("nan")], [1, float("inf")], [1, 1e6], [1, -(10**400)], [1, 1j], [[1, 2], 3], [["x", 1]]),
    ],
)
def test_a_value_that_is_not_a_polygon_is_refused(polygon):
    with pytest.raises(RecordError, match="one of its polygons is not a list of points x, y; correct the polygon"):
        polygon_points(polygon)


def test_polygons_with_too_long_outlines_are_refused():
    far = [[0, 0, 9e4, 9e4]]
    assert len(region_points(far * 11)) == 11
    with pytest.raises(RecordError, match="its polygons are longer than 1,000,000 pixels in total; simplify them"):
        region_points(far * 12)
    with pytest.raises(RecordError, match="its polygons are longer than 1,000,000 pixels in total; simplify them"):
        region_points([[0, 0, 9e4, 9e4] * 12])
