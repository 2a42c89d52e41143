"""Collections that grow with the data set, kept in temporary SQLite databases instead of in memory."""

import json
import sqlite3
from collections.abc import Collection, Iterable
from typing import Any


class DistinctStrings:
    """A set of strings."""

    def __init__(self):
        self.table = sqlite3.connect("")
        self.table.execute("CREATE TABLE member (name BLOB PRIMARY KEY) WITHOUT ROWID")
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def add(self, name: str) -> bool:
        """Add a string; return whether it is new."""
        is_new = self.table.execute("INSERT OR IGNORE INTO member VALUES (?)", [_bytes(name)]).rowcount == 1
        self.size += is_new
        return is_new


class Lookup:
    """JSON objects, indexed by the `id_text` of their value for `key`. Of objects with the same id, the last is kept.

    `ids`: the ids to keep. Default: all.
    """

    def __init__(self, items: Iterable[dict[str, Any]], key: str, ids: Collection[str] | None = None):
        self.table = sqlite3.connect("")
        self.table.execute("CREATE TABLE item (id BLOB PRIMARY KEY, content TEXT) WITHOUT ROWID")
        named = ((id_text(item[key]), item) for item in items if key in item)
        rows = ((_bytes(id), json.dumps(item)) for id, item in named if ids is None or id in ids)
        self.table.executemany("INSERT OR REPLACE INTO item VALUES (?, ?)", rows)

    def get(self, id: str) -> dict[str, Any] | None:
        """The object with this id, or None."""
        row = self.table.execute("SELECT content FROM item WHERE id = ?", [_bytes(id)]).fetchone()
        return None if row is None else json.loads(row[0])


def id_text(value: Any) -> str:
    """Convert an id to text, as in records; official files use numbers. A value that is no id becomes `<type>`."""
    is_id = isinstance(value, str | float | None) or (isinstance(value, int) and value.bit_length() < 64)
    return str(value) if is_id else f"<{type(value).__name__}>"


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")  # JSON may contain unpaired surrogates
