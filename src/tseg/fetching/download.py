"""One file over HTTP: whole and verified under its name, or not there at all.

An address that fails is asked again, and goes on where it broke off, be it in this process or after one that was
killed; then the next address has its turn. Nothing gets its name before it is verified.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from tseg.fetching.partial import Origin, Partial, open_partial
from tseg.fetching.responses import (
    PermanentError,
    TransientError,
    cause,
    get,
    part_of,
    refuse_failure,
    refuse_page,
    validator,
    whole_of,
)
from tseg.progress import progress

LONGEST_WAIT = 120.0
"""Seconds; a server that asks for more patience is asked again after that."""
HUB = "https://huggingface.co"


def download(
    urls: Sequence[str],
    target: Path,
    *,
    size: int | None,
    checksum: str | None,
    check: Callable[[Path], None] | None = None,
    attempts: int = 5,
    timeout: float = 30.0,
    first_wait: float = 1.0,
) -> str:
    """Download `target` from the first of `urls` that yields it; returns that one.

    The file has `size` bytes and `checksum` (`md5:...` or `sha256:...`) where they are known; `check` gets the path of
    the finished file, which has another name yet, and raises ValueError where its content is wrong. An address is
    given up after `attempts` failures in a row that brought no byte further; `timeout` seconds of silence are one. It
    is asked again after `first_wait` seconds, then after twice as many, and so on. Raises ValueError that says what
    each address did, that the disk is too small, or that another process is at it; the next call continues what came.
    """
    with open_partial(target) as partial:
        failures = []
        for url in urls:
            try:
                _Transfer(url, partial, size, checksum, check, timeout).persist(attempts, first_wait)
            except PermanentError as error:
                failures.append(f"{url}: {error}")
            else:
                partial.place()
                return url
        raise ValueError(f"{target.name} could not be downloaded: " + ("; ".join(failures) or "it has no address"))


def digest(path: Path, algorithm: str) -> str:
    """The hexadecimal digest of a file; `algorithm` is one of hashlib's."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def verify(path: Path, *, size: int | None, checksum: str | None) -> None:
    """Raise ValueError where the file has not `size` bytes or not `checksum`; None is not looked at."""
    length = path.stat().st_size
    if size not in (None, length):
        raise ValueError(f"{path} has {length:,} bytes, expected {size:,}")
    if checksum is not None:
        algorithm, _, expected = checksum.partition(":")
        if (found := digest(path, algorithm)) != expected:
            raise ValueError(f"{path} has {algorithm} {found}, expected {expected}")


@dataclass
class _Transfer:
    """One address, and what is wanted of it."""

    url: str
    partial: Partial
    size: int | None
    checksum: str | None
    check: Callable[[Path], None] | None
    timeout: float
    may_repeat: bool = True

    def persist(self, attempts: int, first_wait: float) -> None:
        """Ask until the partial file is whole and verified; raises PermanentError."""
        num_fruitless = num_restarts = 0
        while True:
            num_received, num_discarded = self.partial.num_received, self.partial.num_discarded
            try:
                self.receive()
                self.verify()
                return
            except TransientError as failure:
                if self.partial.num_discarded > num_discarded:
                    num_restarts += 1  # never forgiven, or a file that changes all the time would be asked for for ever
                else:
                    num_fruitless = num_fruitless + 1 if self.partial.num_received == num_received else 0
                if num_fruitless + num_restarts >= attempts:
                    raise PermanentError(f"{failure} (tried {attempts} times)") from failure
                wait = first_wait * 2 ** max(0, num_fruitless + num_restarts - 1)
                wait = min(max(failure.wait, wait), LONGEST_WAIT)
                print(f"{self.url}: {failure}; asking again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)

    def receive(self) -> None:
        """Ask for the bytes that lack and append them; returns when there are as many as announced."""
        headers = self.range_headers()
        if headers and self.partial.length == (self.size or self.partial.origin.size):
            return
        try:
            with get(_at_endpoint(self.url), headers | {"Accept-Encoding": "identity"}, self.timeout) as response:
                refuse_failure(response)
                self.append(response, self.prepare(response))
        except urllib3.exceptions.HTTPError as error:
            raise TransientError(cause(error)) from error

    def range_headers(self) -> dict[str, str]:
        """Headers that ask for what lacks; none when what is there cannot be continued from this address."""
        headers = {"Range": f"bytes={self.partial.length}-"} if self.partial.length else {}
        if headers and self.partial.origin.url == self.url and self.partial.origin.validator:
            return headers | {"If-Range": self.partial.origin.validator}
        return headers if self.checksum else {}

    def prepare(self, response: requests.Response) -> int | None:
        """Make the partial file ready for what comes; returns the length of the whole, None if nobody knows it."""
        if response.status_code == 200:
            total = whole_of(response, self.size, self.checksum)
            self.require_room(total)
            self.partial.start(Origin(self.url, validator(response.headers), total))
            return total
        total = self.continued_total(response)
        if total is None:
            self.partial.discard()
            raise TransientError(f"{response.status_code} {response.reason}, which does not continue what is there")
        self.require_room(total)
        self.partial.continued = True
        return total

    def continued_total(self, response: requests.Response) -> int | None:
        """The length of the whole when `response` continues what is there, else None."""
        url, tag, size = self.partial.origin
        changed = url == self.url and validator(response.headers) not in (None, tag)
        total = part_of(response)
        return None if changed or total != (self.size or size or total) else total

    def require_room(self, total: int | None) -> None:
        """Raise ValueError when the disk has no room for what lacks."""
        dir = self.partial.path.parent
        needed, free = (total or 0) - self.partial.length, shutil.disk_usage(dir).free
        if needed > free:
            raise ValueError(f"{self.url} needs {needed:,} bytes in {dir}, where {free:,} are free; make room")

    def append(self, response: requests.Response, total: int | None) -> None:
        """Append the body to the partial file."""
        scale = {"unit_scale": True, "unit_divisor": 1024, "initial": self.partial.length}
        with progress(iter(()), self.partial.target.name, "B", total, **scale) as bar:
            while piece := response.raw.read1(1 << 20, decode_content=False):
                self.partial.append(piece)
                bar.update(len(piece))
                if total is not None and self.partial.length > total:
                    self.partial.discard()
                    raise PermanentError(f"more than the announced {total:,} bytes came")
        if total is not None and self.partial.length < total:
            raise TransientError(f"the connection ended after {self.partial.length:,} of {total:,} bytes")

    def verify(self) -> None:
        """Raise PermanentError where the file is wrong; once TransientError, if continuing it may have made it so."""
        path = self.partial.path
        try:
            with path.open("rb") as file:
                refuse_page(file.read(1 << 16))
            verify(path, size=self.size, checksum=self.checksum)
            if self.check:
                self.check(path)
        except ValueError as error:
            repeat, self.may_repeat = self.partial.continued and self.may_repeat, False
            self.partial.discard()
            reason = str(error).replace(str(path), "the file that came")
            raise (TransientError if repeat else PermanentError)(reason) from error


def _at_endpoint(url: str) -> str:
    """`url`, at HF_ENDPOINT where it is the hub's; raises PermanentError where HF_HUB_OFFLINE keeps from the hub."""
    endpoint, host = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/"), urlsplit(url).netloc
    if host not in (urlsplit(HUB).netloc, urlsplit(endpoint).netloc):
        return url
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise PermanentError("it is not asked while HF_HUB_OFFLINE is set")
    return endpoint + url.partition(host)[2] if host == urlsplit(HUB).netloc else url
