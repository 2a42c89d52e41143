"""JSON files of hundreds of megabytes, read one object at a time."""

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
"""Bytes that are read at a time."""
MAX_VALUE = 2**24
"""Characters of the largest object that is read; those of the official files have some thousands."""

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def stream_list(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON file that is a list of objects, one by one, under a progress bar.

    NaN is read as `json.loads` reads it. Raises ValueError, once it comes to the fault, for a file that is missing,
    damaged or something else.
    """
    with require_file(path, "place the annotation files of the data set there").open("rb") as file:
        scanner = _Scanner(path, file, path.name)
        scanner.enter("[", "a list of objects")
        for item in scanner.elements():
            if not isinstance(item, dict):
                raise ValueError(f"{path} does not hold a list of objects; place the official file there")
            yield item
        if scanner.peek():
            raise scanner.broken("more follows its list")


def stream_member(path: Path, key: str) -> Iterator[dict[str, Any]]:
    """The objects of the list under `key` of a JSON file that is an object, read as `stream_list` reads.

    What comes before the list is passed over, what comes after it not looked at.
    """
    with require_file(path, "place the annotation files of the data set there").open("rb") as file:
        scanner = _Scanner(path, file, f"{path.name} {key}")
        scanner.enter("{", "an object")
        wanting = ValueError(f"{path} has no list `{key}` of objects; fetch the official file again")
        if not scanner.find(key) or scanner.peek() != "[":
            raise wanting
        scanner.step("[")
        for item in scanner.elements():
            if not isinstance(item, dict):
                raise wanting
            yield item
        scanner.pass_over()  # the bar comes to its end


class _Scanner:
    """A place in a JSON text of which little more than the value that is read is held."""

    def __init__(self, path: Path, file: BinaryIO, what: str):
        self.path = path
        num_chunks = -(-path.stat().st_size // CHUNK)
        chunks = progress(iter(partial(file.read, CHUNK), b""), what, "MiB", num_chunks)
        self.pieces = codecs.iterdecode(chunks, "utf-8-sig", "surrogatepass")
        self.text = ""
        self.place = 0  # in the text held
        self.num_dropped = 0  # characters before it

    def broken(self, fault: object) -> ValueError:
        """What to raise for a file that is no JSON."""
        return ValueError(f"{self.path} is not JSON ({fault}); fetch it again")

    def read_more(self) -> bool:
        """Hold at least twice of what remains, so that a long value is not tried too often; False at the end."""
        rest = self.text[self.place :]
        try:
            pieces = list(islice(self.pieces, max(1, len(rest) // CHUNK)))
        except UnicodeDecodeError as error:
            raise self.broken(error) from error
        self.num_dropped += self.place
        self.text, self.place = "".join([rest, *pieces]), 0
        return bool(pieces)

    def pass_over(self) -> None:
        """Read what remains."""
        self.place = len(self.text)
        while self.read_more():
            self.place = len(self.text)

    def peek(self) -> str:
        """The next character that is no white space, '' at the end."""
        while True:
            self.place = _SPACE.match(self.text, self.place).end()  # type: ignore[union-attr]
            if self.place < len(self.text) or not self.read_more():
                return self.text[self.place : self.place + 1]

    def step(self, mark: str) -> None:
        """Go beyond the character `mark`."""
        if self.peek() != mark:
            raise self.broken(f"no {mark} at character {self.num_dropped + self.place}")
        self.place += 1

    def enter(self, bracket: str, what: str) -> None:
        """Go beyond the bracket with which `what`, all that the file shall hold, begins."""
        if self.peek() not in ("[", "{"):
            self.value()  # tells of what is no JSON at all
        if self.peek() != bracket:
            raise ValueError(f"{self.path} does not hold {what}; place the official file there")
        self.place += 1

    def value(self) -> Any:
        """Read the value that comes next."""
        self.peek()
        while True:
            value, fault = None, ""
            try:
                value, end = _DECODER.raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                end, fault = len(self.text), f"{error.msg} at character {self.num_dropped + error.pos}"
            except (ValueError, RecursionError) as error:  # a number of thousands of digits; nested too deep
                raise self.broken(error) from error
            if fault and end - self.place > MAX_VALUE:
                raise self.broken(f"{fault}, or else it has an object of more than {MAX_VALUE:,} characters")
            # What reaches to the end of the text that is held may go on beyond it.
            if end == len(self.text) and self.read_more():
                continue
            if fault:
                raise self.broken(fault)
            self.place = end
            return value

    def elements(self) -> Iterator[Any]:
        """Read the values of the list whose bracket was passed."""
        if self.peek() != "]":
            yield self.value()
            while self.peek() != "]":
                self.step(",")
                yield self.value()
        self.step("]")

    def find(self, key: str) -> bool:
        """Whether the object whose bracket was passed has `key`; if so, its value comes next."""
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
