"""Files of tokens: float16 arrays in shards, mapped into memory, and a Parquet index of what is where."""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from tseg.files import atomic_write
from tseg.progress import progress
from tseg.provenance import TokensProvenance
from tseg.records import TOKENS, read, write

TOKENS_PER_SHARD = 2**17
"""A shard is closed at this number of tokens. An interrupted encoding loses at most one shard."""
DTYPE = np.dtype(np.float16)
_SHARD_NAME = re.compile(r"\.?[0-9a-f]{16}-\d{5,}\.npy(\.partial\.npy)?")
"""The file name of a shard, or of one that an interrupted call left unfinished."""


class Entry(NamedTuple):
    """One view of an image, or one expression."""

    key: str
    """The image's id, or the expression."""
    view: int
    """Number of the view, from 0; always 0 for an expression."""
    height: int
    """Rows of patches; 1 for an expression."""
    width: int
    """Columns of patches; 1 for an expression."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens, in reading order."""
        return self.height * self.width


class Tokens:
    """The tokens that `write_tokens` wrote. Only the index is held in memory."""

    def __init__(self, path: Path):
        """Open the index. Raises ValueError if it, or a shard, is missing, or of another kind or version."""
        index, self.provenance = read(path, TokensProvenance)
        numbers: list[int] = sorted(set(index["shard"]))
        self.shards = [_shard(path, self.provenance, number) for number in numbers]
        for shard in self.shards:
            if not shard.exists():
                raise ValueError(f"{shard} does not exist; delete {path} and make it again with `tseg encode`")
        keys, *columns = (index[name].tolist() for name in TOKENS.names)
        self.spans: dict[str, dict[int, tuple[int, ...]]] = {}
        for key, view, *span in zip(keys, *columns, strict=True):
            self.spans.setdefault(key, {})[view] = tuple(span)

    def views(self, key: str) -> list[np.ndarray]:
        """The tokens, float16 (height, width, D), of all views of a key, in order."""
        return [self[key, view] for view in sorted(self.spans.get(key, [0]))]

    def __getitem__(self, entry: tuple[str, int]) -> np.ndarray:
        """Tokens, float16 (height, width, D), of a key and a view. Raises ValueError if there are none."""
        key, view = entry
        if view not in self.spans.get(key, {}):
            raise ValueError(f"{self.shards[0].parent} has no view {view} of {key!r}; encode these records again")
        height, width, shard, start = self.spans[key][view]
        return _open(self.shards[shard])[start : start + height * width].reshape(height, width, -1)


def write_tokens(
    path: Path,
    entries: Iterable[Entry],
    encode: Callable[[Sequence[Entry]], Iterator[np.ndarray]],
    provenance: TokensProvenance,
) -> None:
    """Write the tokens of all `entries` to shards in the folder `path.with_suffix("")`, then the index to `path`.

    `encode` maps consecutive entries to the tokens of each, (num_tokens, D). An interrupted call with the same
    `provenance` goes on where it stopped; shards of another provenance are removed, and no other file. Raises
    ValueError if `path` has no suffix, the disk has too little space, or a token does not fit float16.
    """
    if not path.suffix:
        raise ValueError(f"{path} has no suffix, so its folder would have the same name; name a .parquet file")
    shards = list(_split(entries))
    wanted = {_shard(path, provenance, number): members for number, members in enumerate(shards)}
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if _SHARD_NAME.fullmatch(file.name) and file not in wanted:
            file.unlink()
    missing = {file: members for file, members in wanted.items() if not file.exists()}
    _check_space(folder, wanted, missing, provenance.num_features)
    total = sum(map(len, shards))
    bar = progress((), "encode", "views", total, initial=total - sum(map(len, missing.values())))
    for file, members in missing.items():
        with atomic_write(file, remember=False) as partial:
            shape = (_num_tokens(members), provenance.num_features)
            rows = np.lib.format.open_memmap(partial, "w+", DTYPE, shape)
            for entry, start, tokens in zip(members, _starts(members), encode(members), strict=True):
                rows[start : start + entry.num_tokens] = tokens
                if not np.isfinite(rows[start : start + entry.num_tokens]).all():
                    raise ValueError(f"the tokens of {entry.key!r} do not fit float16; train without frozen tokens")
                bar.update()
            rows.flush()
    bar.close()
    index = [
        (*entry, number, start)
        for number, members in enumerate(shards)
        for entry, start in zip(members, _starts(members), strict=True)
    ]
    write(path, pa.Table.from_pandas(pd.DataFrame(index, columns=TOKENS.names), TOKENS, False), provenance)


def _split(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Split the entries, in order, into shards of about `TOKENS_PER_SHARD` tokens."""
    members: list[Entry] = []
    num_tokens = 0
    for entry in entries:
        members.append(entry)
        num_tokens += entry.num_tokens
        if num_tokens >= TOKENS_PER_SHARD:
            yield members
            members, num_tokens = [], 0
    if members:
        yield members


def _num_tokens(entries: Iterable[Entry]) -> int:
    return sum(entry.num_tokens for entry in entries)


def _starts(entries: Sequence[Entry]) -> list[int]:
    """The row at which each entry's tokens start."""
    ends = np.cumsum([entry.num_tokens for entry in entries]).tolist()
    return [0, *ends[:-1]]


def _shard(path: Path, provenance: TokensProvenance, number: int) -> Path:
    return path.with_suffix("") / f"{provenance.digest()}-{number:05d}.npy"


@cache
def _open(shard: Path) -> np.ndarray:
    """Map a shard into memory, once in every process."""
    return np.load(shard, mmap_mode="r")


def _check_space(
    folder: Path, shards: dict[Path, list[Entry]], missing: dict[Path, list[Entry]], num_features: int
) -> None:
    """Print the size of the tokens. Raises ValueError if the missing ones do not fit on the disk."""
    total, needed = (
        sum(map(_num_tokens, some.values())) * num_features * DTYPE.itemsize / 1e9 for some in (shards, missing)
    )
    free = shutil.disk_usage(folder).free / 1e9
    print(f"{folder}: {total:.3g} GB in {len(shards)} shards, {needed:.3g} GB to be written; {free:.3g} GB are free")
    if needed > 0.95 * free:
        raise ValueError(f"{folder}: {needed:.3g} GB of tokens do not fit on the disk; free space, or use fewer views")
