"""Download one file over HTTP. It appears under its name only when complete and verified.

Each URL is retried with exponential backoff before the next one is tried. An interrupted transfer continues where it
stopped, even in a new process.
"""

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

from tseg.fetching.contents import HEAD, refuse_page
from tseg.fetching.partial import Origin, Partial, open_partial
from tseg.fetching.responses import (
    PermanentError,
    TransientError,
    cause,
    full_length,
    get,
    length_of_range,
    refuse_failure,
    validator,
)
from tseg.files import hash_file
from tseg.progress import progress

LONGEST_WAIT = 120.0
"""Seconds; the limit of every wait, even one that the server requests."""
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
    """Download `target` from the first of `urls` that works, and return that URL.

    `size` (bytes) and `checksum` (`md5:...` or `sha256:...`) are verified if not None. `check` receives the path of the
    complete file before it gets its name, and raises ValueError if its content is wrong. A URL is abandoned after
    `attempts` failures in a row without progress; `timeout` seconds of silence are a failure. Waits start at
    `first_wait` seconds and double each time.

    Raises ValueError that lists the failure of each URL; also if the disk is too small, or if another process is
    downloading the file. The next call continues an incomplete download.
    """
    with open_partial(target) as partial:
        failures = []
        for url in urls:
            try:
                _Transfer(url, partial, size, checksum, check, timeout).run(attempts, first_wait)
            except PermanentError as error:
                failures.append(f"{url}: {error}")
            else:
                partial.finish()
                return url
        raise ValueError(f"{target.name} could not be downloaded: " + ("; ".join(failures) or "it has no URL"))


def check_download(path: Path, *, size: int | None, checksum: str | None) -> None:
    """Raise ValueError unless the file has `size` bytes and `checksum`; None is not checked."""
    length = path.stat().st_size
    if size not in (None, length):
        raise ValueError(f"{path} has {length:,} bytes, expected {size:,}")
    if checksum is not None:
        algorithm, _, expected = checksum.partition(":")
        if (found := hash_file(path, algorithm)) != expected:
            raise ValueError(f"{path} has {algorithm} {found}, expected {expected}")


@dataclass
class _Transfer:
    """The transfer of a file from one URL."""

    url: str
    partial: Partial
    size: int | None
    checksum: str | None
    check: Callable[[Path], None] | None
    timeout: float
    may_repeat: bool = True

    def run(self, attempts: int, first_wait: float) -> None:
        """Retry until the file is complete and verified. Raises PermanentError after too many failures."""
        num_failures = num_restarts = 0
        while True:
            num_received, num_discards = self.partial.num_received, self.partial.num_discards
            try:
                self.receive()
                self.verify()
                return
            except TransientError as failure:
                if self.partial.num_discards > num_discards:
                    num_restarts += 1  # never reset, or a file that keeps changing would be requested forever
                else:
                    num_failures = num_failures + 1 if self.partial.num_received == num_received else 0
                if num_failures + num_restarts >= attempts:
                    raise PermanentError(f"{failure} (tried {attempts} times)") from failure
                wait = first_wait * 2 ** max(0, num_failures + num_restarts - 1)
                wait = min(max(failure.wait, wait), LONGEST_WAIT)
                print(f"{self.url}: {failure}; trying again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)

    def receive(self) -> None:
        """Request the missing bytes and append them. Raises TransientError if some are still missing."""
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
        """Headers that request the missing bytes; none if this URL cannot continue the bytes received so far."""
        headers = {"Range": f"bytes={self.partial.length}-"} if self.partial.length else {}
        if headers and self.partial.origin.url == self.url and self.partial.origin.validator:
            return headers | {"If-Range": self.partial.origin.validator}
        return headers if self.checksum else {}

    def prepare(self, response: requests.Response) -> int | None:
        """Prepare the incomplete file for the response; return the full length, or None if unknown."""
        if response.status_code == 200:
            total = full_length(response, self.size, self.checksum)
            self.require_space(total)
            self.partial.start(Origin(self.url, validator(response.headers), total))
            return total
        total = self.continued_total(response)
        if total is None:
            self.partial.discard()
            raise TransientError(
                f"{response.status_code} {response.reason}, which does not continue the bytes received so far"
            )
        self.require_space(total)
        self.partial.continued = True
        return total

    def continued_total(self, response: requests.Response) -> int | None:
        """The full length if `response` continues the bytes received so far, else None."""
        url, tag, size = self.partial.origin
        changed = url == self.url and validator(response.headers) not in (None, tag)
        total = length_of_range(response)
        return None if changed or total != (self.size or size or total) else total

    def require_space(self, total: int | None) -> None:
        """Raise ValueError if the missing bytes do not fit on the disk."""
        dir = self.partial.path.parent
        needed, free = (total or 0) - self.partial.length, shutil.disk_usage(dir).free
        if needed > free:
            raise ValueError(f"{self.url} needs {needed:,} bytes in {dir}, but only {free:,} are free; make room")

    def append(self, response: requests.Response, total: int | None) -> None:
        """Append the body of the response to the incomplete file."""
        scale = {"unit_scale": True, "unit_divisor": 1024, "initial": self.partial.length}
        with progress(iter(()), self.partial.target.name, "B", total, **scale) as bar:
            while piece := response.raw.read1(1 << 20, decode_content=False):
                self.partial.append(piece)
                bar.update(len(piece))
                if total is not None and self.partial.length > total:
                    self.partial.discard()
                    raise PermanentError(f"it sends more than the announced {total:,} bytes")
        if total is not None and self.partial.length < total:
            raise TransientError(f"the connection ended after {self.partial.length:,} of {total:,} bytes")

    def verify(self) -> None:
        """Raise PermanentError if the file is wrong, or TransientError, once, if it was received in several parts."""
        path = self.partial.path
        try:
            with path.open("rb") as file:
                refuse_page(file.read(HEAD))
            check_download(path, size=self.size, checksum=self.checksum)
            if self.check:
                self.check(path)
        except ValueError as error:
            repeat, self.may_repeat = self.partial.continued and self.may_repeat, False
            self.partial.discard()
            reason = str(error).replace(str(path), "the received file")
            raise (TransientError if repeat else PermanentError)(reason) from error


def _at_endpoint(url: str) -> str:
    """Return `url`; a hub URL is moved to HF_ENDPOINT. Raises PermanentError if HF_HUB_OFFLINE forbids a hub URL."""
    endpoint, host = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/"), urlsplit(url).netloc
    if host not in (urlsplit(HUB).netloc, urlsplit(endpoint).netloc):
        return url
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise PermanentError("not requested because HF_HUB_OFFLINE is set")
    return endpoint + url.partition(host)[2] if host == urlsplit(HUB).netloc else url
