"""Read JSON files of hundreds of megabytes one object at a time.

`docs/dependencies.md` explains why this module does not use ijson.
"""

import codecs
import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from tseg.files import require_file
from tseg.progress import progress

CHUNK = 2**20
"""Bytes per read."""
MAX_VALUE = 2**24
"""Limit of an object in characters; objects of the official files have a few thousand."""

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def stream_list(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON file that holds a list of objects, under a progress bar.

    Values are those of `json.loads`, including NaN. Raises ValueError if the file is missing, damaged or of another
    structure; objects before the damage are yielded first.
    """
    with require_file(path, "put the data set's annotation files there").open("rb") as file:
        scanner = _Scanner(path, file, path.name)
        scanner.enter("[", "a list of objects")
        for item in scanner.elements():
            if not isinstance(item, dict):
                raise ValueError(f"{path} does not hold a list of objects; replace it with the official file")
            yield item
        if scanner.peek():
            raise scanner.broken("text follows its list")


def stream_member(path: Path, key: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of the list under `key` of a JSON file that holds an object; otherwise like `stream_list`.

    Members before the list are skipped; the text after it is not parsed.
    """
    with require_file(path, "put the data set's annotation files there").open("rb") as file:
        scanner = _Scanner(path, file, f"{path.name} {key}")
        scanner.enter("{", "an object")
        missing_list = ValueError(f"{path} has no list `{key}` of objects; fetch the official file again")
        if not scanner.find(key) or scanner.peek() != "[":
            raise missing_list
        scanner.step("[")
        for item in scanner.elements():
            if not isinstance(item, dict):
                raise missing_list
            yield item
        scanner.read_to_end()  # completes the bar


class _Scanner:
    """A position in a JSON text; little more than the current value is held in memory."""

    def __init__(self, path: Path, file: BinaryIO, description: str):
        self.path = path
        num_chunks = -(-path.stat().st_size // CHUNK)
        chunks = progress(iter(partial(file.read, CHUNK), b""), description, "MiB", num_chunks)
        self.pieces = codecs.iterdecode(chunks, "utf-8-sig", "surrogatepass")
        self.text = ""
        self.position = 0  # in `text`
        self.num_dropped = 0  # characters before `text`

    def broken(self, fault: object) -> ValueError:
        """The error to raise for a file that is not JSON."""
        return ValueError(f"{self.path} is not JSON ({fault}); fetch it again")

    def read_more(self) -> bool:
        """At least double the unread text, so that a long value is parsed only a few times; False at the file's end."""
        rest = self.text[self.position :]
        try:
            pieces = list(islice(self.pieces, max(1, len(rest) // CHUNK)))
        except UnicodeDecodeError as error:
            raise self.broken(error) from error
        self.num_dropped += self.position
        self.text, self.position = "".join([rest, *pieces]), 0
        return bool(pieces)

    def read_to_end(self) -> None:
        """Discard the rest of the file."""
        self.position = len(self.text)
        while self.read_more():
            self.position = len(self.text)

    def peek(self) -> str:
        """The next character that is not white space; '' at the end of the file."""
        while True:
            self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]
            if self.position < len(self.text) or not self.read_more():
                return self.text[self.position : self.position + 1]

    def step(self, mark: str) -> None:
        """Move past the character `mark`."""
        if self.peek() != mark:
            raise self.broken(f"no {mark} at character {self.num_dropped + self.position}")
        self.position += 1

    def enter(self, bracket: str, expected: str) -> None:
        """Move past the opening bracket of the file's only value, which is `expected`."""
        if self.peek() not in ("[", "{"):
            self.value()  # raises if the file is not JSON at all
        if self.peek() != bracket:
            raise ValueError(f"{self.path} does not hold {expected}; replace it with the official file")
        self.position += 1

    def value(self) -> Any:
        """Parse the next value."""
        self.peek()
        while True:
            value, fault = None, ""
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                end, fault = len(self.text), f"{error.msg} at character {self.num_dropped + error.pos}"
            except (ValueError, RecursionError) as error:  # a number with thousands of digits, or too deep nesting
                raise self.broken(error) from error
            if fault and end - self.position > MAX_VALUE:
                raise self.broken(f"{fault}, or an object has more than {MAX_VALUE:,} characters")
            # A value that ends where the buffered text ends may continue after it.
            if end == len(self.text) and self.read_more():
                continue
            if fault:
                raise self.broken(fault)
            self.position = end
            return value

    def elements(self) -> Iterator[Any]:
        """Yield the values of a list, after its opening bracket."""
        if self.peek() != "]":
            yield self.value()
            while self.peek() != "]":
                self.step(",")
                yield self.value()
        self.step("]")

    def find(self, key: str) -> bool:
        """Search an object, after its opening bracket, for `key`; if found, the next value is that of `key`."""
        while self.peek() != "}":
            found = self.value() == key
            self.step(":")
            if found:
                return True
            if self.peek() == "[":
                self.step("[")
                for _ in self.elements():
                    pass
            else:
                self.value()
            if self.peek() != "}":
                self.step(",")
        return False
