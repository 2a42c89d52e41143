import itertools
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tseg.datasets.readers import json_stream
from tseg.datasets.readers.json_stream import stream_list, stream_member

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=3)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda size: monkeypatch.setattr(json_stream, "CHUNK", size)


def write(folder: Path | str, content: str | bytes) -> Path:
    path = Path(folder, "tasks.json")
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


def in_chunks(size: int, stream: Callable[[], Iterator[dict]]) -> list[dict]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", size)
        return list(stream())


def same(ours: Any, theirs: Any) -> bool:
    return json.dumps(ours) == json.dumps(theirs)  # NaN != NaN


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(OBJECTS, max_size=5), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_a_list_equals_that_of_the_json_module_wherever_chunks_end(items, chunk, indent, ascii_only):
    with TemporaryDirectory() as folder:
        path = write(folder, json.dumps(items, indent=indent, ensure_ascii=ascii_only))
        assert same(in_chunks(chunk, lambda: stream_list(path)), items)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.permutations(["info", "images", "annotations"]), VALUES, st.lists(OBJECTS, max_size=4), st.integers(1, 40))
def test_a_member_is_read_whatever_surrounds_it(order, info, items, chunk):
    content = {"info": info, "images": items[::-1], "annotations": items}
    with TemporaryDirectory() as folder:
        path = write(folder, json.dumps({key: content[key] for key in order}))
        assert same(in_chunks(chunk, lambda: stream_member(path, "annotations")), items)
        assert same(in_chunks(chunk, lambda: stream_member(path, "images")), items[::-1])


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(st.lists(OBJECTS, min_size=1, max_size=3), st.data())
def test_a_damaged_list_equals_that_of_the_json_module_or_raises_an_error_that_names_the_file(items, data):
    content = bytearray(json.dumps(items).encode())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] = data.draw(st.integers(0, 255))
    else:
        del content[position:]
    with TemporaryDirectory() as folder:
        path = write(folder, bytes(content))
        try:
            found = in_chunks(data.draw(st.integers(1, 40)), lambda: stream_list(path))
        except ValueError as error:
            assert str(error).startswith(str(path))
        else:
            assert same(found, json.loads(content))


def test_objects_before_the_damage_are_whole(tmp_path):
    stream = stream_list(write(tmp_path, '[{"a": 1}, {"a": 2}, {"a": '))
    assert [next(stream), next(stream)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(
        ValueError, match=r"tasks\.json is not JSON \(Expecting value at character 27\); fetch it again"
    ):
        next(stream)


def test_nan_and_infinity_are_read_so_that_they_cost_one_record(tmp_path):
    (one, other) = stream_list(write(tmp_path, '[{"x": NaN}, {"x": -Infinity}]'))
    assert str(one["x"]) == "nan"
    assert other["x"] == -float("inf")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("<html>", "is not JSON"),
        ('[{"a": 1}', "is not JSON"),
        ('[{"a": 1} {"a": 2}]', "is not JSON"),
        ('[{"a": 1},]', "is not JSON"),
        ('[{"a": 1}] []', "is not JSON"),
        ('[{"a": ' + "9" * 5000 + "}]", "is not JSON"),
        ("[" * 1_000_000, "is not JSON"),
        ('[{"a": ' + "[" * 1_000_000, "is not JSON"),
        ('[{"a": ' * 1_000_000, "is not JSON"),
        ("{}", "does not hold a list of objects"),
        ("7", "does not hold a list of objects"),
        ("[1]", "does not hold a list of objects"),
        ("[[]]", "does not hold a list of objects"),
        ('["a"]'.encode("utf-16"), "is not JSON"),
        (b'[{"a": "\xff"}]', "is not JSON"),
    ],
)
def test_the_error_names_a_file_that_is_not_a_list_of_objects(tmp_path, content, message):
    with pytest.raises(
        ValueError, match=rf"tasks\.json {message}.*; (fetch it again|replace it with the official file)"
    ):
        list(stream_list(write(tmp_path, content)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "does not hold an object; replace"),
        ("{}", "has no list `images` of objects; fetch"),
        ('{"images": {}}', "has no list `images` of objects; fetch"),
        ('{"images": [1]}', "has no list `images` of objects; fetch"),
        ('{"info": [{"images": []}]}', "has no list `images` of objects; fetch"),
        ('{"info": 1 "images": []}', "is not JSON .*; fetch"),
        ('{"info": [1, 2}', "is not JSON .*; fetch"),
        ('{"info": ' + "[" * 1_000_000, "is not JSON .*; fetch"),
        ('{"images"', "is not JSON .*; fetch"),
        (b'{"images": [], "info": "\xc2"}', "is not JSON .*; fetch"),
    ],
)
def test_the_error_names_a_file_without_the_list(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"tasks\.json {message}"):
        list(stream_member(write(tmp_path, content), "images"))


def test_a_byte_order_mark_is_skipped(tmp_path):
    assert list(stream_list(write(tmp_path, b"\xef\xbb\xbf[{}]"))) == [{}]


def test_the_error_names_a_missing_file(tmp_path):
    for stream in (stream_list(tmp_path / "tasks.json"), stream_member(tmp_path / "tasks.json", "images")):
        with pytest.raises(ValueError, match=r"tasks\.json does not exist; put the data set's annotation files there"):
            next(stream)


def test_an_object_that_is_too_large_is_refused_after_any_number_of_others(tmp_path, monkeypatch, small_chunks):
    small_chunks(64)
    monkeypatch.setattr(json_stream, "MAX_VALUE", 1000)
    stream = stream_list(write(tmp_path, json.dumps([{"a": "x" * 900}] * 50 + [{"a": "x" * 3000}])))
    assert len(list(itertools.islice(stream, 50))) == 50
    with pytest.raises(ValueError, match=r"tasks\.json is not JSON \(.*, or an object has more than 1,000"):
        next(stream)


def test_the_parsing_of_a_long_object_stays_linear(tmp_path, monkeypatch, small_chunks):
    class Counting(json.JSONDecoder):
        num_characters = 0

        def raw_decode(self, s, idx=0):
            Counting.num_characters += len(s) - idx
            return super().raw_decode(s, idx)

    small_chunks(16)
    monkeypatch.setattr(json_stream, "_DECODER", Counting())
    content = json.dumps([{"a": list(range(20_000))}])
    assert len(list(stream_list(write(tmp_path, content)))) == 1
    assert Counting.num_characters < 4 * len(content)


def peak(path: Path) -> int:
    tracemalloc.start()
    try:
        for _ in stream_list(path):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_objects(tmp_path, small_chunks):
    small_chunks(2**14)
    task = {"Polygons": [[[[x / 7, x / 3] for x in range(100)]]]}
    peaks = [peak(write(tmp_path, json.dumps([task] * number))) for number in (50, 1000)]
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("value", ["1" + "0" * 400, "1e400", "1180591620717411303424", r'"\ud83d"'])
def test_a_value_beyond_the_json_standard_costs_one_record(tmp_path, value):
    content = f'[{{"a": 1}}, {{"a": {value}}}, {{"a": 3}}]'
    assert list(stream_list(write(tmp_path, content))) == json.loads(content)
