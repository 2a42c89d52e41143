"""Interpretation of HTTP responses for a file download."""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead

import requests

from tseg.fetching.contents import HEAD, describe_page


class AddressError(Exception):
    """Why a URL did not yield the file."""

    def __init__(self, reason: str) -> None:
        # Part of the text comes from the server; control characters must not reach a terminal.
        super().__init__("".join(filter(str.isprintable, reason))[:300])


class PermanentError(AddressError):
    """A failure that retrying does not cure."""


class TransientError(AddressError):
    """A failure that may pass. `wait`: seconds that the server asks to wait; 0 if none."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def get(url: str, headers: dict[str, str], timeout: float) -> requests.Response:
    """Send GET and return the response, its body unread. Raises TransientError or PermanentError if there is none."""
    try:
        return requests.get(url, headers=headers, stream=True, timeout=timeout)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise TransientError(cause(error)) from error
    except (requests.RequestException, ValueError) as error:  # ValueError: a redirect to an invalid URL
        raise PermanentError(cause(error)) from error


def refuse_failure(response: requests.Response) -> None:
    """Raise TransientError or PermanentError if the response is an error status or a web page."""
    status = f"{response.status_code} {response.reason}"
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise TransientError(status, _retry_after(response.headers.get("Retry-After", "")))
    if response.status_code not in (200, 206, 416):
        raise PermanentError(status)
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise PermanentError(describe_page(response.raw.read(HEAD, decode_content=True)))


def length_of_range(response: requests.Response) -> int | None:
    """The full length of the file if the response holds the requested range of it, else None."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    requested = response.request.headers.get("Range")
    return int(found[2]) if response.status_code == 206 and found and requested == f"bytes={found[1]}-" else None


def full_length(response: requests.Response, size: int | None, checksum: str | None) -> int | None:
    """The announced length of a response that holds the whole file; `size`, which may be None, if it announces none.

    Raises PermanentError if the length differs from `size`, or if nothing would reveal an incomplete or altered file.
    """
    chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() and not chunked else size
    if size not in (None, total):
        raise PermanentError(f"its file has {total:,} bytes, expected {size:,}")
    if total is None and checksum is None and not chunked:
        raise PermanentError("it announces no length, so that an incomplete file could not be detected")
    if checksum is None and response.headers.get("Content-Encoding", "identity") != "identity":
        raise PermanentError("it sends the file compressed, although the request forbids that")
    return total


def validator(headers: Mapping[str, str]) -> str | None:
    """The value for If-Range that identifies this version of the file: a strong ETag, else the date, else None."""
    tag = headers.get("ETag", "W/")
    return headers.get("Last-Modified") if tag.startswith("W/") else tag


def cause(error: BaseException) -> str:
    """The message of the original error; the libraries wrap it several times."""
    while error.__context__:
        error = error.__context__
    return "the connection broke off" if isinstance(error, IncompleteRead) else str(error) or type(error).__name__


def _retry_after(value: str) -> float:
    """Seconds to wait; 0 if the header is empty or invalid."""
    try:
        return float(value) if value.isdecimal() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
