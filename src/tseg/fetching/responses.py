"""What the answers of web servers mean to whoever wants a file of them."""

import html
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead

import requests

_PAGE = re.compile(rb"[\xef\xbb\xbf\s]*<(!doctype\s+html|html)", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)


class AddressError(Exception):
    """Why an address did not yield the file."""

    def __init__(self, reason: str) -> None:
        # Servers choose some of these words; they shall not steer a terminal.
        super().__init__("".join(filter(str.isprintable, reason))[:300])


class PermanentError(AddressError):
    """It will not another time either."""


class TransientError(AddressError):
    """It may another time, in `wait` seconds if it said so."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def get(url: str, headers: dict[str, str], timeout: float) -> requests.Response:
    """The answer to GET, its body not read yet; raises TransientError or PermanentError where none comes."""
    try:
        return requests.get(url, headers=headers, stream=True, timeout=timeout)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise TransientError(cause(error)) from error
    except (requests.RequestException, ValueError) as error:  # a redirect to nonsense is the latter
        raise PermanentError(cause(error)) from error


def refuse_failure(response: requests.Response) -> None:
    """Raise where the answer is not the file: by its status, or because it is a web page."""
    status = f"{response.status_code} {response.reason}"
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise TransientError(status, _retry_after(response.headers.get("Retry-After", "")))
    if response.status_code not in (200, 206, 416):
        raise PermanentError(status)
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise PermanentError(_page_came(response.raw.read(1 << 16, decode_content=True)))


def refuse_page(head: bytes) -> None:
    """Raise ValueError when a file that opens like this is a web page."""
    if _PAGE.match(head):
        raise ValueError(_page_came(head))


def part_of(response: requests.Response) -> int | None:
    """Of an answer that brings the part of a file that was asked for: how long the whole is; None of any other."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    asked = response.request.headers.get("Range")
    return int(found[2]) if response.status_code == 206 and found and asked == f"bytes={found[1]}-" else None


def whole_of(response: requests.Response, size: int | None, checksum: str | None) -> int | None:
    """Of an answer that brings a whole file: how long it is, `size` if it does not say; None if neither is known.

    Raises PermanentError when that is not `size`, or when neither it nor `checksum` would tell that something is amiss.
    """
    chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() and not chunked else size
    if size not in (None, total):
        raise PermanentError(f"its file has {total:,} bytes, expected {size:,}")
    if total is None and checksum is None and not chunked:
        raise PermanentError("it does not say how long the file is: a part of it could pass for the whole")
    if checksum is None and response.headers.get("Content-Encoding", "identity") != "identity":
        raise PermanentError("it sends the file compressed, though asked not to")
    return total


def validator(headers: Mapping[str, str]) -> str | None:
    """What tells that a file is still the same, in the form that If-Range takes: a strong ETag, or the date."""
    tag = headers.get("ETag", "W/")
    return headers.get("Last-Modified") if tag.startswith("W/") else tag


def cause(error: BaseException) -> str:
    """The first of a chain of errors, in words; the libraries wrap it several times."""
    while error.__context__:
        error = error.__context__
    return "the connection broke off" if isinstance(error, IncompleteRead) else str(error) or type(error).__name__


def _retry_after(value: str) -> float:
    """Seconds to wait, 0 where the header says nothing."""
    try:
        return float(value) if value.isdecimal() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0


def _page_came(page: bytes) -> str:
    title = _TITLE.search(page)
    text = " ".join(html.unescape(title[1].decode(errors="replace")).split()) if title else ""
    return "a web page came in place of the file" + (f" ({text})" if text else "")
