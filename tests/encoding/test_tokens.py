"""Tokens are read as they were written, an interrupted encoding goes on, and nothing stale is read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tseg.encoding import tokens as module
from tseg.encoding.tokens import Entry, Tokens, write_tokens
from tseg.provenance import TokensProvenance

ENTRIES = [
    Entry(key, view, height, width) for key, height, width in [("a", 2, 3), ("b", 1, 5), ("c", 4, 4)] for view in (0, 1)
]


def provenance(encoder: str = "one") -> TokensProvenance:
    return TokensProvenance(encoder=encoder, num_features=7, images="few", views=None)


def values(entry: Entry) -> np.ndarray:
    seed = [ord(entry.key), entry.view]
    return np.random.default_rng(seed).normal(size=(entry.num_tokens, 7)).astype(np.float32)


def encode(members: Sequence[Entry]) -> Iterator[np.ndarray]:
    yield from map(values, members)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENS_PER_SHARD", 10)


def test_every_entry_is_read_as_it_was_written_to_float16(tmp_path: Path, small_shards: None) -> None:
    write_tokens(tmp_path / "t.parquet", ENTRIES, encode, provenance())
    assert len(list((tmp_path / "t").iterdir())) == 4
    found = Tokens(tmp_path / "t.parquet")
    for entry in ENTRIES:
        expected = values(entry).astype(np.float16).reshape(entry.height, entry.width, 7)
        np.testing.assert_array_equal(found[entry.key, entry.view], expected)


def test_an_interrupted_encoding_computes_only_what_is_missing(tmp_path: Path, small_shards: None) -> None:
    write_tokens(tmp_path / "whole.parquet", ENTRIES, encode, provenance())

    def fails(members: Sequence[Entry]) -> Iterator[np.ndarray]:
        for entry in members:
            if entry.key == "c":
                raise KeyboardInterrupt
            yield values(entry)

    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path / "t.parquet", ENTRIES, fails, provenance())
    assert not (tmp_path / "t.parquet").exists()
    computed: list[str] = []

    def records(members: Sequence[Entry]) -> Iterator[np.ndarray]:
        computed.extend(entry.key for entry in members)
        yield from encode(members)

    write_tokens(tmp_path / "t.parquet", ENTRIES, records, provenance())
    assert set(computed) == {"c"}
    assert (tmp_path / "t.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    for shard in (tmp_path / "t").iterdir():
        assert shard.read_bytes() == (tmp_path / "whole" / shard.name).read_bytes()


def test_shards_of_another_encoder_are_removed(tmp_path: Path) -> None:
    write_tokens(tmp_path / "t.parquet", ENTRIES, encode, provenance())
    before = set((tmp_path / "t").iterdir())
    write_tokens(tmp_path / "t.parquet", ENTRIES, encode, provenance("another"))
    assert before.isdisjoint((tmp_path / "t").iterdir())


def test_a_missing_shard_or_view_is_named(tmp_path: Path) -> None:
    write_tokens(tmp_path / "t.parquet", ENTRIES, encode, provenance())
    with pytest.raises(ValueError, match="no view 2 of 'a'; encode these records again"):
        Tokens(tmp_path / "t.parquet")["a", 2]
    next((tmp_path / "t").iterdir()).unlink()
    with pytest.raises(ValueError, match=r"does not exist; delete .*t\.parquet and make it again with `tseg encode`"):
        Tokens(tmp_path / "t.parquet")


def test_tokens_that_do_not_fit_float16_are_refused(tmp_path: Path) -> None:
    def large(members: Sequence[Entry]) -> Iterator[np.ndarray]:
        yield from (1e6 * np.ones((entry.num_tokens, 7), np.float32) for entry in members)

    with pytest.raises(ValueError, match="'a' do not fit float16"), np.errstate(over="ignore"):
        write_tokens(tmp_path / "t.parquet", ENTRIES, large, provenance())


def test_tokens_that_do_not_fit_the_disk_are_refused_before_any_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(ValueError, match="do not fit on the disk; free space, or use fewer views"):
        write_tokens(tmp_path / "t.parquet", ENTRIES, lambda _: pytest.fail("computed"), provenance())


def test_files_that_are_no_shards_stay(tmp_path: Path) -> None:
    """The folder of tokens may be one of photographs, by a slip of the option --output."""
    (tmp_path / "images/more").mkdir(parents=True)
    (tmp_path / "images/cat.npy").touch()
    write_tokens(tmp_path / "images.parquet", ENTRIES, encode, provenance("one"))
    write_tokens(tmp_path / "images.parquet", ENTRIES, encode, provenance("other"))
    shards = {f"{provenance('other').digest()}-00000.npy"}
    assert {path.name for path in (tmp_path / "images").iterdir()} == shards | {"cat.npy", "more"}
    with pytest.raises(ValueError, match=r"tokens has no suffix, .*; name a \.parquet file"):
        write_tokens(tmp_path / "tokens", ENTRIES, encode, provenance())
